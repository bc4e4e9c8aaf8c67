"""Requests, hand-offs, faults and ends in any order: a page has one owner, and the right bytes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
from examples import examples
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvloop.decode.admission import own
from kvloop.decode.request import OwnedRequest
from kvloop.decode.request_pages import RequestPages
from kvloop.shared_cache.keys import cache_seed, page_keys
from kvloop.shared_cache.tree_node import Tier
from kvloop.shared_cache.wire import CacheMode, GenerateRequest, Sampling

SIZE, NUM_PAGES = 2, 14
NEW = st.sampled_from([[1], [1, 2, 1], [1, 2, 1, 1], [1, 2, 1, 2, 1, 2, 1], [2, 2, 1]])
MODES = st.sampled_from(["on", "on", "on", "l3_only", "off"])
Bytes = tuple[str, tuple[int, ...]]
"""What KV a page holds, or whose garbage: all of the sequence up to its last token."""


@dataclass(eq=False)
class Live:
    owner: OwnedRequest
    salt: str
    stage: str = "hand-off"
    """Then `running`, then `ended`."""
    offered: list[int] = field(default_factory=list)

    @property
    def tokens(self) -> list[int]:
        return self.owner.request.prompt + self.owner.output

    def bytes_at(self, index: int) -> Bytes:
        """Of a page, as far as it has KV."""
        return self.salt, tuple(self.tokens[: min((index + 1) * SIZE, self.owner.num_kv)])


def in_stage(stage: str) -> Any:
    return precondition(lambda self: any(live.stage == stage for live in self.live))


class PagesMachine(RuleBasedStateMachine):
    """Device memory is a list of what each page holds; senders write late where they may."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = RequestPages(NUM_PAGES)
        self.memory: list[Bytes] = [("never written", ())] * NUM_PAGES
        self.live: list[Live] = []
        self.quarantine: list[list[int]] = []
        self.known: dict[bytes, Bytes] = {}
        self.num_submitted = 0
        self.histories: list[list[int]] = [[]]

    def some(self, data: Any, stage: str) -> Live:
        return data.draw(st.sampled_from([live for live in self.live if live.stage == stage]))

    @rule(
        data=st.data(),
        new=NEW,
        answer=st.integers(1, 9),
        mode=MODES,
        salt=st.sampled_from("aaab"),
    )
    def submit(self, data: Any, new: list[int], answer: int, mode: CacheMode, salt: str) -> None:
        """A next turn, or a first one; of a pool that cannot hold a few of them."""
        prompt = [*data.draw(st.sampled_from(self.histories)), *new]
        if len(prompt) + answer > NUM_PAGES * SIZE:
            return
        self.num_submitted += 1
        seed = cache_seed(None, salt)
        assert seed is not None
        request = GenerateRequest(
            request_id=f"r{self.num_submitted}",
            prompt=prompt,
            sampling=Sampling(max_tokens=answer, seed=1),
            namespace="n",
            cache=mode,
            cache_seed=seed.hex(),
        )
        for end in range(SIZE, len(prompt) + 1, SIZE):
            self.known[page_keys(prompt[:end], SIZE, seed)[-1]] = salt, tuple(prompt[:end])
        owner = own(request, SIZE)
        before = self.pages.cache.num_available
        if not self.pages.reserve(owner):
            assert self.pages.cache.num_available == before
            return
        matched = owner.pages[: owner.num_matched]
        expected = [(salt, tuple(prompt[: (i + 1) * SIZE])) for i in range(len(matched))]
        assert [self.memory[page] for page in matched] == expected
        assert len(matched) * SIZE < len(prompt) and (mode == "on" or not matched)
        assert len(owner.pages) * SIZE >= len(prompt) + answer - 1
        self.live.append(Live(owner, salt))
        self.offer(self.live[-1])

    def offer(self, live: Live) -> None:
        owner = live.owner
        live.offered = owner.pages[owner.num_matched : owner.num_prompt_pages]
        assert live.offered, "the page with the last token is always asked for"

    @in_stage("hand-off")
    @rule(data=st.data())
    def a_hand_off_writes_and_is_not_done(self, data: Any) -> None:
        live = self.some(data, "hand-off")
        self.memory[data.draw(st.sampled_from(live.offered))] = ("half a page", ())

    @in_stage("hand-off")
    @rule(data=st.data())
    def a_hand_off_is_done(self, data: Any) -> None:
        live = self.some(data, "hand-off")
        for index in range(live.owner.num_matched, live.owner.num_prompt_pages):
            self.memory[live.owner.pages[index]] = live.bytes_at(index)
        live.stage = "running"
        self.pages.publish(live.owner)
        live.owner.output.append(data.draw(st.integers(1, 2)))

    @in_stage("hand-off")
    @rule(data=st.data())
    def a_hand_off_fails(self, data: Any) -> None:
        live = self.some(data, "hand-off")
        self.pages.take_offered(live.owner, live.offered)
        self.quarantine.append(live.offered)
        if self.pages.replace_offered(live.owner, len(live.offered)):
            self.offer(live)
        else:
            self.forget(live)

    @in_stage("hand-off")
    @rule(data=st.data())
    def a_client_goes_during_the_hand_off(self, data: Any) -> None:
        live = self.some(data, "hand-off")
        self.pages.take_offered(live.owner, live.offered)
        self.quarantine.append(live.offered)
        self.forget(live)

    def forget(self, live: Live) -> None:
        self.pages.release(live.owner)
        self.live.remove(live)

    @precondition(lambda self: self.quarantine)
    @rule(data=st.data())
    def a_sender_writes_late(self, data: Any) -> None:
        self.memory[data.draw(st.sampled_from(data.draw(st.sampled_from(self.quarantine))))] = (
            "a late write",
            (),
        )

    @precondition(lambda self: self.quarantine)
    @rule(data=st.data())
    def a_sender_is_quiet(self, data: Any) -> None:
        pages = data.draw(st.sampled_from(self.quarantine))
        self.quarantine.remove(pages)
        self.pages.cache.free(pages)

    @in_stage("running")
    @rule(data=st.data(), steps=st.integers(1, 4))
    def a_request_decodes(self, data: Any, steps: int) -> None:
        live = self.some(data, "running")
        for _ in range(steps):
            if len(live.owner.output) == live.owner.request.sampling.max_tokens:
                return
            live.owner.output.append(data.draw(st.integers(1, 2)))
            index = (live.owner.num_kv - 1) // SIZE
            self.memory[live.owner.pages[index]] = live.bytes_at(index)

    @in_stage("running")
    @rule(data=st.data())
    def a_running_request_shares_what_is_full(self, data: Any) -> None:
        live = self.some(data, "running")
        self.pages.publish(live.owner)

    @in_stage("running")
    @rule(data=st.data())
    def a_request_ends_and_the_offload_reads_its_pages(self, data: Any) -> None:
        live = self.some(data, "running")
        self.pages.finish(live.owner)
        live.stage = "ended"
        self.histories.append(live.tokens)
        assert len(live.owner.pages) == -(-live.owner.num_kv // SIZE)

    @in_stage("ended")
    @rule(data=st.data())
    def the_offload_lets_go(self, data: Any) -> None:
        live = self.some(data, "ended")
        self.forget(live)
        assert live.owner.pages == []

    @rule()
    def flush(self) -> None:
        locked = {key for live in self.live for key in live.owner.keys[: live.owner.num_locked]}
        _, stayed = self.pages.cache.flush()
        assert stayed == self.pages.cache.num_cached == len(locked)

    def duplicates(self) -> list[int]:
        return [page for live in self.live for page in live.owner.duplicates]

    def cached(self) -> dict[int, bytes]:
        """The tree's pages, and the key of each."""
        tree = self.pages.cache._tree
        found: dict[int, bytes] = {}
        for node in tree.nodes(Tier.DEVICE):
            keys = tree.keys_to(node)[-len(node) :]
            pairs = zip(node.values[Tier.DEVICE], keys, strict=True)
            found |= {page: key for page, key in pairs if page >= 0}
        return found

    @invariant()
    def every_page_has_one_owner(self) -> None:
        held = [page for x in self.live for page in x.owner.pages[x.owner.num_locked :]]
        quarantined = [page for pages in self.quarantine for page in pages]
        hands = Counter([*held, *self.duplicates(), *quarantined, *self.cached()])
        assert set(hands.values()) <= {1}, hands
        num_free = self.pages.cache._allocator.num_free
        assert len(hands) + num_free == NUM_PAGES

    @invariant()
    def requests_read_their_own_bytes(self) -> None:
        for live in self.live:
            first_unsure = live.owner.num_matched
            if live.stage != "hand-off":
                first_unsure = -(-live.owner.num_kv // SIZE)
            for index in range(first_unsure):
                assert self.memory[live.owner.pages[index]] == live.bytes_at(index)

    @invariant()
    def the_tree_holds_what_its_keys_say(self) -> None:
        for live in self.live:
            for index, key in enumerate(live.owner.keys):
                self.known[key] = live.salt, tuple(live.tokens[: (index + 1) * SIZE])
        for page, key in self.cached().items():
            assert self.memory[page] == self.known[key]

    def teardown(self) -> None:
        for pages in self.quarantine:
            self.pages.cache.free(pages)
        for live in self.live:
            self.pages.release(live.owner)
        cache = self.pages.cache
        assert cache.num_available == NUM_PAGES
        assert cache.flush()[1] == 0 and cache._allocator.num_free == NUM_PAGES


PagesMachine.TestCase.settings = settings(
    max_examples=examples(60), stateful_step_count=50, deadline=None
)
test_pages_of_requests_in_any_order = PagesMachine.TestCase
