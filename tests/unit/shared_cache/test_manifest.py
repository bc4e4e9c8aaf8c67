"""The record by which tools learn what a namespace's pages are."""

import threading
from collections.abc import Iterator

import msgspec
import pytest
import xxhash
from memory_backend import MemoryBackend, Valve, eventually

from kvloop.shared_cache.guard import GuardConfig, GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.manifest import (
    RECORD,
    Manifest,
    decode_manifest,
    encode_manifest,
    keep_manifest,
)
from kvloop.shared_cache.page_object import PageShape

NAMESPACE = b"n" * 32
SHAPE = PageShape(num_layers=2, page_size=4, num_kv_heads=2, head_size=8, itemsize=2)
MANIFEST = Manifest(
    namespace=NAMESPACE.hex(), shape=SHAPE, model="m", kv_dtype="bfloat16", release_tag="r"
)
QUICK = GuardConfig(deadline_s=2, check_s=0.05, first_retry_s=0.02, num_threads=2)


@pytest.fixture
def valve() -> Valve:
    return Valve()


@pytest.fixture
def backend(valve: Valve) -> MemoryBackend:
    return MemoryBackend(valve, HostPool(SHAPE, 1))


def read(backend: MemoryBackend) -> Manifest | None:
    record = backend.get_small(RECORD)
    return decode_manifest(record, NAMESPACE) if record is not None else None


def test_a_manifest_comes_back_with_all_its_fields() -> None:
    assert decode_manifest(encode_manifest(MANIFEST), NAMESPACE) == MANIFEST


def test_every_flipped_bit_is_seen() -> None:
    record = encode_manifest(MANIFEST)
    for place in range(len(record)):
        for bit in range(8):
            damaged = bytearray(record)
            damaged[place] ^= 1 << bit
            assert decode_manifest(bytes(damaged), NAMESPACE) in (None, MANIFEST)


@pytest.mark.parametrize("record", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"manifest":1,"xxh3":""}'])
def test_what_is_no_manifest_is_none(record: bytes) -> None:
    assert decode_manifest(record, NAMESPACE) is None


def test_another_namespaces_manifest_is_not_taken() -> None:
    assert decode_manifest(encode_manifest(MANIFEST), b"o" * 32) is None


def test_the_first_manifest_stays(backend: MemoryBackend) -> None:
    keep_manifest(backend, MANIFEST)
    first = read(backend)
    assert first is not None and first.written_at > 0
    keep_manifest(backend, Manifest(namespace=NAMESPACE.hex(), shape=SHAPE, model="another"))
    assert read(backend) == first


def test_a_damaged_manifest_is_written_anew(backend: MemoryBackend) -> None:
    backend.put_small(RECORD, b"damaged")
    keep_manifest(backend, MANIFEST)
    assert read(backend) is not None


class _Guard:
    """A guard over the valve's store, with a manifest."""

    def __init__(self, valve: Valve, backend: type[MemoryBackend] = MemoryBackend) -> None:
        pool = HostPool(SHAPE, 2)
        self.guard = GuardedBackend(
            lambda: backend(valve, pool),
            pool,
            name="memory",
            namespace=NAMESPACE,
            config=QUICK,
            manifest=MANIFEST,
        )
        assert self.guard.wait_attached(5)


@pytest.fixture
def guard(valve: Valve) -> Iterator[GuardedBackend]:
    guard = _Guard(valve).guard
    yield guard
    assert guard.close()


def test_a_store_has_the_manifest_soon_after_it_is_attached(
    guard: GuardedBackend, valve: Valve
) -> None:
    assert eventually(lambda: RECORD.encode() in valve.pages)


def test_a_store_that_lost_its_content_gets_the_manifest_again(
    guard: GuardedBackend, valve: Valve
) -> None:
    assert eventually(lambda: RECORD.encode() in valve.pages)
    valve.pages.clear()
    assert eventually(lambda: RECORD.encode() in valve.pages)


def test_a_store_attached_later_gets_the_manifest_too(valve: Valve) -> None:
    pool = HostPool(SHAPE, 2)
    guard = GuardedBackend(
        None, pool, name="none", namespace=NAMESPACE, config=QUICK, manifest=MANIFEST
    )
    guard.attach(lambda: MemoryBackend(valve, pool), "memory")
    assert eventually(lambda: RECORD.encode() in valve.pages)
    assert guard.close()


class _NoRecords(MemoryBackend):
    """Takes the epoch, and hangs at every other record."""

    released = threading.Event()
    num_hanging = 0

    def put_small(self, name: str, value: bytes) -> bool:
        if name == RECORD:
            type(self).num_hanging += 1
            assert self.released.wait(30)
        return super().put_small(name, value)


def test_a_store_that_hangs_at_the_manifest_serves_all_the_same(valve: Valve) -> None:
    guard = _Guard(valve, _NoRecords).guard
    assert eventually(lambda: _NoRecords.num_hanging == 1)
    num_calls = valve.num_waiting
    assert eventually(lambda: valve.num_waiting > num_calls + 5)  # looks at the store
    assert guard.exists([b"k" * 32]) == [False]
    assert _NoRecords.num_hanging == 1 and guard.state == "attached"
    _NoRecords.released.set()
    assert guard.close()


class _RefusesRecords(MemoryBackend):
    def put_small(self, name: str, value: bytes) -> bool:
        if name == RECORD:
            raise OSError("no records here")
        return super().put_small(name, value)


def test_a_store_that_refuses_the_manifest_serves_all_the_same(valve: Valve) -> None:
    guard = _Guard(valve, _RefusesRecords).guard
    num_calls = valve.num_waiting
    assert eventually(lambda: valve.num_waiting > num_calls + 5)
    assert guard.exists([b"k" * 32]) == [False] and guard.state == "attached"
    assert guard.close()


def test_shapes_that_cannot_be_are_refused_though_the_sum_is_right() -> None:
    body = msgspec.json.encode(MANIFEST).replace(b'"head_groups":1', b'"head_groups":3')
    total = xxhash.xxh3_64_hexdigest(body)
    record = b'{"manifest":%b,"xxh3":"%b"}' % (body, total.encode())
    assert decode_manifest(record, NAMESPACE) is None
    assert decode_manifest(record.replace(body, b"{}"), NAMESPACE) is None
