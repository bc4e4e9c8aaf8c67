"""What decode stores of a turn's last partial page; a real scheduler over a real file store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from decode_engine import PAGE, Decode, save_config
from tiny_models import random_prompt

from kvloop.engine.batch import Segment, make_batch
from kvloop.engine.kv_pool import KVPool
from kvloop.engine.messages import Submit
from kvloop.shared_cache.keys import cache_seed, page_keys
from kvloop.shared_cache.tail import Tail, decode_record, record_name, tail_key
from kvloop.shared_cache.wire import Finished, GenerateRequest, Sampling, StripRule, Tokens

STRANGERS = 7.0
"""What all pages hold before a request gets them."""
Start = Callable[..., Decode]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a decode engine over a directory, its pool full of another's KV."""
    nodes: list[Decode] = []

    def start(filled_with: float = STRANGERS, **flags: Any) -> Decode:
        node = Decode(
            save_config(tmp_path),
            num_pages=16,
            with_transfer=False,
            **{
                "tail_objects": True,
                "hicache_storage_backend": "file",
                "hicache_storage_backend_extra_config": {"root": str(tmp_path / "l3")},
                **flags,
            },
        )
        node.parts.kv.tensor.fill_(filled_with)
        assert node.parts.store.guard.wait_attached(30)
        nodes.append(node)
        return node

    yield start
    for node in nodes:
        node.scheduler.close(0.0)
        node.parts.store.close()


def answer(node: Decode, num_prompt: int, num_answer: int, **fields: Any) -> list[int]:
    """Serve a request, store all of it, and return the tokens that have KV."""
    prompt, name = random_prompt(num_prompt, 1), f"{num_prompt} {num_answer}"
    request = GenerateRequest(
        request_id=name,
        prompt=prompt,
        sampling=Sampling(max_tokens=num_answer, temperature=0.0, ignore_eos=True),
        namespace=node.parts.identity.namespace,
        **fields,
    )
    node.scheduler.handle(Submit(request))
    turn_until(node, lambda: any(isinstance(event, Finished) for event in node.events(name)))
    turn_until(node, lambda: not node.scheduler.load().offload_backlog_pages)
    said = [event.ids for event in node.events(name) if isinstance(event, Tokens)]
    return [*prompt, *chain.from_iterable(said)][:-1]


