"""The failure injector does what its settings say, as often as they say, and no more."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from reference_store import ReferenceBackend

from kvloop.shared_cache.failure_injector import NO_FAILURES, FailureInjector, FailureSettings
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.storage_errors import StorageUnavailable

SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=2, head_size=8, itemsize=2, head_groups=2)
KEYS = [bytes([i]) * 32 for i in range(8)]


class Injected:
    """An injector over a store with eight pages in eight slots, and a record."""

    def __init__(self, name: str, **settings: Any) -> None:
        self.pool = HostPool(SHAPE, 16)
        slots = self.pool.alloc(16)
        assert slots is not None
        self.slots, self.blank = slots[:8], slots[8:]
        for slot in self.slots:
            self.pool.view(slot)[:] = bytes([slot + 1]) * SHAPE.slot_bytes
        self.inner = ReferenceBackend({"store": name}, self.pool, bytes(32))
        self.inner.clear()
        self.inner.set(KEYS, self.slots)
        self.inner.put_small("record", b"value")
        self.backend = FailureInjector(self.inner, FailureSettings(**settings), self.pool)

    def bits_off(self, found: list[bool]) -> int:
        pairs = zip(self.slots, self.blank, found, strict=True)
        return sum(
            (a ^ b).bit_count()
            for slot, blank, is_found in pairs
            if is_found
            for a, b in zip(self.pool.view(slot), self.pool.view(blank), strict=True)
        )


def test_without_failures_it_is_the_backend(request: pytest.FixtureRequest) -> None:
    it = Injected(request.node.name)
    assert it.backend.exists(KEYS) == [True] * 8
    assert it.backend.get(KEYS, it.blank) == [True] * 8 and it.bits_off([True] * 8) == 0
    assert it.backend.get_small("record") == b"value"
    assert it.backend.delete(KEYS[:1]) == [True] and not it.inner.exists(KEYS[:1])[0]
    assert it.backend.set(KEYS[:1], it.slots[:1]) == [True] and it.inner.exists(KEYS[:1])[0]
    assert it.backend.put_small("record", b"new") and it.inner.get_small("record") == b"new"
    assert len(list(it.backend.objects())) == 17
    assert set(it.backend.injected.values()) == {0}


def test_an_error_is_raised_before_anything_is_done(request: pytest.FixtureRequest) -> None:
    it = Injected(request.node.name, errors=1.0)
    calls = [
        lambda: it.backend.exists(KEYS),
        lambda: it.backend.get(KEYS, it.blank),
        lambda: it.backend.set([b"n" * 32], it.slots[:1]),
        lambda: it.backend.delete(KEYS),
        lambda: it.backend.put_small("other", b""),
        lambda: it.backend.get_small("record"),
        it.backend.probe,
    ]
    for call in calls:
        with pytest.raises(StorageUnavailable, match="an injected error"):
            call()
    assert it.inner.exists([*KEYS, b"n" * 32]) == [True] * 8 + [False]
    assert it.inner.get_small("other") is None
    assert it.backend.injected["errors"] == len(calls)


def test_a_lost_write_says_true_and_stores_nothing(request: pytest.FixtureRequest) -> None:
    it = Injected(request.node.name, lost_writes=1.0)
    assert it.backend.set([b"n" * 32], it.slots[:1]) == [True]
    assert it.inner.exists([b"n" * 32]) == [False]
    assert it.backend.put_small("other", b"x") and it.inner.get_small("other") is None


def test_some_lost_writes_of_a_batch_leave_the_others_theirs(
    request: pytest.FixtureRequest,
) -> None:
    it = Injected(request.node.name, lost_writes=0.5)
    it.inner.clear()
    assert it.backend.set(KEYS, it.slots) == [True] * 8
    assert sum(it.inner.exists(KEYS)) == 8 - it.backend.injected["lost_writes"]
    assert 0 < it.backend.injected["lost_writes"] < 8
    assert it.bits_off(it.inner.get(KEYS, it.blank)) == 0


def test_a_miss_hides_what_is_there(request: pytest.FixtureRequest) -> None:
    it = Injected(request.node.name, misses=1.0)
    assert it.backend.exists(KEYS) == [False] * 8
    assert it.backend.get(KEYS, it.blank) == [False] * 8
    assert it.backend.get_small("record") is None


def test_a_flip_turns_one_bit_of_the_payload_of_a_page_that_was_read(
    request: pytest.FixtureRequest,
) -> None:
    it = Injected(request.node.name, flips=1.0)
    assert it.backend.get(KEYS, it.blank) == [True] * 8
    assert it.bits_off([True] * 8) == 8 == it.backend.injected["flips"]
    assert it.inner.get(KEYS, it.blank) == [True] * 8 and it.bits_off([True] * 8) == 0


def test_flips_without_a_pool_are_refused(request: pytest.FixtureRequest) -> None:
    it = Injected(request.node.name)
    with pytest.raises(ValueError, match="flips needs the pool"):
        FailureInjector(it.inner, FailureSettings(flips=0.1))


@pytest.mark.parametrize("by", ["settings", "close"])
def test_a_stall_lasts_until_the_settings_change_or_the_backend_is_closed(
    request: pytest.FixtureRequest, by: str
) -> None:
    it = Injected(request.node.name, stalls=1.0, stall_s=60.0)
    answers: list[list[bool]] = []
    call = threading.Thread(target=lambda: answers.append(it.backend.exists(KEYS)))
    call.start()
    while not it.backend.injected["stalls"]:
        time.sleep(0.001)
    assert not answers
    if by == "settings":
        it.backend.configure(NO_FAILURES)
    else:
        it.backend.close()
    call.join(10)
    assert answers == [[True] * 8]  # late, and then it works


def test_a_stall_ends_by_itself(request: pytest.FixtureRequest) -> None:
    it = Injected(request.node.name, stalls=1.0, stall_s=0.01)
    assert it.backend.exists(KEYS) == [True] * 8 and it.backend.injected["stalls"] == 1


def test_the_same_seed_fails_the_same_calls(request: pytest.FixtureRequest) -> None:
    def pattern(seed: int) -> list[bool]:
        it = Injected(request.node.name, misses=0.5, seed=seed)
        return [found for _ in range(8) for found in it.backend.exists(KEYS)]

    assert pattern(1) == pattern(1) != pattern(2)
    assert 10 < sum(pattern(1)) < 54


def test_stats_and_clear_and_close_are_never_disturbed(request: pytest.FixtureRequest) -> None:
    it = Injected(request.node.name, errors=1.0, stalls=1.0, stall_s=60.0)
    assert it.backend.stats()["sets"] == 8 and it.backend.stats()["injected_errors"] == 0
    it.backend.clear()
    it.backend.configure(NO_FAILURES)
    assert it.backend.exists(KEYS) == [False] * 8
    it.backend.close()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("errors", 1.5, "errors must be within 0 .. 1, got 1.5"),
        ("flips", -0.1, "flips must be within 0 .. 1, got -0.1"),
        ("stall_s", -1.0, "stall_s must not be negative, got -1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(field: str, value: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FailureSettings(**{field: value})  # type: ignore[arg-type]
