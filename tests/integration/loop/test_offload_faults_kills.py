"""Decode is killed while it offloads: L3 stays whole, and chains end where they honestly end."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from decode_chats import ChatDecode, one_thread
from decode_engine import save_config
from faults import FLAGS, PAGE, THREADS, Loop, engine_of, kill_9, known_nodes, start_loop
from hicache_loop import (
    drain,
    ids_of,
    is_in_state,
    support_cluster,
    use_stalling,
    wait_attached,
    wrong_tokens,
)
from killed_decode import KilledDecode, answer_length, prompts_of
from l3_pages import L3, chain_of, leading
from loop_client import Answer, complete, complete_all
from page_files import half_written, published
from running import Running, drained, fetch, wait_for

from kvloop.shared_cache.keys import page_keys

pytestmark = pytest.mark.integration
NUM_PROMPTS = 4
WRITERS = 4
"""Threads of the file backend: each leaves one page at most that is begun and not published, and
none where the file system has files without names."""


@pytest.fixture
def loop(model: str, tmp_path: Path) -> Iterator[Loop]:
    """Each page takes a while to be written."""
    with support_cluster(tmp_path, model) as cluster:
        use_stalling(cluster, {"write_pause_s": 0.2})
        loop = start_loop(cluster)
        wait_attached(*loop.nodes)
        yield loop


@pytest.fixture
def l3(loop: Loop) -> L3:
    return L3(loop.cluster.directory / "l3", loop.decodes[0].info()["node"]["namespace"])


@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("num_kills", [3, pytest.param(25, marks=pytest.mark.slow)])
def test_no_kill_of_decode_leaves_a_bad_page_a_wrong_answer_or_a_chain_that_is_longer_than_told(
    num_kills: int, loop: Loop, l3: L3, reference: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    num_short = num_finished = num_lost = 0
    for number in range(num_kills):
        chance = random.Random(number)
        prompts = [ids_of(2 * PAGE + 7 * n, (number, n)) for n in range(NUM_PROMPTS)]
        written = half_written(l3.root)
        before = l3.keys()
        finished, num_stored = ask_and_kill(loop, prompts, chance)
        wait_for("prefill's writes", lambda: drained(*loop.prefills))
        there = l3.check()
        assert before <= there
        # Of pages that both nodes came to write, prefill's may have been the first.
        assert len(there - before) >= num_stored, "said to be stored, and lost"
        assert len(half_written(l3.root) - written) <= WRITERS, "more than was in flight"
        restart(loop)
        short = [check_next_turn(loop, turn, there) for turn in finished]
        num_finished, num_short = num_finished + len(finished), num_short + sum(map(bool, short))
        num_lost += sum(short)

        again = complete_all(loop.url, prompts, max_tokens=40)
        drain(loop)
        assert all(wrong_tokens(reference, [answer]) == [] for answer in (*finished, *again))
        there = l3.check()
        assert [check_next_turn(loop, turn, there) for turn in again] == [0] * NUM_PROMPTS
        loop.wait_idle()
        assert loop.prefills[0].metric("kvloop_faults_total", kind="checksum") == 0
    assert num_finished > 0
    with capsys.disabled():
        print(
            f"\n{num_kills} kills: {num_finished} answers had ended, {num_short} of them with "
            f"{num_lost} pages fewer in L3"
        )


def ask_and_kill(
    loop: Loop, prompts: Sequence[Sequence[int]], chance: random.Random
) -> tuple[list[Answer], float]:
    """Answers that had ended, and the pages that decode had stored of them all, when it died."""
    (decode,) = loop.decodes
    before = stored(decode)
    victim = chance.choice([decode.process.pid, engine_of(decode)])
    asked = [
        THREADS.submit(fetch, f"{loop.url}/v1/completions", body(prompt, chance.randrange(40, 120)))
        for prompt in prompts
    ]
    wait_for("the offload", lambda: decode.info()["node"]["load"]["offload_backlog_pages"], 60)
    num_ended = chance.randrange(NUM_PROMPTS + 1)
    wait_for("answers", lambda: sum(task.done() for task in asked) >= num_ended, 60)
    time.sleep(chance.uniform(0.0, 0.2))
    num_stored = stored(decode) - before
    kill_9(victim)
    decode.process.wait(30)
    replies = [(prompt, *task.result(120)) for prompt, task in zip(prompts, asked, strict=True)]
    assert {status for _, status, _ in replies} <= {200, 502}, replies
    return [
        Answer(reply["choices"][0]["token_ids"], reply["usage"]["kvloop"], list(prompt))
        for prompt, status, reply in replies
        if status == 200
    ], num_stored


def stored(decode: Running) -> float:
    """Pages that it has counted as stored."""
    return decode.metric("kvloop_pages_total", path="offload", result="stored")


def body(prompt: Sequence[int], max_tokens: int) -> dict[str, Any]:
    return {
        "model": "m",
        "prompt": list(prompt),
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
    }


def restart(loop: Loop) -> None:
    """Another decode node in the place of the dead one, with nothing but L3."""
    dead = loop.decodes[0]
    loop.decodes[0] = loop.cluster.node("decode", *FLAGS, port=dead.port).wait_ready()
    wait_for("L3", lambda: is_in_state(loop.decodes[0], "attached"))
    incarnation = loop.decodes[0].info()["node"]["incarnation"]
    wait_for("the router's notice", lambda: known_nodes(loop.url, incarnation) >= len(loop.nodes))


def check_next_turn(loop: Loop, turn: Answer, there: set[bytes]) -> int:
    """It finds the leading run that L3 has and computes the rest; returns how much that lacks."""
    chain = chain_of(turn)
    found = leading(chain, there)
    prompt = [*turn.history, 7, 8, 9]
    again = complete(loop.url, prompt, 6, cache="l3_only")
    assert again.sources["storage"] == found * PAGE
    assert again.sources["computed"] == len(prompt) - found * PAGE
    assert again.ids == complete(loop.url, prompt, 6, cache="off").ids
    return len(chain) - found


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("num_kills", [pytest.param(100, marks=pytest.mark.slow)])
def test_no_page_of_an_engine_that_was_killed_is_other_than_whole(
    num_kills: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Engines alone, that are quickly started: decode computes the prompts itself."""
    root, model = tmp_path / "l3", save_config(tmp_path)
    decode = ChatDecode(model, 200, with_transfer=False)
    num_finished = num_lost = 0
    expected: set[bytes] = set()
    with one_thread():
        for number in range(num_kills):
            before = half_written(root)
            victim = KilledDecode(model, root, number)
            time.sleep(random.Random(number).uniform(0.0, 1.0))
            answers = victim.kill()
            assert len(half_written(root) - before) <= WRITERS
            pages = list(published(root))
            assert [page.fault(decode.parts.shape) for page in pages] == [None] * len(pages)
            # What was not answered to its end may be there as far as it came: it is asked again.
            ended = {tuple(prompt): answer for prompt, answer in answers}
            for n, prompt in enumerate(prompts_of(number)):
                decode.ask(f"{number} {n}", prompt, answer_length(n), cache="off")
            decode.run()
            for n, prompt in enumerate(prompts_of(number)):
                answer = decode.answer(f"{number} {n}")
                assert ended.get(tuple(prompt), answer) == answer
                chain = page_keys([*prompt, *answer][:-1], PAGE)
                expected |= set(chain)
                if tuple(prompt) in ended:
                    num_lost += len(set(chain) - {page.key for page in pages})
            assert {page.key for page in pages} <= expected, "pages of nobody"
            num_finished += len(ended)
            decode.said.clear()
    assert num_lost > 0, "no kill came during the offload"
    with capsys.disabled():
        print(
            f"\n{num_kills} kills: {num_finished} answers had ended, {num_lost} of their pages "
            f"were not stored yet; all {len(pages)} in L3 are whole"
        )
    decode.scheduler.close(1)
