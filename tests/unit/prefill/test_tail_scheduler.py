"""Starts inside a page, by the real scheduler and model: what decode gets, byte by byte."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from decode_engine import PAGE, Decode, save_config
from prefill_engine import NUM_PAGES, Prefill, over
from tiny_models import random_prompt

from kvloop.engine.messages import Submit
from kvloop.shared_cache.wire import (
    Finished,
    GenerateRequest,
    PrefillDone,
    Pushed,
    Sampling,
    Tokens,
)


@pytest.fixture
def model(tmp_path: Path) -> str:
    return save_config(tmp_path)


@pytest.fixture
def node(model: str, tmp_path: Path) -> Iterator[Prefill]:
    node = Prefill(model, tmp_path / "l3", tail_objects=True)
    yield node
    node.scheduler.close(0.0)
    node.parts.store.close()


@pytest.fixture
def turn(model: str, tmp_path: Path) -> list[int]:
    """A turn that decode has served and stored: 20 tokens of prompt and 20 of answer."""
    return served(model, tmp_path / "l3", random_prompt(20, 1), 20)


def served(model: str, root: Path, prompt: list[int], num_answer: int) -> list[int]:
    """Tokens with KV; their full pages and the tail are in L3 once this returns."""
    decode = Decode(model, NUM_PAGES, False, tail_objects=True, **over(root))
    assert decode.parts.store.guard.wait_attached(30)
    request = GenerateRequest(
        request_id="r",
        prompt=prompt,
        sampling=Sampling(max_tokens=num_answer, temperature=0.0, ignore_eos=True),
        namespace=decode.parts.identity.namespace,
    )
    decode.scheduler.handle(Submit(request))
    until = time.monotonic() + 60
    while not any(isinstance(event, Finished) for event in decode.events("r")):
        assert time.monotonic() < until
        decode.scheduler.step()
    decode.scheduler.close(30.0)
    decode.parts.store.close()
    said = [event.ids for event in decode.events("r") if isinstance(event, Tokens)]
    return [*prompt, *(token for ids in said for token in ids)][:-1]


@pytest.mark.parametrize("num_new", [1, 2, 9, 10, 40])
def test_decode_gets_the_kv_of_every_token_of_a_prompt_that_starts_inside_a_page(
    node: Prefill, turn: list[int], num_new: int
) -> None:
    prompt = [*turn, *random_prompt(num_new, 2)]
    done = node.answer(prompt)
    assert (len(turn), done.sources.storage, done.sources.computed) == (39, 39, num_new)
    node.check(prompt, done)
    assert node.counted("hit") == 7


def test_a_prompt_that_ends_with_the_tail_computes_its_last_token(
    node: Prefill, turn: list[int]
) -> None:
    done = node.answer(turn)
    assert (done.sources.storage, done.sources.computed) == (38, 1)
    node.check(turn, done)


def test_nothing_is_computed_or_pushed_of_the_page_before_its_tail_is_there(
    node: Prefill, turn: list[int]
) -> None:
    prompt = [*turn, *random_prompt(30, 2)]
    node.loads.is_held = True
    node.ask(prompt)
    node.turn_until(lambda: bool(node.loads.held))
    assert not any(node.scheduler.step() for _ in range(20))
    assert all(event.first + event.count <= 2 for event in node.events(Pushed))
    node.loads.release()
    node.turn_until(lambda: bool(node.events(PrefillDone)))
    node.check(prompt, node.events(PrefillDone)[0])
    assert node.counted("hit") == 7
    again = node.answer(prompt, "again")  # from L1
    assert again.sources.device == 64
    node.check(prompt, again)


def test_a_tail_still_loaded_for_a_prompt_that_is_gone_is_written_over_nobodys_page(
    node: Prefill, turn: list[int]
) -> None:
    node.loads.is_held = True
    prompt = [*turn, *random_prompt(30, 2)]
    node.ask(prompt)
    node.turn_until(lambda: bool(node.loads.held))
    assert node.scheduler.attempts.cancel("a", 5.0)
    num_left = NUM_PAGES - -(-len(prompt) // PAGE)
    other = random_prompt(num_left * PAGE - 5, 3)
    done = node.answer(other, "b")
    node.loads.release()
    node.check(other, done)
    again = node.answer(other, "c")
    assert again.sources.device > 0
    node.check(other, again)


def test_a_tail_of_a_page_that_decode_holds_is_not_pushed_and_the_rest_is_right(
    node: Prefill, turn: list[int]
) -> None:
    prompt = [*turn, *random_prompt(40, 2)]
    node.target.tensor.fill_(7.0)
    done = node.answer(prompt, first_page=3)
    assert done.sources.transfer_skipped == 39
    node.check(prompt, done, first_page=3)
    assert bool((node.target.tensor[:, :, :3] == 7.0).all())


def test_prompts_that_continue_one_tail_at_once_get_pages_of_their_own(
    node: Prefill, turn: list[int]
) -> None:
    prompts = {name: [*turn, *random_prompt(25, number)] for number, name in enumerate("xyz", 5)}
    for name, prompt in prompts.items():
        node.ask(prompt, name)
    node.turn_until(lambda: all(node.events(PrefillDone, name) for name in prompts))
    for name, prompt in prompts.items():
        assert node.events(PrefillDone, name)[0].first_token == node.computed(prompt)[1]
        again = node.answer(prompt, f"again {name}")
        assert again.sources.device == 48
        node.check(prompt, again)
    assert node.counted("hit") == 21
