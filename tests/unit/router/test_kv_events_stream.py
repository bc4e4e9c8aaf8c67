"""One node's messages in their order: duplicates, gaps, and what no message should be."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from kvloop.router.event_metrics import EventMetrics
from kvloop.router.event_stream import EventStream
from kvloop.router.prefix_index import PrefixIndex
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.kv_events import (
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    Event,
    encode_batch,
)

KEYS = page_keys([1, 2, 3, 4], 1)


class Heard:
    """A stream, the index that it changes, and its counters."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.index = PrefixIndex(100)
        self.stream = EventStream("a", self.index, EventMetrics(self.registry))
        self.index.record(KEYS[:1], "b")

    def take(self, number: int, *events: Event, lag_s: float = 0.0) -> None:
        self.stream.take(number, encode_batch(events, time.time() - lag_s))

    @property
    def run(self) -> int:
        return self.index.leading_pages(KEYS).get("a", 0)

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"kvloop_kv_events{name}_total", labels) or 0.0


def stored(keys: Sequence[bytes], medium: str | None = "GPU") -> BlockStored:
    return BlockStored(list(keys), None, [], 1, medium=medium)


def removed(keys: Sequence[bytes], medium: str | None = "GPU") -> BlockRemoved:
    return BlockRemoved(list(keys), medium)


def test_pages_come_and_go_and_are_counted() -> None:
    heard = Heard()
    heard.take(0, stored(KEYS[:3]), stored(KEYS[3:], "CPU_PINNED"))
    assert heard.run == 4
    heard.take(1, removed(KEYS[2:3]))
    assert heard.run == 2
    assert heard.counted("", kind="stored") == 4 and heard.counted("", kind="removed") == 1
    assert heard.stream.num_batches == 2 and heard.stream.num_gaps == 0


def test_tiers_that_are_nobodys_own_are_left_out() -> None:
    heard = Heard()
    heard.take(0, stored(KEYS, "EXTERNAL"), stored(KEYS[:1]))
    heard.take(1, removed(KEYS, "DISK"))
    assert heard.run == 1
    heard.take(2, removed(KEYS, None))
    assert heard.run == 0


def test_when_all_is_cleared_the_node_alone_is_forgotten() -> None:
    heard = Heard()
    heard.take(0, stored(KEYS))
    heard.take(1, AllBlocksCleared(), stored(KEYS[:1]))
    assert heard.index.leading_pages(KEYS) == {"a": 1, "b": 1}
    assert heard.counted("", kind="cleared") == 1


def test_a_message_that_came_before_is_not_applied_again() -> None:
    heard = Heard()
    heard.take(0, stored(KEYS))
    heard.take(1, removed(KEYS))
    heard.take(0, stored(KEYS))
    assert heard.run == 0 and heard.stream.num_batches == 2 and heard.stream.next == 2


def test_what_is_lost_for_good_makes_the_nodes_pages_forgotten() -> None:
    heard = Heard()
    heard.take(0, stored(KEYS))
    assert heard.stream.misses(2) and not heard.stream.misses(1)
    heard.take(2, stored(KEYS[:2]))
    assert heard.run == 2 and heard.stream.num_gaps == 1
    assert heard.index.leading_pages(KEYS)["b"] == 1
    assert heard.counted("_gaps", repaired="false") == 1


def test_who_joins_late_has_lost_nothing() -> None:
    heard = Heard()
    heard.index.record(KEYS[:1], "a")  # what was routed there before
    heard.take(700, stored(KEYS[1:]))
    assert heard.run == 4 and heard.stream.num_gaps == 0


def test_how_late_the_newest_message_came_is_known() -> None:
    heard = Heard()
    assert heard.stream.lag_s is None
    heard.take(0, lag_s=5.0)
    assert heard.stream.lag_s is not None and 5.0 <= heard.stream.lag_s < 15.0


@pytest.mark.parametrize(
    "payload",
    [
        b"nonsense",
        msgspec.msgpack.encode([1.0, [{"type": "BlockStored"}]]),
        encode_batch([BlockStored([5], None, [], 1, medium="GPU")], 1.0),
        encode_batch([BlockRemoved([5], "GPU")], 1.0),
    ],
    ids=["no msgpack", "no hashes", "an integer stored", "an integer removed"],
)
def test_what_cannot_be_read_may_have_said_that_pages_went(payload: bytes) -> None:
    heard = Heard()
    heard.take(0, stored(KEYS))
    heard.stream.take(1, payload)
    assert heard.run == 0 and heard.counted("", kind="malformed") == 1
    heard.take(2, stored(KEYS[:1]))
    assert heard.run == 1