def turn_until(node: Decode, condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        node.scheduler.step()


def tails_behind(node: Decode, parent: bytes | None) -> list[Tail] | None:
    record = node.parts.store.get_small(record_name(parent))
    return None if record is None else decode_record(record)


def stored_page(node: Decode, key: bytes) -> npt.NDArray[np.uint8]:
    """[layer, k|v, token, head, bytes], read from L3 and checked."""
    (slot,) = node.parts.pool.alloc(1) or ()
    assert node.parts.store.load([key], [slot]) == ["decode"]
    return np.array(node.parts.pool.payload(0)[slot])


def counted(node: Decode) -> dict[str, float]:
    results = ("stored", "failed")
    counts = {r: node.counted("kvloop_tail_tokens_total", result=r) for r in results}
    return {result: count for result, count in counts.items() if count}


def kv_of(node: Decode, tokens: list[int]) -> npt.NDArray[np.uint8]:
    """What the model computes for these tokens: of their last page."""
    parts = node.parts
    num_pages = -(-len(tokens) // PAGE)
    pool = KVPool(parts.loaded.config, num_pages, PAGE, torch.float32)
    segment = Segment(range(num_pages), 0, len(tokens))
    parts.model.forward(make_batch([(tokens, segment)], PAGE, "cpu"), pool)
    page = pool.tensor[:, :, len(tokens) // PAGE].contiguous()
    return page.view(torch.uint8).numpy()


def test_the_partial_page_of_a_finished_turn_is_stored_and_named(start: Start) -> None:
    node = start()
    tokens = answer(node, 20, 10)
    assert len(tokens) == PAGE + 13
    (parent,) = page_keys(tokens, PAGE)
    key = tail_key(parent, tokens[PAGE:])
    assert tails_behind(node, parent) == [Tail(13, key)]
    assert counted(node) == {"stored": 13}
    stored = stored_page(node, key)[:, :, :13].copy().view(np.float32)
    computed = kv_of(node, tokens)[:, :, :13].copy().view(np.float32)
    np.testing.assert_allclose(stored, computed, atol=1e-5)


def test_what_earlier_requests_left_in_the_page_is_not_stored(start: Start) -> None:
    node = start()
    tokens = answer(node, 20, 10)
    (parent,) = page_keys(tokens, PAGE)
    page = stored_page(node, tail_key(parent, tokens[PAGE:]))
    assert not page[:, :, 13:].any() and page[:, :, :13].any()


def test_nor_does_it_touch_the_scales_of_a_codec(start: Start) -> None:
    pages = []
    for filled_with, salt in ((STRANGERS, "a"), (0.0, "b")):
        seed = cache_seed(None, salt)
        assert seed is not None
        node = start(filled_with, hicache_codec="int8")
        tokens = answer(node, 20, 10, cache_seed=seed.hex())
        (parent,) = page_keys(tokens, PAGE, seed)
        pages.append(stored_page(node, tail_key(parent, tokens[PAGE:])))
    np.testing.assert_array_equal(*pages)


def test_a_prompt_answered_by_one_token_is_stored_too(start: Start) -> None:
    node = start()
    tokens = answer(node, 20, 1)
    (parent,) = page_keys(tokens, PAGE)
    assert tails_behind(node, parent) == [Tail(4, tail_key(parent, tokens[PAGE:]))]


def test_a_turn_shorter_than_a_page_is_named_by_its_chains_seed(start: Start) -> None:
    seed = cache_seed("acme", None)
    assert seed is not None
    node = start()
    tokens = answer(node, 5, 4, cache_seed=seed.hex())
    assert tails_behind(node, seed) == [Tail(8, tail_key(seed, tokens))]
    assert tails_behind(node, None) is None


def test_the_next_turns_tail_joins_the_record_of_the_one_before(start: Start) -> None:
    node = start()
    short, long = answer(node, 20, 3), answer(node, 20, 6)
    (parent,) = page_keys(long, PAGE)
    named = [Tail(len(t) - PAGE, tail_key(parent, t[PAGE:])) for t in (long, short)]
    assert tails_behind(node, parent) == named


@pytest.mark.parametrize(
    ("num_answer", "flags", "fields"),
    [
        (13, {}, {}),  # 32 tokens: two full pages
        (10, {"tail_objects": False}, {}),
        (10, {}, {"cache": "off"}),
        (10, {"offload_policy": "selective"}, {"returns": False}),
    ],
)
def test_no_tail_is_stored_of_full_pages_without_the_flag_or_where_the_policy_forbids_it(
    start: Start, num_answer: int, flags: dict[str, Any], fields: dict[str, Any]
) -> None:
    node = start(**flags)
    tokens = answer(node, 20, num_answer, **fields)
    for parent in (None, *page_keys(tokens, PAGE)):
        assert tails_behind(node, parent) is None
    assert not counted(node)


def test_a_tail_ends_where_the_next_turns_prompt_will_differ(start: Start) -> None:
    node = start()
    tokens = answer(node, 25, 20, strip=StripRule(kept_prompt=22))
    (parent, *_) = page_keys(tokens, PAGE)
    key = tail_key(parent, tokens[PAGE:22])
    assert tails_behind(node, parent) == [Tail(6, key)]
    page = stored_page(node, key)
    assert not page[:, :, 6:].any() and page[:, :, :6].any()


def test_the_page_that_such_a_tail_is_cut_from_stays_whole_on_the_device(start: Start) -> None:
    node = start(hicache_codec="int8")
    tokens = answer(node, 25, 20, strip=StripRule(kept_prompt=22))
    keys = page_keys(tokens, PAGE)
    page = node.scheduler._pages.cache.find(keys)[1]
    by_token = node.pool[:, :, page].movedim(2, 0).flatten(1)
    assert by_token.any(1).all()


def test_a_tail_that_cannot_be_stored_is_counted_and_fails_nothing(start: Start) -> None:
    node = start(offload_deadline_s=0.2)
    node.parts.store.guard.detach()
    assert len(answer(node, 20, 10)) == PAGE + 13
    assert counted(node) == {"failed": 13}


def test_a_tail_without_its_record_is_counted_as_failed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start()
    monkeypatch.setattr(node.parts.store, "put_small", lambda name, value: False)
    answer(node, 20, 10)
    assert counted(node) == {"failed": 13}
