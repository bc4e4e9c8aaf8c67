"""An edge site: local first, central in the background, alone while the link is down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from two_stores import BROKEN, NAMESPACE, STALLED, FrailStore, Slots, until

from kvloop.shared_cache.backends.zones.backend import Openers, ZonesBackend
from kvloop.shared_cache.backends.zones.config import ZonesConfig
from kvloop.shared_cache.conformance.pages import SMALL
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable

KEYS = [bytes([i + 1]) * 32 for i in range(6)]
INNER = {"backend": "file", "config": {"root": "r"}}
Make = Callable[..., ZonesBackend]


@pytest.fixture
def local() -> FrailStore:
    return FrailStore()


@pytest.fixture
def central() -> FrailStore:
    return FrailStore()


@pytest.fixture
def slots() -> Slots:
    return Slots()


@pytest.fixture
def make(local: FrailStore, central: FrailStore, slots: Slots) -> Iterator[Make]:
    made: list[ZonesBackend] = []

    def make_zones(**fields: Any) -> ZonesBackend:
        fields = {"local_deadline_s": 0.2, "central_deadline_s": 0.4, "lease_s": 0.6, **fields}
        fields = {"zone": "edge-a", "local": INNER, "central": INNER, **fields}
        config = msgspec.convert(fields, ZonesConfig)
        staging = HostPool(SMALL, config.staging_pages)
        openers = [
            Openers(local.opener(pool), central.opener(pool)) for pool in (slots.pool, staging)
        ]
        made.append(ZonesBackend(config, *openers, slots.pool, staging, NAMESPACE))
        return made[-1]

    yield make_zones
    local.heal()
    central.heal()
    for zones in made:
        zones.close()


def test_a_page_is_set_when_the_local_store_has_it_and_reaches_the_central_one(
    make: Make, local: FrailStore, central: FrailStore, slots: Slots
) -> None:
    zones = make()
    written = slots.filled(KEYS)
    assert zones.set(KEYS, written) == [True] * 6
    assert local.keys() == set(KEYS)
    slots.pool.free(written)
    until("the pages at the centre", lambda: central.keys() == set(KEYS))
    until("an empty outbox", lambda: zones.stats()["backlog"] == 0)
    assert zones.stats()["sent"] == 6


def test_local_pages_are_read_without_asking_the_central_store(
    make: Make, local: FrailStore, central: FrailStore, slots: Slots
) -> None:
    zones = make()
    local.plant(KEYS[0])
    before = central.num_calls
    assert zones.exists(KEYS[:1]) == zones.get(KEYS[:1], slots.blank(1)) == [True]
    assert central.num_calls == before


@pytest.mark.parametrize("keep", [True, False])
def test_a_page_of_the_centre_is_read_across_the_link_and_kept_where_wanted(
    make: Make, local: FrailStore, central: FrailStore, slots: Slots, keep: bool
) -> None:
    zones = make(keep=keep)
    central.plant(KEYS[0])
    read = slots.blank(2)
    assert zones.exists(KEYS[:2]) == zones.get(KEYS[:2], read) == [True, False]
    assert slots.hold(read[:1], KEYS[:1])
    if keep:
        until("the local copy", lambda: local.keys() == {KEYS[0]})
    zones.close()
    assert (local.keys() == {KEYS[0]}) == keep
    assert zones.stats()["sent"] == 0  # what came from the centre is not sent back


def test_pages_kept_are_bounded_by_their_queue(
    make: Make, local: FrailStore, central: FrailStore, slots: Slots
) -> None:
    zones = make(keep_queue_pages=2)
    for key in KEYS:
        central.plant(key)
    assert zones.get(KEYS, slots.blank(6)) == [True] * 6
    assert zones.stats()["promotions_dropped"] == 4


@pytest.mark.parametrize("failure", [BROKEN, STALLED], ids=["broken", "stalled"])
def test_the_site_goes_on_alone_while_the_link_is_down_and_catches_up_after(
    make: Make, local: FrailStore, central: FrailStore, slots: Slots, failure: Any
) -> None:
    zones = make()
    central.suffer(failure)
    for key in KEYS:
        assert zones.set([key], slots.filled([key])) == [True]
        assert zones.exists([key]) == zones.get([key], slots.blank(1)) == [True]
    assert zones.exists([b"x" * 32]) == [False]  # a miss, and no error
    zones.exists([b"x" * 32])
    assert zones.stats()["backlog"] == 6 and zones.stats()["central_up"] == 0
    central.heal()
    until("the pages at the centre", lambda: central.keys() == set(KEYS))
    until("an empty outbox", lambda: zones.stats()["backlog"] == 0)
    until("the link", lambda: zones.stats()["central_up"] == 1)


def test_with_the_link_down_the_central_store_is_not_even_asked(
    make: Make, central: FrailStore, slots: Slots
) -> None:
    zones = make()
    central.suffer(BROKEN)
    zones.exists(KEYS)
    zones.exists(KEYS)  # the breaker is open now
    before = zones.stats()["central_refused"]
    for _ in range(5):
        assert zones.exists(KEYS) == [False] * 6
    assert zones.stats()["central_refused"] == before + 5


def test_what_the_centre_has_already_is_not_sent(
    make: Make, local: FrailStore, central: FrailStore, slots: Slots
) -> None:
    zones = make()
    central.plant(KEYS[0])
    zones.set(KEYS[:2], slots.filled(KEYS[:2]))
    until("an empty outbox", lambda: zones.stats()["backlog"] == 0)
    assert zones.stats()["sent"] == zones.stats()["already_there"] == 1


def test_damaged_pages_are_not_sent_and_are_removed(
    make: Make, local: FrailStore, central: FrailStore, slots: Slots
) -> None:
    zones = make()
    central.suffer(BROKEN)
    zones.set(KEYS[:2], slots.filled(KEYS[:2]))
    local.plant(KEYS[0], damaged=True)
    central.heal()
    until("an empty outbox", lambda: zones.stats()["backlog"] == 0)
    assert central.keys() == local.keys() == {KEYS[1]} and zones.stats()["damaged"] == 1


def test_pages_that_the_local_store_has_dropped_are_counted_as_lost(
    make: Make, local: FrailStore, central: FrailStore, slots: Slots
) -> None:
    zones = make()
    central.suffer(BROKEN)
    zones.set(KEYS[:2], slots.filled(KEYS[:2]))
    local.remove(KEYS[0])
    central.heal()
    until("an empty outbox", lambda: zones.stats()["backlog"] == 0)
    assert central.keys() == {KEYS[1]} and zones.stats()["lost"] == 1


def test_a_full_outbox_keeps_the_first_pages_and_counts_the_others(
    make: Make, local: FrailStore, central: FrailStore, slots: Slots
) -> None:
    zones = make(outbox_pages=4)
    central.suffer(BROKEN)
    assert zones.set(KEYS, slots.filled(KEYS)) == [True] * 6
    assert zones.stats()["backlog"] == 4 and zones.stats()["overflowed"] == 2
    central.heal()
    until("the first pages", lambda: central.keys() == set(KEYS[:4]))


def test_pages_go_through_staging_however_small_it_is(
    make: Make, central: FrailStore, slots: Slots
) -> None:
    zones = make(staging_pages=1)
    assert zones._sender._staging.num_slots == 1
    zones.set(KEYS, slots.filled(KEYS))
    until("the pages at the centre", lambda: central.keys() == set(KEYS))


def test_the_outbox_outlives_the_node(
    make: Make, local: FrailStore, central: FrailStore, slots: Slots
) -> None:
    first = make()
    central.suffer(BROKEN)
    first.set(KEYS, slots.filled(KEYS))
    first.close()
    central.heal()
    assert central.keys() == set()
    second = make()
    until("the pages at the centre", lambda: central.keys() == set(KEYS))
    until("an empty outbox", lambda: second.stats()["backlog"] == 0)
    assert second.stats()["adopted"] == second.stats()["sent"] == 6


def test_a_dead_nodes_outbox_waits_for_the_lease(
    make: Make, local: FrailStore, central: FrailStore, slots: Slots
) -> None:
    dead = make(lease_s=3600)
    dead._sender._is_closed.set()  # the thread ends; nothing is released
    dead._sender._outbox.wake()
    dead._sender._thread.join(10)
    dead._journal.release = lambda: None  # type: ignore[method-assign]
    dead.set(KEYS, slots.filled(KEYS))
    make(lease_s=0.6)
    until("the pages at the centre", lambda: central.keys() == set(KEYS))


def test_a_node_that_closed_in_good_order_is_followed_without_waiting_for_the_lease(
    make: Make, central: FrailStore, slots: Slots
) -> None:
    first = make(lease_s=3600)
    central.suffer(BROKEN)
    first.set(KEYS, slots.filled(KEYS))
    first.close()
    central.heal()
    second = make(lease_s=3600)
    second._sender._beat()  # its own first one would come in minutes
    until("the pages at the centre", lambda: central.keys() == set(KEYS))


def test_the_sender_outlives_an_error_that_nobody_thought_of(
    make: Make, central: FrailStore, slots: Slots
) -> None:
    zones = make()
    send, errors = zones._sender._send, [RuntimeError("odd")]
    zones._sender._send = lambda: send() if not errors else _raise(errors.pop())  # type: ignore[method-assign]
    assert zones.set(KEYS, slots.filled(KEYS)) == [True] * 6
    until("the pages at the centre", lambda: central.keys() == set(KEYS))
    assert not errors


def _raise(error: Exception) -> bool:
    raise error


def test_an_outbox_that_there_is_no_room_for_waits_until_there_is(
    make: Make, central: FrailStore, slots: Slots
) -> None:
    central.suffer(BROKEN)
    first, second = make(outbox_pages=4), make(outbox_pages=4)
    assert first.set(KEYS[:3], slots.filled(KEYS[:3])) == [True] * 3
    assert second.set(KEYS[3:], slots.filled(KEYS[3:])) == [True] * 3
    first.close()  # and the second one looks after its outbox
    num_beats = second._journal._beat
    until("some beats of the second", lambda: second._journal._beat > num_beats + 3)
    assert second.stats()["overflowed"] == 0
    central.heal()
    until("all pages at the centre", lambda: central.keys() == set(KEYS))


def test_another_zone_does_not_send_for_this_one(
    make: Make, central: FrailStore, slots: Slots
) -> None:
    central.suffer(BROKEN)
    make(zone="edge-a").set(KEYS[:1], slots.filled(KEYS[:1]))
    other = make(zone="edge-b")
    assert list(other._journal.orphans()) == []
    assert other.stats()["backlog"] == 0


def test_with_the_local_store_down_the_centre_is_used_directly(
    make: Make, local: FrailStore, central: FrailStore, slots: Slots
) -> None:
    zones = make()
    local.suffer(BROKEN)
    for key in KEYS[:3]:
        assert zones.set([key], slots.filled([key])) == [True]
    assert central.keys() == set(KEYS[:3])
    assert zones.exists(KEYS[:4]) == [True] * 3 + [False]
    assert zones.put_small("record", b"x") and central.records() == {"record": b"x"}
    assert zones.get_small("record") == b"x"


def test_with_both_stores_down_zones_are_unavailable(
    make: Make, local: FrailStore, central: FrailStore, slots: Slots
) -> None:
    zones = make()
    local.suffer(BROKEN)
    central.suffer(BROKEN)
    for call in (
        lambda: zones.exists(KEYS),
        lambda: zones.set(KEYS[:1], slots.blank(1)),
        lambda: zones.get_small("epoch"),
        zones.clear,
    ):
        with pytest.raises(StorageUnavailable, match="storage backend 'zones'"):
            call()


def test_a_deleted_page_is_not_sent_after_all(
    make: Make, local: FrailStore, central: FrailStore, slots: Slots
) -> None:
    zones = make()
    for _ in range(20):
        written = slots.filled(KEYS)
        zones.set(KEYS, written)
        slots.pool.free(written)
        assert zones.delete(KEYS) == [True] * 6
        assert zones.exists(KEYS) == [False] * 6
    assert zones.stats()["backlog"] == 0 and central.keys() == set()


def test_clear_empties_both_stores_and_the_outbox(
    make: Make, local: FrailStore, central: FrailStore, slots: Slots
) -> None:
    zones = make()
    zones.set(KEYS, slots.filled(KEYS))
    zones.put_small("record", b"x")
    zones.clear()
    assert local.keys() == central.keys() == set() == set(local.records())
    assert zones.set(KEYS[:1], slots.filled(KEYS[:1])) == [True]
    until("the page at the centre", lambda: central.keys() == {KEYS[0]})


def test_clear_says_so_when_the_centre_was_not_reached(
    make: Make, local: FrailStore, central: FrailStore, slots: Slots
) -> None:
    zones = make()
    central.suffer(BROKEN)
    zones.exists(KEYS)
    zones.exists(KEYS)
    zones.set(KEYS, slots.filled(KEYS))
    with pytest.raises(StorageUnavailable, match="central was not cleared"):
        zones.clear()
    assert local.keys() == set() and zones.stats()["backlog"] == 0


def test_records_are_local_first_and_follow_to_the_centre(
    make: Make, local: FrailStore, central: FrailStore
) -> None:
    zones = make()
    assert zones.put_small("manifest", b"shape")
    until("the record", lambda: central.records() == {"manifest": b"shape"})
    central.suffer(BROKEN)
    assert zones.get_small("manifest") == b"shape"
    assert zones.put_small("manifest", b"newer") and zones.stats()["backlog_records"] == 1
    central.heal()
    until("the newer record", lambda: central.records() == {"manifest": b"newer"})


def test_records_of_the_centre_are_read_where_there_is_no_local_one(
    make: Make, central: FrailStore
) -> None:
    zones = make()
    central._openings[0].put_small("manifest", b"theirs")
    assert zones.get_small("manifest") == b"theirs" and zones.get_small("other") is None


def test_the_epoch_is_the_local_stores_own(
    make: Make, local: FrailStore, central: FrailStore
) -> None:
    zones = make()
    central._openings[0].put_small("epoch", b"theirs")
    assert zones.get_small("epoch") is None
    assert zones.put_small("epoch", b"mine") and zones.get_small("epoch") == b"mine"
    assert zones.put_small("last", b"") and zones.get_small("last") == b""
    until("the later record", lambda: "last" in central.records())
    assert central.records()["epoch"] == b"theirs"


def test_opening_writes_no_record_to_either_store(
    make: Make, local: FrailStore, central: FrailStore
) -> None:
    make().exists(KEYS)
    assert local.records() == central.records() == {}


def test_each_store_has_the_deadline_that_was_set_for_it(make: Make) -> None:
    zones = make(local_deadline_s=0.25, central_deadline_s=0.75)
    tiers = (zones._local, zones._central)
    assert [tier._guard._shared.config.deadline_s for tier in tiers] == [0.25, 0.75]
