from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.tree import RadixTree

sequences = st.lists(st.integers(0, 2), min_size=1, max_size=6)


def keys_of(tokens: list[int]) -> list[bytes]:
    return page_keys(tokens, 1)


class TreeMachine(RuleBasedStateMachine):
    """The tree beside a plain dict from token tuple to (page, last use)."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = RadixTree()
        self.pages: dict[tuple[int, ...], int] = {}
        self.used: dict[tuple[int, ...], int] = {}
        self.locks: list[list[int]] = []
        self.next_page = 0
        self.clock = 0

    def run_of(self, tokens: list[int]) -> list[tuple[int, ...]]:
        prefixes = [tuple(tokens[: i + 1]) for i in range(len(tokens))]
        return [prefix for prefix in prefixes if prefix in self.pages]

    def touch(self, tokens: list[int]) -> None:
        self.clock += 1
        for prefix in self.run_of(tokens):
            self.used[prefix] = self.clock

    def locked(self) -> set[tuple[int, ...]]:
        return {prefix for tokens in self.locks for prefix in self.run_of(tokens)}

    def leaves(self) -> set[tuple[int, ...]]:
        parents = {prefix[:-1] for prefix in self.pages}
        return set(self.pages) - parents - self.locked()

    @rule(tokens=sequences)
    def insert(self, tokens: list[int]) -> None:
        present = self.run_of(tokens)
        pages = list(range(self.next_page, self.next_page + len(tokens)))
        self.next_page += len(tokens)
        left_over = self.tree.insert(keys_of(tokens), pages)
        assert left_over == pages[: len(present)]
        for i in range(len(present), len(tokens)):
            self.pages[tuple(tokens[: i + 1])] = pages[i]
        self.touch(tokens)

    @rule(tokens=sequences)
    def match(self, tokens: list[int]) -> None:
        expected = [self.pages[prefix] for prefix in self.run_of(tokens)]
        assert self.tree.match(keys_of(tokens)) == expected
        self.touch(tokens)

    @rule(tokens=sequences)
    def lock(self, tokens: list[int]) -> None:
        held = tokens[: len(self.run_of(tokens))]
        self.tree.lock(keys_of(held))
        self.locks.append(held)

    @precondition(lambda self: self.locks)
    @rule(data=st.data())
    def unlock(self, data: st.DataObject) -> None:
        i = data.draw(st.integers(0, len(self.locks) - 1))
        self.tree.unlock(keys_of(self.locks.pop(i)))

    @rule(n=st.integers(0, 5))
    def evict(self, n: int) -> None:
        for page in (evicted := self.tree.evict(n)):
            leaves = self.leaves()
            oldest = min(self.used[leaf] for leaf in leaves)
            gone = next(prefix for prefix, at in self.pages.items() if at == page)
            assert gone in leaves and self.used[gone] == oldest
            del self.pages[gone], self.used[gone]
        assert len(evicted) == n or not self.leaves()

    @rule()
    def clear(self) -> None:
        locked = self.locked()
        expected = {page for prefix, page in self.pages.items() if prefix not in locked}
        assert set(self.tree.clear_unlocked()) == expected
        self.pages = {prefix: self.pages[prefix] for prefix in locked}

    @invariant()
    def counts_agree(self) -> None:
        assert self.tree.num_pages == len(self.pages)
        assert self.tree.num_evictable == len(self.pages) - len(self.locked())


TestTree = TreeMachine.TestCase
TestTree.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_offering_a_page_that_the_tree_holds_returns_nothing() -> None:
    tree = RadixTree()
    keys = keys_of([1, 2])
    assert tree.insert(keys, [7, 8]) == []
    assert tree.insert(keys, [7, 9]) == [9]
    assert tree.match(keys) == [7, 8]


def test_a_branch_shares_the_pages_of_its_common_prefix() -> None:
    tree = RadixTree()
    tree.insert(keys_of([1, 2, 3]), [0, 1, 2])
    assert tree.insert(keys_of([1, 2, 4]), [10, 11, 12]) == [10, 11]
    assert tree.match(keys_of([1, 2, 4])) == [0, 1, 12]


def test_a_lock_on_one_branch_leaves_the_other_evictable() -> None:
    tree = RadixTree()
    tree.insert(keys_of([1, 2]), [0, 1])
    tree.insert(keys_of([1, 3]), [0, 2])
    tree.lock(keys_of([1, 2]))
    assert tree.num_evictable == 1
    assert Counter(tree.evict(9)) == Counter([2])


def test_an_unlock_without_a_lock_is_caught() -> None:
    tree = RadixTree()
    tree.insert(keys_of([1]), [0])
    with pytest.raises(AssertionError, match="unlock without lock"):
        tree.unlock(keys_of([1]))
