"""What decode holds is not asked for again: it is matched, locked, shared early, and evicted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from decode_chats import ChatDecode, file_cache, ids
from decode_engine import PAGE
from page_files import published

from kvloop.engine.messages import Abort, AttemptQuiet, GiveUp, HandOffBroken
from kvloop.shared_cache.keys import cache_seed, page_keys
from kvloop.shared_cache.wire import PrefillRequest

AB = ("http://a", "http://b")


@pytest.fixture
def decode(model: str) -> Iterator[ChatDecode]:
    decode = ChatDecode(model, num_pages=40, with_transfer=False)
    yield decode
    decode.scheduler.close(1)


def run_turn(decode: ChatDecode, request_id: str, prompt: list[int], max_tokens: int = 8) -> None:
    decode.ask(request_id, prompt, max_tokens)
    decode.run()


def asked(decode: ChatDecode, request_id: str, prompt: list[int], **fields: str) -> PrefillRequest:
    """What prefill is asked for a prompt."""
    decode.ask(request_id, prompt, prefills=AB, **fields)  # type: ignore[arg-type]
    decode.scheduler.step()
    return decode.offered(request_id).request


def test_the_next_turn_asks_for_the_pages_from_the_first_that_is_not_here(
    decode: ChatDecode,
) -> None:
    prompt = ids(3 * PAGE + 5)
    run_turn(decode, "first", prompt, 2 * PAGE)
    history = prompt + decode.answer("first")
    request = asked(decode, "next", [*history, *ids(2 * PAGE)])
    num_full = (len(history) - 1) // PAGE
    assert request.first_page == num_full == 5
    assert len(request.target.pages) == -(-len(request.prompt) // PAGE) - num_full


def test_the_page_of_the_last_token_is_always_asked_for(decode: ChatDecode) -> None:
    prompt = ids(4 * PAGE)
    run_turn(decode, "first", prompt)
    assert asked(decode, "again", prompt).first_page == 3
    assert asked(decode, "longer", [*prompt, 9]).first_page == 4


def test_two_requests_of_one_prompt_at_once_leave_each_page_here_once(decode: ChatDecode) -> None:
    prompt = ids(4 * PAGE + 3)
    decode.ask("one", prompt)
    decode.ask("two", prompt)
    decode.run()
    assert decode.answer("one") == decode.answer("two")
    assert decode.scheduler.describe()["cached_pages"] == 4


def test_a_prompt_is_shared_while_its_request_still_runs(decode: ChatDecode) -> None:
    prompt = ids(4 * PAGE + 3)
    decode.ask("long", prompt, 200)
    while not decode.events("long"):
        decode.scheduler.step()
    run_here = [*prompt, *ids(PAGE, 1)]
    assert asked(decode, "beside", run_here).first_page == 4
    assert len(decode.events("long")) < 200, "the first one should be running still"


def test_the_longest_answer_is_reserved_and_what_it_left_is_free_at_its_end(
    decode: ChatDecode,
) -> None:
    decode.ask("r", ids(2 * PAGE), 20 * PAGE)
    decode.scheduler.step()
    assert decode.scheduler.load().free_pages == 40 - 22
    decode.scheduler.handle(Abort("r"))
    assert decode.scheduler.load().free_pages >= 40 - 3


@pytest.mark.parametrize("cache", ["off", "l3_only"])
def test_only_requests_that_may_read_this_nodes_pages_do(decode: ChatDecode, cache: str) -> None:
    prompt = ids(4 * PAGE + 3)
    run_turn(decode, "first", prompt)
    assert asked(decode, "second", prompt, cache=cache).first_page == 0


def test_a_request_with_the_cache_off_leaves_nothing_to_be_matched(decode: ChatDecode) -> None:
    decode.ask("first", ids(4 * PAGE + 3), cache="off")
    decode.run()
    assert decode.scheduler.describe()["cached_pages"] == 0


def test_another_salt_matches_nothing(decode: ChatDecode) -> None:
    prompt = ids(4 * PAGE + 3)
    decode.ask("first", prompt, salt="a")
    decode.run()
    assert asked(decode, "b", prompt, salt="b").first_page == 0
    assert asked(decode, "a", prompt, salt="a").first_page == 4


def test_a_retry_keeps_the_matched_pages_and_offers_fresh_ones(decode: ChatDecode) -> None:
    prompt = ids(4 * PAGE + 3)
    run_turn(decode, "first", prompt)
    first = asked(decode, "next", [*prompt, *ids(PAGE)])
    decode.scheduler.handle(HandOffBroken("next", first.attempt, "cut off"))
    again = decode.offered("next").request
    assert decode.said_last(GiveUp).attempt == first.attempt
    assert again.first_page == first.first_page == 4
    assert not set(again.target.pages) & set(first.target.pages)
    decode.hand_over(decode.offered("next"))
    decode.scheduler.handle(AttemptQuiet(first.attempt, "acknowledged"))
    decode.run()
    assert decode.started("next").fallback == "prefill_retry"


def test_a_retry_without_fresh_pages_gives_the_matched_ones_back_and_matches_anew(
    decode: ChatDecode,
) -> None:
    prompt = ids(4 * PAGE + 3)
    run_turn(decode, "first", prompt)
    first = asked(decode, "next", [*prompt, *ids(30 * PAGE)])
    decode.scheduler.handle(HandOffBroken("next", first.attempt, "cut off"))
    load = decode.scheduler.load()
    assert (load.waiting, load.running, load.quarantined_pages) == (1, 0, 31)
    assert load.free_pages == 40 - 31, "a waiting request holds nothing"
    decode.scheduler.handle(AttemptQuiet(first.attempt, "acknowledged"))
    decode.scheduler.step()
    again = decode.offered("next").request
    assert again.attempt != first.attempt and again.first_page == 4
    decode.hand_over(decode.offered("next"))
    decode.run()


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_an_abort_at_any_stage_leaves_no_page_in_use(decode: ChatDecode, steps: int) -> None:
    prompt = ids(3 * PAGE + 3)
    run_turn(decode, "first", prompt)
    decode.ask("next", [*prompt, *ids(PAGE)], 60)
    for _ in range(steps):
        decode.scheduler.step()
    decode.scheduler.handle(Abort("next"))
    decode.run()
    assert decode.scheduler.load().free_pages == 40


def test_waiting_for_pages_is_no_use_of_those_that_would_match(model: str) -> None:
    decode = ChatDecode(model, 24, with_transfer=False, radix_eviction_policy="lfu")
    waited, used = ids(4 * PAGE + 1, 1), ids(4 * PAGE + 1, 2)
    for name, prompt in (("waited", waited), ("used", used), ("used again", used)):
        run_turn(decode, name, prompt, 1)
    decode.ask("big", ids(12 * PAGE, 3), 4 * PAGE)
    decode.scheduler.step()
    decode.ask("waiting", waited, 8 * PAGE)  # 12 pages, of which 4 are here and 4 are free
    for _ in range(10):
        decode.scheduler.step()
    assert decode.scheduler.load().waiting == 1
    decode.scheduler.handle(Abort("waiting"))
    decode.run()
    run_turn(decode, "pressure", ids(16 * PAGE + 1, 4), 1)
    assert asked(decode, "later", used).first_page == 4
    assert asked(decode, "late", waited).first_page == 0
    decode.scheduler.close(1)


def test_a_flush_in_the_midst_of_an_answer_takes_only_what_nobody_uses(decode: ChatDecode) -> None:
    prompt = ids(4 * PAGE + 3)
    run_turn(decode, "first", prompt)
    run_turn(decode, "other", ids(5 * PAGE, 7), 1)
    decode.ask("next", [*prompt, *ids(PAGE)], 40)
    while len(decode.events("next")) < 5:
        decode.scheduler.step()
    freed, stayed = decode.scheduler.flush()
    assert (freed, stayed) == (5, 5)
    decode.run()
    decode.ask("off", [*prompt, *ids(PAGE)], 40, cache="off")
    decode.run()
    assert decode.answer("next") == decode.answer("off")


def test_chats_under_pressure_keep_their_answers_and_leave_every_page_in_l3(
    model: str, tmp_path: Path
) -> None:
    """Six chats of four turns at once in a pool that holds two of them; decode prefills itself."""
    root = tmp_path / "l3"
    decode = ChatDecode(model, 28, with_transfer=False, offload_deadline_s=60.0, **file_cache(root))
    assert decode.parts.store.guard.wait_attached(30)
    plain = ChatDecode(model, 28, with_transfer=False)
    dice = Random(5)
    histories: list[list[int]] = [ids(2 * PAGE) for _ in range(6)]  # all begin alike
    expected: set[bytes] = set()
    num_held = 0
    for turn in range(4):
        prompts = [[*known, *ids(dice.randrange(5, 20), n)] for n, known in enumerate(histories)]
        for n, prompt in enumerate(prompts):
            decode.ask(f"{n} {turn}", prompt, dice.randrange(10, 20), salt="s")
        decode.run()
        for n, prompt in enumerate(prompts):
            answer = decode.answer(f"{n} {turn}")
            plain.ask(f"{n} {turn}", prompt, len(answer), cache="off")
            plain.run()
            assert plain.answer(f"{n} {turn}") == answer
            histories[n] = prompt + answer
            expected |= set(page_keys(histories[n][:-1], PAGE, cache_seed(None, "s")))
            num_held += decode.num_held(f"{n} {turn}") if turn else 0
    assert num_held > 0
    assert {page.key for page in published(root)} == expected
    assert decode.counted("kvloop_chain_holes_total", reason="policy", repaired="false") == 0
    assert decode.parts.pool.num_free == decode.parts.pool.num_slots
    for one in (decode, plain):
        one.scheduler.close(1)
        one.parts.store.close()
