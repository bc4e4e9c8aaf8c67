"""Copies, pins and preferred segments, on a real master with real store nodes."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mooncake_pages import NAMESPACE, client
from mooncake_store import MooncakeStore, running
from running import fetch, free_port, wait_for

from kvloop.shared_cache.page_object import object_name

pytestmark = pytest.mark.integration

_SEGMENT_BYTES = 64 << 20
_PAGES_TOO_MANY = 90  # for one segment


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MooncakeStore]:
    flags = ("--master-flag", "default_kv_lease_ttl=100ms", "--client-ttl", "3")
    with running(MooncakeStore(tmp_path / "store.log", _SEGMENT_BYTES, False, *flags)) as store:
        yield store


@pytest.fixture
def other(store: MooncakeStore, tmp_path: Path) -> Iterator[MooncakeStore]:
    """A second store node."""
    log = tmp_path / "other.log"
    with running(MooncakeStore(log, _SEGMENT_BYTES, master=store.address)) as other:
        yield other


def copies(store: MooncakeStore, key: bytes) -> list[str]:
    """Where the copies of a page lie, as the master's HTTP port tells: transport end points."""
    name = object_name(NAMESPACE, key, 0)
    url = f"http://127.0.0.1:{store.metrics_port}/batch_query_keys?keys={name}"
    with urllib.request.urlopen(url, timeout=10) as reply:
        found = json.load(reply)["data"][name]
    return [copy["transport_endpoint_"] for copy in found["values"]]


def end_point(store: MooncakeStore, segment: str) -> str:
    """The transport end point of a segment."""
    url = f"http://127.0.0.1:{store.metrics_port}/get_segments_detail"
    segments: list[dict[str, Any]] = fetch(url)[1]["segments"]
    return next(str(s["te_endpoint"]) for s in segments if s["segment_name"] == segment)


def soft_pinned(store: MooncakeStore) -> int:
    """Pages, by the master's metrics."""
    metrics = fetch(f"http://127.0.0.1:{store.metrics_port}/metrics")[1]
    lines = [line for line in metrics.splitlines() if line.startswith("master_soft_pin_key_count")]
    return int(float(lines[0].split()[-1]))


@pytest.mark.parametrize("replica_num", [1, 2])
def test_a_page_has_as_many_copies_as_are_asked_for(
    store: MooncakeStore, other: MooncakeStore, replica_num: int
) -> None:
    with client(store.config, replica_num=replica_num) as node:
        [key] = node.put(1)
        assert len(set(copies(store, key))) == replica_num


def test_with_two_copies_the_death_of_a_store_node_loses_no_page(
    store: MooncakeStore, other: MooncakeStore
) -> None:
    with client(store.config, replica_num=2) as node:
        keys = node.put(8)
        other.kill()
        # The library reads the first copy only, until the master has given up the dead node.
        wait_for("all pages", lambda: node.readable(keys) == keys)


def test_pages_are_placed_on_the_preferred_segment(
    store: MooncakeStore, other: MooncakeStore
) -> None:
    for preferred in (store.segment, other.segment):
        with client(store.config, preferred_segments=[preferred]) as node:
            where = [copies(store, key) for key in node.put(6)]
        assert where == [[end_point(store, preferred)]] * 6


def test_a_segment_has_the_name_that_its_port_gives_it(tmp_path: Path) -> None:
    port = str(free_port())
    log = tmp_path / "named.log"
    with running(MooncakeStore(log, _SEGMENT_BYTES, False, "--segment-port", port)) as store:
        assert store.segment == f"127.0.0.1:{port}"
        with client(store.config, preferred_segments=[store.segment]) as node:
            [key] = node.put(1)
            assert copies(store, key) == [end_point(store, store.segment)]


def test_a_preferred_segment_that_is_not_there_is_no_hindrance(store: MooncakeStore) -> None:
    with client(store.config, preferred_segments=["127.0.0.1:1"]) as node:
        assert len(node.put(2)) == 2


def test_hard_pinned_pages_stay_while_others_are_evicted(store: MooncakeStore) -> None:
    with client(store.config, with_hard_pin=True) as pinning, client(store.config) as plain:
        pinned = pinning.put(8)
        evictable = plain.put(8)
        plain.put(_PAGES_TOO_MANY)
        assert pinning.readable(pinned) == pinned
        assert len(plain.readable(evictable)) < len(evictable)


def test_records_stay_while_pages_are_evicted(store: MooncakeStore) -> None:
    with client(store.config) as node:
        assert node.backend.put_small("record", b"value")
        first = node.put(8)
        node.put(_PAGES_TOO_MANY)
        assert len(node.readable(first)) < len(first)
        assert node.backend.get_small("record") == b"value"


def test_soft_pinned_pages_are_evicted_last(store: MooncakeStore) -> None:
    with client(store.config, with_soft_pin=True) as pinning, client(store.config) as plain:
        pinned = pinning.put(8)
        assert soft_pinned(store) == 8
        plain.put(_PAGES_TOO_MANY)
        assert pinning.readable(pinned) == pinned


def test_a_soft_pin_ends_with_its_time(store: MooncakeStore) -> None:
    with client(store.config, with_soft_pin=True, soft_pin_ttl_s=0.001) as pinning:
        pinned = pinning.put(8)
        with client(store.config) as plain:
            plain.put(_PAGES_TOO_MANY)
        assert len(pinning.readable(pinned)) < len(pinned)
