import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvloop.shared_cache.page_allocator import PageAllocator

NUM_PAGES = 24


def longest_run(pages: set[int]) -> int:
    best = run = 0
    for page in range(NUM_PAGES):
        run = run + 1 if page in pages else 0
        best = max(best, run)
    return best


class AllocatorMachine(RuleBasedStateMachine):
    """Random allocs and frees beside a plain set of free pages."""

    def __init__(self) -> None:
        super().__init__()
        self.allocator = PageAllocator(NUM_PAGES)
        self.free = set(range(NUM_PAGES))
        self.taken: list[int] = []

    @rule(n=st.integers(0, NUM_PAGES + 1), after=st.none() | st.integers(0, NUM_PAGES))
    def alloc(self, n: int, after: int | None) -> None:
        longest = longest_run(self.free)
        pages = self.allocator.alloc(n, after)
        if n > len(self.free):
            assert pages is None
            return
        assert pages is not None and len(pages) == n and pages == sorted(set(pages))
        assert self.free.issuperset(pages)
        if n and longest >= n:
            assert pages == list(range(pages[0], pages[0] + n))
        if after is not None and n and self.free.issuperset(range(after + 1, after + 1 + n)):
            is_run_start = after not in self.free
            assert not is_run_start or pages[0] == after + 1
        self.free.difference_update(pages)
        self.taken += pages

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        pages = data.draw(st.lists(st.sampled_from(self.taken), unique=True))
        self.allocator.free(pages)
        self.free.update(pages)
        self.taken = [page for page in self.taken if page not in pages]

    @invariant()
    def counts_agree(self) -> None:
        assert self.allocator.num_free == len(self.free)


TestAllocator = AllocatorMachine.TestCase
TestAllocator.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_the_smallest_run_that_is_long_enough_is_taken() -> None:
    allocator = PageAllocator(10)
    allocator.alloc(10)
    allocator.free([0, 1, 2, 3, 6, 7])
    assert allocator.alloc(2) == [6, 7]


def test_without_a_long_run_the_pages_come_from_the_fewest_runs() -> None:
    allocator = PageAllocator(10)
    allocator.alloc(10)
    allocator.free([0, 2, 4, 5, 6])
    assert allocator.alloc(4) == [2, 4, 5, 6]


def test_a_sequence_grows_into_the_pages_behind_it() -> None:
    allocator = PageAllocator(10)
    allocator.alloc(10)
    allocator.free([1, 4, 5, 6])
    assert allocator.alloc(1, after=3) == [4]


@pytest.mark.parametrize("pages", [[2], [3, 3], [0, 1, 2]])
def test_a_double_free_is_caught(pages: list[int]) -> None:
    allocator = PageAllocator(4)
    allocator.alloc(4)
    allocator.free([2])
    with pytest.raises(AssertionError, match="double free"):
        allocator.free(pages)


def test_an_empty_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="num_pages must be positive, got 0"):
        PageAllocator(0)
