"""What the tree reports becomes records, from which its tiers' content can be rebuilt."""

from __future__ import annotations

from functools import partial
from typing import Any

from event_audit import EventAudit
from hypothesis import given
from hypothesis import strategies as st

from kvloop.engine.event_recorder import Cleared, EventRecorder, Removed, Stored
from kvloop.shared_cache.keys import cache_seed, page_keys
from kvloop.shared_cache.tree import RadixTree
from kvloop.shared_cache.tree_node import ABSENT, Tier
from kvloop.shared_cache.tree_parts import Leaving

PAGE = 2
TIERS = (Tier.DEVICE, Tier.HOST)
SEED = cache_seed("tenant", None)


def watched(*, wants_tokens: bool = True) -> tuple[RadixTree, EventRecorder]:
    recorder = EventRecorder(PAGE, wants_tokens=wants_tokens)
    return RadixTree(observer=recorder), recorder


def insert(
    tree: RadixTree,
    recorder: EventRecorder,
    tokens: list[int],
    tier: Tier = Tier.DEVICE,
    seed: bytes | None = None,
) -> list[bytes]:
    keys = page_keys(tokens, PAGE, seed)
    recorder.learn("run", keys, lambda: tokens, seed)
    tree.insert(tier, keys, list(range(len(keys))))
    recorder.forget("run")
    return keys


def test_new_pages_have_their_parent_their_tokens_and_the_seed() -> None:
    tree, recorder = watched()
    first = insert(tree, recorder, [1, 2, 3, 4], seed=SEED)
    assert recorder.take() == [
        Stored(tier=Tier.DEVICE, keys=first, parent=None, tokens=[1, 2, 3, 4], seed=SEED)
    ]
    longer = insert(tree, recorder, [1, 2, 3, 4, 5, 6, 7, 8, 9], seed=SEED)
    (stored,) = recorder.take()
    assert stored == Stored(
        tier=Tier.DEVICE, keys=longer[2:], parent=longer[1], tokens=[5, 6, 7, 8], seed=SEED
    )
    insert(tree, recorder, [1, 2, 3, 4, 5, 6, 7, 8, 9], seed=SEED)
    assert recorder.take() == []


def test_a_branch_follows_the_page_that_it_leaves() -> None:
    tree, recorder = watched()
    insert(tree, recorder, [1, 2, 3, 4, 5, 6])
    recorder.take()
    other = insert(tree, recorder, [1, 2, 7, 8])
    (stored,) = recorder.take()
    assert stored == Stored(tier=Tier.DEVICE, keys=other[1:], parent=other[0], tokens=[7, 8])


def test_tokens_are_left_out_where_unwanted_or_unknown() -> None:
    tree, recorder = watched(wants_tokens=False)
    insert(tree, recorder, [1, 2])
    assert recorder.take()[0].tokens is None  # type: ignore[union-attr]
    tree, recorder = watched()
    tree.insert(Tier.DEVICE, page_keys([1, 2], PAGE), [0])
    recorder.learn("other", page_keys([3, 4], PAGE), lambda: [3, 4])
    tree.insert(Tier.HOST, page_keys([1, 2], PAGE), [0])
    assert [record.tokens for record in recorder.take()] == [None, None]  # type: ignore[union-attr]


class Looked(list[bytes]):
    """Counts how often one of its keys is looked at."""

    num = 0

    def __getitem__(self, index: Any) -> Any:
        self.num += 1
        return super().__getitem__(index)


def test_pages_that_enter_one_by_one_are_looked_for_once_whatever_else_queues() -> None:
    tree, recorder = watched()
    tokens = list(range(100))
    keys = page_keys(tokens, PAGE)
    other = Looked(page_keys([7] * 100, PAGE))
    recorder.learn("other", other, lambda: [7] * 100)
    recorder.learn("run", keys, lambda: tokens)
    tree.insert(Tier.DEVICE, keys, range(50))
    for index in range(0, 50, 2):
        tree.match(keys[:index])  # a node for every two pages
    tree.assign(Tier.HOST, keys, range(50), range(50))
    _, on_host = recorder.take()
    assert on_host == Stored(tier=Tier.HOST, keys=keys, parent=None, tokens=tokens)
    assert other.num <= 2


