"""A whole decode engine whose L3 fails and goes away: no page, no slot and no answer is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from decode_chats import ChatDecode, file_cache, ids
from decode_engine import PAGE
from page_files import published

from kvloop.engine.messages import Abort
from kvloop.shared_cache.backends.file import prepare
from kvloop.shared_cache.failure_injector import FailureInjector, FailureSettings
from kvloop.shared_cache.hicache_names import BackPressure
from kvloop.shared_cache.keys import page_keys

NUM_PAGES = 60


@pytest.fixture
def plain(model: str) -> Iterator[ChatDecode]:
    """The same model without any cache, as the judge."""
    plain = ChatDecode(model, NUM_PAGES, with_transfer=False)
    yield plain
    plain.scheduler.close(1)


def over_files(model: str, root: Path, **flags: object) -> ChatDecode:
    """An engine whose L3 is the directory."""
    return ChatDecode(model, NUM_PAGES, with_transfer=False, **file_cache(root), **flags)


def make_flaky(decode: ChatDecode, root: Path, settings: FailureSettings) -> None:
    """Put an L3 over `root` in the place of the engine's, that fails by dice."""
    guard = decode.parts.store.guard
    open_file = prepare({"root": str(root)}, guard.pool, guard.namespace, ())
    guard.attach(lambda: FailureInjector(open_file(), settings), "flaky")
    assert guard.wait_attached(30)


def holes(decode: ChatDecode, *reasons: str) -> float:
    """Pages that were given up."""
    counted = (
        decode.counted("kvloop_chain_holes_total", reason=reason, repaired="false")
        for reason in reasons
    )
    return sum(counted)


ALL_REASONS = ("failed", "evicted", "policy", "deadline", "detached", "back_pressure")


def check_right(decode: ChatDecode, plain: ChatDecode, name: str, prompt: list[int]) -> list[int]:
    answer = decode.answer(name)
    plain.ask(name, prompt, len(answer), cache="off")
    plain.run()
    assert plain.answer(name) == answer
    return [*prompt, *answer]


def check_pages(decode: ChatDecode, root: Path) -> set[bytes]:
    """Keys of what L3 holds, all of it right; the engine has all slots and pages back."""
    assert decode.parts.pool.num_free == decode.parts.pool.num_slots
    load = decode.scheduler.load()
    assert (load.free_pages, load.offload_backlog_pages) == (NUM_PAGES, 0)
    pages = list(published(root))
    assert [page.fault(decode.parts.shape) for page in pages] == [None] * len(pages)
    return {page.key for page in pages}


@pytest.mark.parametrize(
    ("num_chats", "num_turns"), [(3, 2), pytest.param(8, 6, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("back_pressure", ["delay", "drop_newest", "drop_oldest"])
def test_an_l3_that_fails_a_fifth_of_its_calls_costs_pages_at_most_and_each_is_counted(
    back_pressure: BackPressure,
    num_chats: int,
    num_turns: int,
    model: str,
    plain: ChatDecode,
    tmp_path: Path,
) -> None:
    root = tmp_path / "l3"
    decode = over_files(
        model,
        root,
        offload_staging_pages=3,
        offload_back_pressure=back_pressure,
        offload_retries=2,
        offload_deadline_s=30.0,
    )
    make_flaky(decode, root, FailureSettings(seed=3, errors=0.2, stalls=0.2, stall_s=0.05))
    dice = Random(back_pressure)
    histories = [ids(PAGE, "system")] * num_chats
    expected: set[bytes] = set()
    for turn in range(num_turns):
        prompts = [[*known, *ids(20, (n, turn))] for n, known in enumerate(histories)]
        for n, prompt in enumerate(prompts):
            decode.ask(f"{n} {turn}", prompt, dice.randrange(20, 40))
            decode.ask(f"aborted {n} {turn}", [*prompt, 5], 60)
        for _ in range(25):
            decode.scheduler.step()
        for n in range(num_chats):
            decode.scheduler.handle(Abort(f"aborted {n} {turn}"))
        decode.run()
        for n, prompt in enumerate(prompts):
            histories[n] = check_right(decode, plain, f"{n} {turn}", prompt)
            expected |= set(page_keys(histories[n][:-1], PAGE))
    there = check_pages(decode, root)
    missing = expected - there
    assert len(missing) <= holes(decode, *ALL_REASONS)
    dropped = decode.counted("kvloop_offload_dropped_pages_total", policy=back_pressure)
    if back_pressure == "delay":
        assert decode.counted("kvloop_offload_retries_total") > 0
        assert len(there) > len(expected) / 4, "most of the faults should have been overcome"
        assert not dropped
    else:
        assert dropped
    decode.scheduler.close(1)
    decode.parts.store.close()


def test_an_l3_that_stays_away_costs_the_pages_says_so_and_holds_nothing(
    model: str, plain: ChatDecode, tmp_path: Path
) -> None:
    root = tmp_path / "l3"
    decode = over_files(model, root, offload_deadline_s=0.5)
    guard = decode.parts.store.guard
    assert guard.wait_attached(30)
    prompt = ids(5 * PAGE + 1, "away")
    decode.ask("r", prompt, 6 * PAGE)
    while len(decode.events("r")) < 3 * PAGE:
        decode.scheduler.step()
    while not decode.parts.store.counters.snapshot().pages.get(("offload", "stored")):
        decode.scheduler.step()
    assert guard.detach()
    decode.run()
    history = check_right(decode, plain, "r", prompt)
    there = check_pages(decode, root)
    missing = set(page_keys(history[:-1], PAGE)) - there
    assert missing and holes(decode, "detached") == len(missing) == holes(decode, *ALL_REASONS)
    decode.scheduler.close(1)


def test_a_name_that_comes_again_while_its_first_bearer_is_offloaded_costs_no_page(
    model: str, plain: ChatDecode, tmp_path: Path
) -> None:
    """Clients may name their requests as they like."""
    root = tmp_path / "l3"
    decode = over_files(model, root, offload_deadline_s=30.0)
    assert decode.parts.store.guard.wait_attached(30)
    make_flaky(decode, root, FailureSettings(stalls=1.0, stall_s=0.2))
    prompts = [ids(4 * PAGE + 1, n) for n in range(3)]
    for prompt in prompts:
        decode.said.clear()
        decode.ask("same", prompt, 2 * PAGE)
        while not decode.events("same") or len(decode.events("same")) < 2 * PAGE + 2:
            decode.scheduler.step()
    decode.run()
    there = check_pages(decode, root)
    assert {key for prompt in prompts for key in page_keys(prompt, PAGE)} <= there
    assert holes(decode, *ALL_REASONS) == 0
    decode.scheduler.close(1)
    decode.parts.store.close()
