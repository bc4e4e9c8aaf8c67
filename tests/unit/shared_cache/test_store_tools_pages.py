"""Verifying, copying and removing pages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from shelf_store import SHELVES, Shelf, address

from kvloop.shared_cache.errors import CapacityError
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.manifest import RECORD, Manifest, decode_manifest
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.store_tools import copying
from kvloop.shared_cache.store_tools.copying import CopyReport, copy_manifest, copy_pages_between
from kvloop.shared_cache.store_tools.evicting import evict
from kvloop.shared_cache.store_tools.open_store import OpenStore, all_ended
from kvloop.shared_cache.store_tools.reading import pages_per_batch, staging_pool
from kvloop.shared_cache.store_tools.verifying import VerifyReport, verify

SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=2, head_size=8, itemsize=2, head_groups=2)
NS = b"n" * 32
KEYS = [bytes([i]) * 32 for i in range(100)]
MANIFEST = Manifest(namespace=NS.hex(), shape=SHAPE, model="m")
DEADLINE_S = 5.0


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    yield
    for shelf in SHELVES.values():
        for event in shelf.stalls.values():
            event.set()
    SHELVES.clear()


@pytest.fixture
def shelf() -> Shelf:
    return SHELVES["a"]


def opened(store: str, pool: HostPool | None = None, deadline_s: float = DEADLINE_S) -> OpenStore:
    return OpenStore(address(store), pool or staging_pool(SHAPE), NS, deadline_s)


class Advances:
    def __init__(self) -> None:
        self.pages = self.num_bytes = 0

    def __call__(self, pages: int, num_bytes: int) -> None:
        self.pages += pages
        self.num_bytes += num_bytes


def verified(store: str, keys: list[bytes], **options: object) -> tuple[VerifyReport, Advances]:
    advances = Advances()
    with opened(store) as opened_store:
        report = verify(opened_store, keys, advance=advances, **options)  # type: ignore[arg-type]
    return report, advances


def test_good_pages_are_counted_by_writer(shelf: Shelf) -> None:
    for i, key in enumerate(KEYS[:70]):
        shelf.plant(NS, SHAPE, key, writer="decode" if i % 7 == 0 else "prefill")
    report, advances = verified("a", KEYS[:70])
    assert report.num_good == {"prefill": 60, "decode": 10} and not report.num_faults
    assert (advances.pages, advances.num_bytes) == (70, 70 * SHAPE.slot_bytes)
    assert report.num_bytes == advances.num_bytes


def test_damage_is_counted_by_kind_in_whatever_group_it_is(shelf: Shelf) -> None:
    for key in KEYS[:4]:
        shelf.plant(NS, SHAPE, key)
    shelf.flip(NS, KEYS[1], group=1)
    shelf.flip(NS, KEYS[2], place=SHAPE.payload_bytes)
    shelf.objects[NS, KEYS[3], 0] = shelf.objects[NS, KEYS[0], 0]
    report, _ = verified("a", KEYS[:4])
    assert report.num_faults == {"payload": 1, "magic": 1, "key": 1}
    assert {(page.key, page.fault) for page in report.bad} == {
        (KEYS[1], "payload"),
        (KEYS[2], "magic"),
        (KEYS[3], "key"),
    }
    assert report.num_good.total() == 1 and report.num_deleted == 0
    assert len(shelf.objects) == 8  # nothing was removed


def test_damaged_pages_alone_are_removed_on_demand(shelf: Shelf) -> None:
    for key in KEYS[:3]:
        shelf.plant(NS, SHAPE, key)
    shelf.flip(NS, KEYS[1])
    report, _ = verified("a", KEYS[:3], is_deleting=True)
    assert report.num_deleted == 1
    assert {key for _, key, _ in shelf.objects} == {KEYS[0], KEYS[2]}


def test_a_page_of_another_length_is_a_fault_and_one_that_went_is_none(shelf: Shelf) -> None:
    shelf.plant(NS, SHAPE, KEYS[0])
    shelf.objects[NS, KEYS[0], 1] = b"short"
    report, advances = verified("a", KEYS[:2], misfits={KEYS[0]})
    assert report.num_faults == {"length": 1} and report.num_gone == 1
    assert advances.pages == 2


def test_a_page_that_is_said_to_be_there_and_is_not_given_is_a_fault(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.plant(NS, SHAPE, KEYS[0])
    with opened("a") as store:
        monkeypatch.setattr(store, "get", lambda keys, slots: [False] * len(keys))
        report = verify(store, KEYS[:1], advance=Advances())
    assert report.num_faults == {"unreadable": 1}


def copied(keys: list[bytes], report: CopyReport | None = None) -> tuple[CopyReport, Advances]:
    report, advances, pool = report or CopyReport(), Advances(), staging_pool(SHAPE)
    with opened("a", pool) as source, opened("b", pool) as target:
        copy_pages_between(source, target, keys, report, advances)
    assert pool.num_free == pool.num_slots
    return report, advances


def test_pages_are_copied_bit_for_bit(shelf: Shelf) -> None:
    for key in KEYS:
        shelf.plant(NS, SHAPE, key)
    report, advances = copied(KEYS)
    assert SHELVES["b"].objects == shelf.objects
    assert (report.num_copied, report.num_bytes) == (100, 100 * SHAPE.slot_bytes)
    assert (advances.pages, advances.num_bytes) == (100, report.num_bytes)


def test_pages_that_are_there_are_not_read_again(shelf: Shelf) -> None:
    for key in KEYS[:10]:
        shelf.plant(NS, SHAPE, key)
    copied(KEYS[:4])
    num_gets = shelf.num_gets
    report, advances = copied(KEYS[:10])
    assert (report.num_there, report.num_copied) == (4, 6)
    assert shelf.num_gets == num_gets + 6 and advances.pages == 10


def test_damaged_pages_are_left_out_and_counted(shelf: Shelf) -> None:
    for key in KEYS[:3]:
        shelf.plant(NS, SHAPE, key)
    shelf.flip(NS, KEYS[1], group=1)
    report, advances = copied(KEYS[:4])
    assert report.num_damaged == {"payload": 1} and report.num_copied == 2
    assert report.num_gone == 1 and advances.pages == 4
    assert {key for _, key, _ in SHELVES["b"].objects} == {KEYS[0], KEYS[2]}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_BETWEEN_TRIES_S", 0.001)


def test_a_target_that_is_full_ends_the_copy_and_says_how_far_it_came(
    shelf: Shelf, impatient: None
) -> None:
    for key in KEYS:
        shelf.plant(NS, SHAPE, key)
    SHELVES["b"].room = 40
    report = CopyReport()
    with pytest.raises(CapacityError, match="no room"):
        copied(KEYS, report)
    assert report.num_copied == 40 and report.num_no_room == 56


def test_room_that_comes_a_little_later_is_used(
    shelf: Shelf, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in KEYS[:8]:
        shelf.plant(NS, SHAPE, key)
    SHELVES["b"].room = 3
    monkeypatch.setattr(copying.time, "sleep", lambda _: setattr(SHELVES["b"], "room", None))
    report, _ = copied(KEYS[:8])
    assert (report.num_copied, report.num_no_room) == (8, 0)


def test_a_copy_that_was_stopped_goes_on(shelf: Shelf) -> None:
    for key in KEYS:
        shelf.plant(NS, SHAPE, key)
    first, pool = CopyReport(), staging_pool(SHAPE)

    def stop_soon(_pages: int, _bytes: int) -> None:
        if first.num_copied:
            raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        opened("a", pool) as source,
        opened("b", pool) as target,
    ):
        copy_pages_between(source, target, KEYS, first, stop_soon)
    assert all_ended(5)
    second, _ = copied(KEYS)
    assert 0 < first.num_copied < 100
    assert second.num_there == first.num_copied
    assert SHELVES["b"].objects == shelf.objects


def test_memory_is_two_batches_whatever_a_page_is() -> None:
    large = replace(SHAPE, num_layers=80, page_size=64, num_kv_heads=8, head_size=128)
    assert pages_per_batch(SHAPE) == 32
    assert pages_per_batch(large) * large.slot_bytes <= 32 << 20
    assert staging_pool(large).num_slots == 2 * pages_per_batch(large)
    assert pages_per_batch(replace(large, page_size=1024)) == 1


def test_the_manifest_goes_along_and_one_that_is_there_stays(shelf: Shelf) -> None:
    with opened("b") as target:
        assert copy_manifest(target, MANIFEST)
        assert copy_manifest(target, Manifest(namespace=NS.hex(), shape=SHAPE, model="another"))
    assert decode_manifest(SHELVES["b"].records[NS, RECORD], NS) == MANIFEST


def test_a_target_that_keeps_no_records_is_told_apart(shelf: Shelf) -> None:
    SHELVES["b"].keeps_records = False
    with opened("b") as target:
        assert not copy_manifest(target, MANIFEST)


def test_evicted_pages_are_gone_and_counted(shelf: Shelf) -> None:
    for key in KEYS[:3]:
        shelf.plant(NS, SHAPE, key)
    advances = Advances()
    with opened("a") as store:
        num_gone = evict(store, [KEYS[0], KEYS[2], KEYS[9]], lambda n: advances(n, 0))
    assert num_gone == 2 and advances.pages == 3
    assert {key for _, key, _ in shelf.objects} == {KEYS[1]}