def test_a_branch_does_not_take_the_tokens_of_the_run_before_it() -> None:
    tree, recorder = watched()
    long, branch = [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 9, 9]
    keys, others = page_keys(long, PAGE), page_keys(branch, PAGE)
    recorder.learn("long", keys, lambda: long)
    recorder.learn("branch", others, lambda: branch)
    tree.insert(Tier.DEVICE, keys[:2], [0, 1])
    tree.insert(Tier.DEVICE, others, [0, 1, 2])
    assert recorder.take() == [Stored(tier=Tier.DEVICE, keys=others, parent=None, tokens=branch)]


def test_a_sequence_that_has_ended_has_no_tokens() -> None:
    tree, recorder = watched()
    keys = page_keys([1, 2, 3, 4], PAGE)
    recorder.learn("run", keys, lambda: [1, 2, 3, 4])
    tree.insert(Tier.DEVICE, keys[:1], [0])
    recorder.forget("run")
    tree.insert(Tier.DEVICE, keys, [0, 1])
    first, second = recorder.take()
    assert isinstance(first, Stored) and first.tokens == [1, 2]
    assert isinstance(second, Stored) and second.tokens is None


def test_a_page_that_one_tier_keeps_has_left_the_other_only() -> None:
    tree, recorder = watched()
    keys = insert(tree, recorder, [1, 2, 3, 4])
    insert(tree, recorder, [1, 2, 3, 4], Tier.HOST)
    recorder.take()
    tree.evict(Tier.DEVICE, 1)
    assert recorder.take() == [Removed(tier=Tier.DEVICE, keys=[keys[1]])]
    tree.evict(Tier.DEVICE, 1)
    assert recorder.take() == [Removed(tier=Tier.DEVICE, keys=[keys[0]])]


def test_when_nothing_is_left_one_record_says_so() -> None:
    tree, recorder = watched()
    insert(tree, recorder, [1, 2, 3, 4])
    tree.evict(Tier.DEVICE, 2)
    assert recorder.take() == [Cleared()]
    assert recorder.take() == []


def test_what_is_known_of_l3_is_no_nodes_own() -> None:
    tree, recorder = watched()
    insert(tree, recorder, [1, 2, 3, 4], Tier.STORAGE)
    tree.evict(Tier.STORAGE, 1)
    assert recorder.take() == []


def test_a_failed_backup_and_a_spill_are_told() -> None:
    tree, recorder = watched()
    keys = insert(tree, recorder, [1, 2, 3, 4])
    tree.assign(Tier.HOST, keys, [1], [7])
    tree.assign(Tier.HOST, keys, [1], [8])  # another slot: the page was there already
    tree.assign(Tier.HOST, keys, [1], [ABSENT])
    recorder_says = recorder.take()[1:]
    assert recorder_says == [
        Stored(tier=Tier.HOST, keys=keys[1:], parent=keys[0]),
        Removed(tier=Tier.HOST, keys=keys[1:]),
    ]

    def spill(left: list[Leaving]) -> None:
        for leaving in left:
            for index in leaving.indices:
                tree.put(leaving.node, Tier.HOST, index, 9)

    tree.evict(Tier.DEVICE, 1, spill=spill)
    assert recorder.take() == [
        Removed(tier=Tier.DEVICE, keys=keys[1:]),
        Stored(tier=Tier.HOST, keys=keys[1:], parent=keys[0]),
    ]


_STEPS = st.tuples(
    st.sampled_from(["insert", "evict", "drop", "take"]),
    st.sampled_from(TIERS),
    st.lists(st.integers(0, 1), min_size=1, max_size=6),
)


@given(st.lists(_STEPS, max_size=40))
def test_records_rebuild_both_tiers_whatever_happens(
    steps: list[tuple[str, Tier, list[int]]],
) -> None:
    tree, recorder = watched()
    subscriber = EventAudit(recorder, PAGE)
    for what, tier, tokens in steps:
        prompt = [token for token in tokens for _ in range(PAGE)]
        keys = page_keys(prompt, PAGE)
        recorder.learn(str(len(tokens)), keys, partial(list, prompt))
        if what == "insert":
            first = len(keys) // 2 if tier is Tier.HOST else 0
            tree.insert(tier, keys, list(range(first, len(keys))))
        elif what == "evict":
            tree.evict(tier, len(keys))
        elif what == "drop" and tree.values(Tier.HOST, keys)[-1] != ABSENT:
            tree.assign(Tier.HOST, keys, [len(keys) - 1], [ABSENT])
        elif what == "take":
            subscriber.check(tree)
    subscriber.check(tree)
