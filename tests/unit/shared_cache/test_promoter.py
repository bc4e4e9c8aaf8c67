"""Promotions in the background: deletes wait for them, and none keeps its slots."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import cast

import pytest
from two_stores import NAMESPACE, Slots, until

from kvloop.shared_cache.backends.chain.promoter import Promoter
from kvloop.shared_cache.backends.chain.tier import Tier

KEYS = [bytes([i + 1]) * 32 for i in range(20)]


class SlowTier:
    """Its writes wait until they are let go on."""

    is_up = True

    def __init__(self) -> None:
        self.is_writing, self.may_go_on = threading.Event(), threading.Event()
        self.written: list[bytes] = []

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        self.is_writing.set()
        assert self.may_go_on.wait(30)
        self.written += keys
        return [True] * len(keys)


@pytest.fixture
def slots() -> Slots:
    return Slots(num_slots=80)


@pytest.fixture
def tier() -> SlowTier:
    return SlowTier()


@pytest.fixture
def promoter(slots: Slots, tier: SlowTier) -> Iterator[Promoter]:
    """Writes the first 16 pages; four more wait."""
    promoter = Promoter(cast(Tier, tier), slots.pool, NAMESPACE, 64)
    held = slots.filled(KEYS)
    promoter.offer(KEYS[:16], held[:16])
    assert tier.is_writing.wait(30)
    promoter.offer(KEYS[16:], held[16:])
    slots.pool.free(held)
    yield promoter
    tier.may_go_on.set()
    promoter.close()


@pytest.mark.parametrize("keys", [frozenset(KEYS[:1]), None], ids=["one page", "all"])
def test_a_delete_waits_for_a_promotion_that_is_under_way(
    promoter: Promoter, tier: SlowTier, keys: frozenset[bytes] | None
) -> None:
    forget = threading.Thread(target=promoter.forget, args=(keys, 30.0))
    forget.start()
    forget.join(0.1)
    assert forget.is_alive()
    tier.may_go_on.set()
    forget.join(30)
    assert tier.written[:16] == KEYS[:16]


def test_a_delete_takes_what_waits_out_of_the_queue(
    promoter: Promoter, tier: SlowTier, slots: Slots
) -> None:
    promoter.forget(frozenset(KEYS[16:18]), 30.0)
    tier.may_go_on.set()
    until("the rest to be written", lambda: len(tier.written) == 18)
    assert tier.written == KEYS[:16] + KEYS[18:]
    until("all slots to be free", lambda: slots.pool.num_free == slots.pool.num_slots)


def test_closing_frees_the_slots_of_what_waits(
    promoter: Promoter, tier: SlowTier, slots: Slots
) -> None:
    close = threading.Thread(target=promoter.close)
    close.start()
    until("the closing to begin", lambda: promoter._is_closed)
    tier.may_go_on.set()
    close.join(30)
    assert tier.written == KEYS[:16] and slots.pool.num_free == slots.pool.num_slots
