"""A decode node's look at the KV it was given, beside what it computes itself."""

from __future__ import annotations

import msgspec
import pytest
import torch
from decode_engine import LAYERS, PAGE, Decode, save_config
from tiny_models import VOCAB, random_prompt

from kvloop.engine.messages import CheckPages, Reply, Submit
from kvloop.shared_cache.canary import PageQuestion, PageReply, canary_seed
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.wire import Finished, GenerateRequest, Sampling

TOKENS = random_prompt(3 * PAGE + 5, 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_config(tmp_path_factory.mktemp("model"))


def serve(decode: Decode, prompt: list[int], max_tokens: int = 20) -> list[int]:
    """Compute a prompt here, as the canary's; returns prompt and answer."""
    request = GenerateRequest(
        request_id=f"r{len(decode.said)}",
        prompt=prompt,
        sampling=Sampling(max_tokens=max_tokens, temperature=0.0, ignore_eos=True),
        namespace=decode.parts.identity.namespace,
        cache_seed=canary_seed("n").hex(),
    )
    decode.scheduler.handle(Submit(request))
    while not any(isinstance(e, Finished) for e in decode.events(request.request_id)):
        decode.scheduler.step()
    for _ in range(3):
        decode.scheduler.step()
    answers = [e for e in decode.events(request.request_id) if hasattr(e, "ids")]
    return prompt + [token for event in answers for token in event.ids]


def look(decode: Decode, tokens: list[int] = TOKENS) -> PageReply:
    question = PageQuestion(nonce="n", tokens=tokens, look="device")
    decode.scheduler.handle(CheckPages(9, question))
    reply = decode.said_last(Reply)
    assert reply.call == 9
    return msgspec.json.decode(reply.body, type=PageReply)


def held(decode: Decode) -> list[int]:
    keys = page_keys(TOKENS, PAGE, canary_seed("n"))
    return decode.scheduler._pages.cache.find(keys)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_right_kv_differs_by_rounding_only_also_where_it_was_computed_in_other_steps(
    model: str, dtype: str
) -> None:
    decode = Decode(model, 40, False, chunked_prefill_size=PAGE, dtype=dtype)
    whole = serve(decode, TOKENS)
    reply = look(decode, whole)
    assert len(reply.device) == (len(whole) - 1) // PAGE == 4
    assert all(page.error < 0.02 and not page.is_zero for page in reply.device), reply


def test_zeros_are_told_as_zeros_with_an_error_of_their_whole_size(model: str) -> None:
    decode = Decode(model, 40, False)
    serve(decode, TOKENS)
    decode.pool[:, :, held(decode)[1]] = 0
    pages = look(decode).device
    assert [page.is_zero for page in pages] == [False, True, False]
    assert pages[1].error == pytest.approx(1.0)
    assert pages[0].error < 0.02 and pages[2].error < 0.02


@pytest.mark.parametrize("damage", ["one layer's V", "another page", "not a number"])
def test_wrong_kv_is_far_from_what_is_computed(model: str, damage: str) -> None:
    decode = Decode(model, 40, False)
    serve(decode, TOKENS)
    first, second, _ = held(decode)
    if damage == "one layer's V":
        decode.pool[1, 1, first] = 0
    elif damage == "another page":
        decode.pool[:, :, first] = decode.pool[:, :, second].clone()
    else:
        decode.pool[1, 0, first, 0, 0, 0] = float("nan")
    pages = look(decode).device
    assert pages[0].error > 0.25 and not pages[0].is_zero
    assert damage == "another page" or pages[0].layer == 1
    assert pages[2].error < 0.02


def test_pages_that_are_not_held_are_not_answered_for(model: str) -> None:
    decode = Decode(model, 40, False)
    assert look(decode).device == ()
    serve(decode, TOKENS[: PAGE + 3], 2)
    assert len(look(decode).device) == 1


def test_a_look_leaves_the_pool_as_it_was(model: str) -> None:
    decode = Decode(model, 40, False)
    serve(decode, TOKENS)
    cache = decode.scheduler._pages.cache
    before = (cache.num_available, cache.num_cached, decode.page_bytes(held(decode)))
    look(decode)
    after = (cache.num_available, cache.num_cached, decode.page_bytes(held(decode)))
    assert before[:2] == after[:2] and torch.equal(before[2], after[2])


def test_a_pool_without_room_is_a_problem_in_words(model: str) -> None:
    decode = Decode(model, 6, False)
    serve(decode, TOKENS, 2)
    taken = decode.scheduler._pages.cache.reserve(3)
    assert taken is not None
    reply = look(decode)
    assert reply.problem == "no 3 device pages are free" and not reply.device


def test_tokens_that_the_model_does_not_know_are_a_problem_and_the_loop_goes_on(
    model: str,
) -> None:
    decode = Decode(model, 40, False)
    assert look(decode, [VOCAB] * PAGE).problem == f"token {VOCAB} is not in the vocabulary"
    assert look(decode, [5] * PAGE * 17).problem == "more than 16 pages at once"
    serving = Decode(model, 40, False)
    serve(serving, TOKENS)
    serving.scheduler._parts.model.forward = None  # type: ignore[assignment, method-assign]
    assert look(serving).problem == "TypeError while looking"
    assert len(held(serving)) == 3


def test_layers_are_all_looked_at(model: str) -> None:
    decode = Decode(model, 40, False)
    serve(decode, TOKENS)
    decode.pool[LAYERS - 1, 0, held(decode)[0]] *= 2
    page = look(decode).device[0]
    assert page.layer == LAYERS - 1 and page.error == pytest.approx(1.0, abs=0.01)
