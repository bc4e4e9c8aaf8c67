"""L3 fails, dawdles, goes, comes back: answers and pages stay right, holes are mended or told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from admin import detach
from faults import PAGE, Loop, asking, start_loop
from hicache_loop import (
    SHAPE,
    drain,
    ids_of,
    set_policies,
    support_cluster,
    wait_attached,
    wrong_tokens,
)
from l3_pages import L3, chain_of, leading
from loop import flush
from loop_client import Answer, complete
from running import wait_for
from unkind_backends import MODULE, attach_kind, attach_unkind

from kvloop.shared_cache.hicache_names import WritePolicy

pytestmark = pytest.mark.integration
PROMPT, ANSWER = 6 * PAGE + 5, 5 * PAGE
FULL_PROMPT = PROMPT // PAGE
FULL = (PROMPT + ANSWER - 1) // PAGE
STAGING = 24


@pytest.fixture(scope="module")
def loop(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    flags = (
        *("--hicache-dynamic-modules", MODULE),
        *("--max-total-tokens", str(300 * PAGE)),
        *("--max-running-requests", "16"),
    )
    decode = ("--offload-staging-pages", str(STAGING), "--offload-deadline-s", "30")
    with support_cluster(tmp_path_factory.mktemp("faults"), model) as cluster:
        cluster.file_cache()
        loop = start_loop(cluster, prefills=(flags,), decodes=((*flags, *decode),))
        wait_attached(*loop.nodes)
        yield loop


@pytest.fixture(autouse=True)
def whole_again(loop: Loop) -> Iterator[None]:
    """Each test leaves the loop as it found it."""
    yield
    for node in loop.nodes:
        attach_kind(node, root(loop))
    set_policies(loop.prefills[0], "write_through", "wait_complete")
    wait_attached(*loop.nodes)
    loop.wait_idle()


@pytest.fixture
def l3(loop: Loop) -> L3:
    return L3(Path(root(loop)), loop.decodes[0].info()["node"]["namespace"])


def root(loop: Loop) -> str:
    return str(loop.cluster.directory / "l3")


def holes(loop: Loop) -> dict[tuple[str, str], int]:
    """Pages by (reason, whether they were repaired)."""
    (decode,) = loop.decodes
    reasons = ("failed", "evicted", "policy", "deadline", "detached", "back_pressure")
    counted = {
        (reason, repaired): decode.metric(
            "kvloop_chain_holes_total", reason=reason, repaired=repaired
        )
        for reason in reasons
        for repaired in ("true", "false")
    }
    return {key: int(value) for key, value in counted.items()}


def new_holes(loop: Loop, before: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Those since `before`, without zeros."""
    now = holes(loop)
    return {key: now[key] - before[key] for key in now if now[key] != before[key]}


def chats(loop: Loop, salt: str, num_chats: int, num_turns: int) -> list[list[Answer]]:
    """Turns of all chats at once."""
    held: list[list[Answer]] = [[] for _ in range(num_chats)]

    def ask(number: int) -> Answer:
        turns = held[number]
        known = turns[-1].history if turns else ids_of(2 * PAGE, salt)
        prompt = [*known, *ids_of(20 + number, (number, len(turns)))]
        return complete(loop.url, prompt, 40 + 3 * number, cache_salt=salt)

    with ThreadPoolExecutor(num_chats) as threads:
        for _ in range(num_turns):
            for turns, answer in zip(held, list(threads.map(ask, range(num_chats))), strict=True):
                turns.append(answer)
    return held


def check_next_turns(loop: Loop, turns: Sequence[Answer], salt: str, there: set[bytes]) -> None:
    """Each next turn finds the leading run that L3 holds, no more and no less, and is right."""
    for turn in turns:
        prompt = [*turn.history, 7, 8, 9]
        again = complete(loop.url, prompt, 8, cache="l3_only", cache_salt=salt)
        assert again.sources["storage"] == leading(chain_of(turn, salt), there) * PAGE
        assert again.ids == complete(loop.url, prompt, 8, cache="off").ids


