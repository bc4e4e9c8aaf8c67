"""One stream of KV events, heard through real sockets on loopback."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq
from event_subscriber import AllBlocksCleared, ArrayBatch, BlockRemoved, BlockStored, MapBatch
from event_subscriber import Subscriber as Peer
from running import wait_for
from zmq.utils import z85

from kvloop.engine import event_publisher
from kvloop.engine.event_config import StreamConfig
from kvloop.engine.event_publisher import EventPublisher
from kvloop.engine.event_recorder import Cleared, Record, Removed, Stored
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.kv_events import END, MAX_PAGES, Side, curve_secret
from kvloop.shared_cache.tree_node import Tier

PAGE = 2
ANY = "tcp://127.0.0.1:*"
LAST = 999_999
Open = Callable[..., EventPublisher]


@pytest.fixture
def opened() -> Iterator[Open]:
    publishers: list[EventPublisher] = []

    def open_one(secret: str | None = None, dropped: Any = None, **fields: Any) -> EventPublisher:
        config = StreamConfig(**{"endpoint": ANY, "replay_endpoint": ANY, **fields})
        publishers.append(EventPublisher(config, PAGE, secret, dropped or (lambda pages: None)))
        return publishers[-1]

    yield open_one
    for publisher in publishers:
        publisher.close()


def key(number: int) -> bytes:
    return number.to_bytes(8, "big") * 4


def stored(first: int, num: int = 1, **fields: Any) -> Stored:
    keys = [key(number) for number in range(first, first + num)]
    parent = key(first - 1) if first else None
    return Stored(**{"tier": Tier.DEVICE, "keys": keys, "parent": parent, **fields})


def events(frames: list[bytes], kind: Any = MapBatch) -> list[Any]:
    found: list[Any] = msgspec.msgpack.decode(frames[-1], type=kind).events
    return found


def number(frames: list[bytes]) -> int:
    return int.from_bytes(frames[-2], "big", signed=True)


def all_events(publisher: EventPublisher, *records: Record, kind: Any = MapBatch) -> list[Any]:
    """What comes of records: what the stream began with and the sign that ends them left out."""
    with Peer(publisher.endpoint, publisher.replay_endpoint) as peer:
        replayed(peer, 1)
        publisher.publish(records)
        publisher.publish([Removed(tier=Tier.HOST, keys=[key(LAST)])])
        for num in range(2, 100):
            found = [event for frames in replayed(peer, num) for event in events(frames, kind)]
            if getattr(found[-1], "block_hashes", None) in ([key(LAST)], [LAST]):
                return found[1:-1]
    raise AssertionError("the last event did not come")


def replayed(peer: Peer, num: int) -> list[list[bytes]]:
    """All messages, once there are so many."""

    def messages() -> list[list[bytes]] | None:
        found = list(peer.replayed(0))[:-1]
        return found if len(found) >= num else None

    found: list[list[bytes]] = wait_for(f"message {num}", messages)
    return found


def send_messages(peer: Peer, publisher: EventPublisher, num: int) -> None:
    """Have the stream send so many in all, one after the other."""
    replayed(peer, 1)
    for count in range(1, num):

        def is_sent(last: int = count) -> bool:
            return number(list(peer.replayed(0))[-2]) == last

        publisher.publish([stored(count)])
        wait_for(f"message {count}", is_sent)


def connected(peer: Peer, publisher: EventPublisher) -> int:
    """Publish until the peer hears it (a subscription takes its time); the number heard last."""
    for attempt in range(100):
        publisher.publish([stored(attempt)])
        if not peer.is_silent(0.1):
            while not peer.is_silent(0.1):
                last = number(peer.next())
            return last
    raise AssertionError("the subscriber heard nothing")


def test_live_messages_have_a_topic_a_number_and_a_batch(opened: Open) -> None:
    publisher = opened(topic="kv-events")
    with Peer(publisher.endpoint, topic="kv") as peer:
        last = connected(peer, publisher)
        publisher.publish([stored(5, 2), Removed(tier=Tier.HOST, keys=[key(9)])])
        frames = peer.next()
    assert frames[0] == b"kv-events" and number(frames) == last + 1
    assert events(frames) == [
        BlockStored([key(5), key(6)], key(4), [], PAGE, None, "GPU", None),
        BlockRemoved([key(9)], "CPU_PINNED"),
    ]


def test_a_stream_begins_with_nothing_stored(opened: Open) -> None:
    publisher = opened()
    with Peer(publisher.endpoint, publisher.replay_endpoint) as peer:
        first, *_ = replayed(peer, 1)
    assert number(first) == 0 and events(first) == [AllBlocksCleared()]


def test_a_replay_begins_where_it_is_asked_to_and_ends_with_the_end(opened: Open) -> None:
    publisher = opened(topic="t")
    with Peer(publisher.endpoint, publisher.replay_endpoint) as peer:
        last = connected(peer, publisher)
        *messages, end = peer.replayed(last)
        assert [(frames[0], number(frames)) for frames in messages] == [(b"t", last)]
        assert end == [b"", END, b""]
        assert list(peer.replayed(last + 1)) == [end]
        assert [number(frames) for frames in peer.replayed(0)] == [*range(last + 1), -1]


def test_a_peer_may_ask_for_the_whole_buffer_again_and_again(opened: Open) -> None:
    publisher = opened(buffer_steps=4)
    with Peer(publisher.endpoint, publisher.replay_endpoint) as peer:
        send_messages(peer, publisher, 5)
        whole = list(peer.replayed(0))
        assert len(whole) == 5
        for _ in range(50):
            assert list(peer.replayed(0)) == whole


def test_a_replay_goes_back_no_further_than_its_buffer(opened: Open) -> None:
    publisher = opened(buffer_steps=2)
    with Peer(publisher.endpoint, publisher.replay_endpoint) as peer:
        connected(peer, publisher)
        last = connected(peer, publisher)
        assert [number(frames) for frames in peer.replayed(0)] == [last - 1, last, -1]


def test_what_a_buffer_holds_is_bounded_in_bytes_too(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvloop.engine.event_publisher._BUFFER_BYTES", 1000)
    publisher = opened()
    with Peer(publisher.endpoint, publisher.replay_endpoint) as peer:
        last = connected(peer, publisher)
        publisher.publish([stored(0, 40)])  # 40 keys of 32 bytes alone
        assert number(peer.next()) == last + 1
        assert [number(frames) for frames in peer.replayed(0)] == [last + 1, -1]


def test_old_streams_are_arrays_and_their_replays_without_a_topic(opened: Open) -> None:
    publisher = opened(encoding="array", topic="t")
    (old,) = all_events(publisher, stored(3), kind=ArrayBatch)
    assert (old.block_hashes, old.parent_block_hash, old.medium) == ([key(3)], key(2), "GPU")
    with Peer(publisher.endpoint, publisher.replay_endpoint) as peer:
        assert {len(frames) for frames in peer.replayed(0)} == {2}


@pytest.mark.parametrize("frames", [[b""], [b"", b"short"], [b"nothing"]])
def test_a_request_for_a_replay_that_is_none_is_left_alone(
    opened: Open, frames: list[bytes]
) -> None:
    publisher = opened()
    with Peer(publisher.endpoint, publisher.replay_endpoint) as peer:
        peer._replay.send_multipart(frames)
        assert number(list(peer.replayed(0))[-1]) == -1


def test_a_replay_can_be_asked_for_without_a_delimiter(opened: Open) -> None:
    publisher = opened()
    with Peer(publisher.endpoint, publisher.replay_endpoint) as peer:
        peer._replay.send((0).to_bytes(8, "big"))
        assert peer._replay.poll(10_000)
        assert len(peer._replay.recv_multipart()) == 3


def test_hashes_are_integers_where_peers_expect_them(opened: Open) -> None:
    publisher = opened(block_hashes="int64")
    found = all_events(publisher, stored(3), Removed(tier=Tier.DEVICE, keys=[key(3)]))
    assert found[0].block_hashes == found[1].block_hashes == [3] and found[0].parent_block_hash == 2


def test_tokens_and_seed_are_sent_where_they_are_wanted_only(opened: Open) -> None:
    known = stored(0, 2, tokens=[1, 2, 3, 4], seed=b"\xab\xcd")
    (full,) = all_events(opened(token_ids=True), known, stored(7, 1, tier=Tier.HOST))
    (bare, other) = all_events(opened(), known, stored(7))
    assert full.token_ids == [1, 2, 3, 4] and full.block_hashes == [key(0), key(1)]
    assert full.cache_salt == "abcd" and bare.cache_salt is None
    assert bare.token_ids == other.token_ids == []


def test_long_runs_are_cut_into_events_that_follow_each_other(opened: Open) -> None:
    num = 2 * MAX_PAGES + 3
    tokens = list(range(num * PAGE))
    found = all_events(opened(token_ids=True), stored(1, num, tokens=tokens))
    assert [len(event.block_hashes) for event in found] == [MAX_PAGES, MAX_PAGES, 3]
    assert [event.parent_block_hash for event in found] == [key(i * MAX_PAGES) for i in range(3)]
    assert [token for event in found for token in event.token_ids] == tokens
    gone = all_events(opened(), Removed(tier=Tier.DEVICE, keys=[key(i) for i in range(num)]))
    assert [name for event in gone for name in event.block_hashes] == list(map(key, range(num)))
    assert max(len(event.block_hashes) for event in gone) == MAX_PAGES


def test_what_comes_too_fast_is_forgotten_whole_and_counted(opened: Open) -> None:
    dropped: list[int] = []
    publisher = opened(dropped=dropped.append, max_queue_size=4)
    found = all_events(publisher, stored(0, 3), stored(9, 2))
    assert found == [AllBlocksCleared()] and dropped == [5]


def test_what_cannot_be_said_makes_subscribers_begin_anew_and_is_counted(opened: Open) -> None:
    dropped: list[int] = []
    publisher = opened(dropped=dropped.append, token_ids=True)
    odd: Any = stored(0, 3, tokens=[object()] * 3 * PAGE)
    with Peer(publisher.endpoint, publisher.replay_endpoint) as peer:
        replayed(peer, 1)
        publisher.publish([odd])
        assert events(replayed(peer, 2)[-1]) == [AllBlocksCleared()] and dropped == [3]
    (found,) = all_events(publisher, stored(7, tokens=[1] * PAGE))[1:]
    assert found.block_hashes == [key(7)]


def test_a_stopped_publisher_takes_nothing_more(opened: Open) -> None:
    publisher = opened()
    publisher.close()
    reader, writer = os.pipe()  # in the place of its closed file
    try:
        publisher.publish([stored(1)])
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 8)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_peer_cannot_send_more_than_a_request_needs(
    opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = opened()
    with Peer(publisher.endpoint, publisher.replay_endpoint) as peer:
        peer._replay.send_multipart([b"", b"x" * (1 << 20)])
    with Peer(publisher.endpoint, publisher.replay_endpoint) as peer:
        assert number(list(peer.replayed(0))[-1]) == -1
    assert "a replay must be asked for" not in caplog.text


def test_a_replay_goes_back_no_further_than_its_memory(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_publisher, "_BUFFER_BYTES", 1)
    publisher = opened()
    with Peer(publisher.endpoint, publisher.replay_endpoint) as peer:
        last = connected(peer, publisher)
        assert [number(frames) for frames in peer.replayed(0)] == [last, -1]


def test_messages_that_a_replay_no_longer_has_take_none_of_its_memory(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_publisher, "_BUFFER_BYTES", 1000)
    monkeypatch.setattr(event_publisher, "_GATHER_S", 0.001)
    publisher = opened(buffer_steps=2)
    with Peer(publisher.endpoint, publisher.replay_endpoint) as peer:
        send_messages(peer, publisher, 20)  # of about 150 bytes each
        assert len(list(peer.replayed(0))) == 3


def test_a_slow_subscriber_has_so_many_messages_waiting_and_no_more(opened: Open) -> None:
    assert opened(hwm=7)._pub.sndhwm == 7


def test_a_libzmq_without_curve_is_named(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq, "has", lambda feature: feature != "curve")
    with pytest.raises(ConfigError, match="CURVE"):
        opened("between nodes", is_encrypted=True)


def test_a_node_that_loses_all_says_so(opened: Open) -> None:
    assert all_events(opened(), Cleared()) == [AllBlocksCleared()]


def test_a_publisher_connects_to_a_subscriber_that_is_bound(opened: Open) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as sub:
        sub.linger = 0
        sub.subscribe(b"")
        port = sub.bind_to_random_port("tcp://127.0.0.1")
        endpoint = f"tcp://127.0.0.1:{port}"
        publisher = opened(endpoint=endpoint, is_bound=False, replay_endpoint=None)
        assert publisher.replay_endpoint is None
        for _ in range(100):
            publisher.publish([stored(1)])
            if sub.poll(100):
                return
    raise AssertionError("the subscriber heard nothing")


def test_an_endpoint_that_cannot_be_bound_is_named(opened: Open) -> None:
    taken = opened().endpoint
    for fields in ({"endpoint": taken.replace("127.0.0.1", "*")}, {"replay_endpoint": taken}):
        with pytest.raises(ConfigError, match=r"--kv-events-config: cannot listen at .*in use"):
            opened(**fields)


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="needs IPv6")
def test_an_address_of_version_six_can_be_bound(opened: Open) -> None:
    publisher = opened(endpoint="tcp://[::1]:*", replay_endpoint="tcp://[::1]:*")
    assert publisher.endpoint.startswith("tcp://[::1]:")


def test_closing_sends_what_is_queued(opened: Open) -> None:
    publisher = opened()
    with Peer(publisher.endpoint) as peer:
        last = connected(peer, publisher)
        publisher.publish([stored(1)])
        publisher.close()
        assert number(peer.next()) == last + 1


def heard_with(
    publisher: EventPublisher, secret: str | None, own_side: Side, num_attempts: int = 5
) -> bool:
    """Whether a subscriber hears it that has the keys of this secret, its own of that side."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        sub = context.socket(zmq.SUB)
        if secret is not None:
            own = z85.encode(curve_secret(secret, own_side))
            node = z85.encode(curve_secret("between nodes", "publisher"))
            sub.curve_secretkey, sub.curve_publickey = own, zmq.curve_public(own)
            sub.curve_serverkey = zmq.curve_public(node)
        sub.subscribe(b"")
        sub.connect(publisher.endpoint)
        for _ in range(num_attempts):
            publisher.publish([stored(1)])
            if sub.poll(100):
                return True
        return False
    finally:
        context.destroy(linger=0)


def test_an_encrypted_stream_is_heard_by_who_knows_the_secret_only(opened: Open) -> None:
    publisher = opened("between nodes", is_encrypted=True)
    assert heard_with(publisher, "between nodes", "subscriber", 100)
    assert not heard_with(publisher, "another", "subscriber")
    assert not heard_with(publisher, "between nodes", "publisher")
    assert not heard_with(publisher, None, "subscriber")


def test_a_public_stream_is_plain_though_the_node_has_a_secret(opened: Open) -> None:
    assert heard_with(opened("between nodes"), None, "subscriber", 100)