def check_slots(loop: Loop, l3: L3, salt: str) -> None:
    """All of the staging is free again: an answer that needs it all at once gets it."""
    before = holes(loop)
    answer = complete(loop.url, ids_of(10, salt), (STAGING + 6) * PAGE, cache_salt=salt)
    drain(loop)
    assert set(chain_of(answer, salt)) <= l3.keys()
    assert new_holes(loop, before) == {}


# --- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_chats", "num_turns", "delay_s"),
    [
        pytest.param(5, 3, 0.1, id="some"),
        pytest.param(12, 8, 0.2, id="many", marks=pytest.mark.slow),
        pytest.param(6, 4, 2.0, id="slow_calls", marks=pytest.mark.slow),
    ],
)
def test_an_l3_that_fails_a_fifth_of_its_calls_and_dawdles_costs_no_answer_and_no_slot(
    num_chats: int, num_turns: int, delay_s: float, loop: Loop, l3: L3, reference: Any
) -> None:
    (decode,) = loop.decodes
    salt = f"faulty {num_chats} {delay_s}"
    before, retries = holes(loop), decode.metric("kvloop_offload_retries_total")
    for seed, node in enumerate(loop.nodes):
        attach_unkind(
            node, root(loop), "DawdlingBackend", errors=0.2, delay_s=delay_s, seed=seed + 1
        )
    held = chats(loop, salt, num_chats, num_turns)
    wait_for("the drain", lambda: decode.info()["node"]["load"]["offload_backlog_pages"] == 0, 120)
    for node in loop.nodes:
        attach_kind(node, root(loop))
    wait_attached(*loop.nodes)
    drain(loop)
    assert all(wrong_tokens(reference, turns) == [] for turns in held)
    there = l3.check()
    missing = {key for turns in held for turn in turns for key in chain_of(turn, salt)} - there
    new = new_holes(loop, before)
    assert len(missing) <= sum(num for (_, repaired), num in new.items() if repaired == "false")
    assert decode.metric("kvloop_offload_retries_total") > retries
    for node in loop.nodes:
        flush(node)
    check_next_turns(loop, [turns[-1] for turns in held[:3]], salt, there)
    check_slots(loop, l3, f"{salt} afterwards")


def test_an_l3_that_is_detached_in_mid_answer_and_comes_back_gets_every_page(
    loop: Loop, l3: L3, reference: Any
) -> None:
    (decode,) = loop.decodes
    before = holes(loop)
    asked = asking(loop.url, ids_of(PROMPT, "away"), max_tokens=900, cache_salt="away")
    stored = decode.metric("kvloop_pages_total", path="offload", result="stored")

    def num_stored() -> float:
        return decode.metric("kvloop_pages_total", path="offload", result="stored") - stored

    wait_for("the first pages", lambda: num_stored() >= 3, 60)
    detach(decode)
    at_detach = num_stored()
    steps = decode.metric("kvloop_step_seconds_count")
    wait_for("more tokens", lambda: decode.metric("kvloop_step_seconds_count") > steps + 60, 60)
    assert not asked.done(), "the answer should go on"
    assert num_stored() == at_detach
    attach_kind(decode, root(loop))
    answer = asked.result(120)
    drain(loop)
    assert wrong_tokens(reference, [answer]) == []
    assert set(chain_of(answer, "away")) <= l3.check()
    assert {repaired for _, repaired in new_holes(loop, before)} <= {"true"}


# --- holes ------------------------------------------------------------------------------------


def one_turn(loop: Loop, l3: L3, salt: str) -> tuple[Answer, dict[tuple[str, str], int], int]:
    """A finished turn, all of whose pages are in L3; the holes, and what decode wrote, in pages."""
    before, written = holes(loop), stored_by_decode(loop)
    answer = complete(loop.url, ids_of(PROMPT, salt), ANSWER, cache_salt=salt)
    drain(loop)
    assert set(chain_of(answer, salt)) <= l3.keys()
    pages, size = (now - then for now, then in zip(stored_by_decode(loop), written, strict=True))
    assert size == pages * SHAPE.object_bytes
    return answer, new_holes(loop, before), int(pages)


def stored_by_decode(loop: Loop) -> tuple[float, float]:
    """Pages and bytes."""
    (decode,) = loop.decodes
    labels = {"path": "offload", "result": "stored"}
    pages = decode.metric("kvloop_pages_total", **labels)
    return pages, decode.metric("kvloop_pages_bytes_total", **labels)


def next_turn(loop: Loop, answer: Answer, salt: str) -> tuple[int, int]:
    """Pages that the next turn's prefill found in L3: by prefill, by decode."""
    again = complete(loop.url, [*answer.history, 9], 4, cache="l3_only", cache_salt=salt)
    assert again.sources["computed"] == len(again.prompt) - FULL * PAGE
    return again.by_prefill // PAGE, again.by_decode // PAGE


def test_with_prefills_write_through_decode_writes_its_own_pages_only(loop: Loop, l3: L3) -> None:
    answer, counted, num_written = one_turn(loop, l3, "whole")
    assert (counted, num_written) == ({}, FULL - FULL_PROMPT)
    assert next_turn(loop, answer, "whole") == (FULL_PROMPT, FULL - FULL_PROMPT)


@pytest.mark.parametrize("policy", ["write_back", "write_through_selective"])
def test_without_prefills_write_through_decode_alone_makes_the_next_turn_hit_everything(
    policy: WritePolicy, loop: Loop, l3: L3
) -> None:
    set_policies(loop.prefills[0], policy, "wait_complete")
    answer, counted, num_written = one_turn(loop, l3, policy)
    assert (counted, num_written) == ({("policy", "true"): FULL_PROMPT}, FULL)
    assert next_turn(loop, answer, policy) == (0, FULL)


def test_pages_that_left_l3_before_the_first_offload_are_written_again(loop: Loop, l3: L3) -> None:
    prompt = ids_of(PROMPT, "evicted")
    first = complete(loop.url, prompt, 1, cache_salt="evicted")
    drain(loop)
    gone = chain_of(first, "evicted")
    assert len(gone) == FULL_PROMPT
    l3.evict(gone[1:4])
    before = holes(loop)
    answer = complete(loop.url, prompt, ANSWER, cache_salt="evicted")
    drain(loop)
    assert new_holes(loop, before) == {("evicted", "true"): 3}
    assert set(chain_of(answer, "evicted")) <= l3.check()
    assert next_turn(loop, answer, "evicted") == (FULL_PROMPT - 3, FULL - FULL_PROMPT + 3)


def test_pages_that_prefill_could_not_write_are_written_by_decode(loop: Loop, l3: L3) -> None:
    (prefill,) = loop.prefills
    attach_unkind(prefill, root(loop), "FullBackend")
    wait_attached(*loop.nodes)
    answer, counted, num_written = one_turn(loop, l3, "failed")
    assert (counted, num_written) == ({("failed", "true"): FULL_PROMPT}, FULL)
    assert next_turn(loop, answer, "failed") == (0, FULL)


def test_pages_that_prefill_only_seemed_to_write_are_written_by_decode(loop: Loop, l3: L3) -> None:
    (prefill,) = loop.prefills
    attach_unkind(prefill, root(loop), "FlakyBackend", lost_writes=1.0)
    wait_attached(*loop.nodes)
    answer, counted, _ = one_turn(loop, l3, "lost")
    assert {repaired for _, repaired in counted} == {"true"}
    assert sum(counted.values()) == FULL_PROMPT
    attach_kind(prefill, root(loop))
    wait_attached(*loop.nodes)
    assert next_turn(loop, answer, "lost") == (0, FULL)
