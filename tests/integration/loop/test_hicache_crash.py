"""Prefill is killed at any moment of its writes: what L3 holds is whole, and answers stay right."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from faults import FLAGS, PAGE, Loop, asking, engine_of, kill_9
from hicache_loop import (
    SHAPE,
    Tiers,
    drain,
    ids_of,
    is_in_state,
    set_policies,
    start,
    support_cluster,
    wrong_tokens,
)
from loop import flush
from loop_client import Answer, complete
from page_files import half_written, published
from running import fetch, wait_for

from kvloop.shared_cache.hicache_names import WritePolicy
from kvloop.shared_cache.keys import page_keys

pytestmark = pytest.mark.integration
PROMPT = 20 * PAGE + 5
ANSWER = 20
NUM_PROMPTS = 8
WRITERS = 4
"""Threads of the file backend: each has one page at most that is begun and not published."""
TIERS = Tiers(store='{"write_pause_s": 0.02}')


@pytest.fixture
def loop(model: str, tmp_path: Path) -> Iterator[Loop]:
    with support_cluster(tmp_path, model) as cluster:
        yield start(cluster, TIERS)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("num_kills", [2, pytest.param(25, marks=pytest.mark.slow)])
@pytest.mark.parametrize("write_policy", ["write_back", "write_through"])
def test_no_kill_of_prefill_leaves_a_page_that_is_not_whole_or_an_answer_that_is_not_right(
    write_policy: WritePolicy,
    num_kills: int,
    loop: Loop,
    reference: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = loop.cluster.directory / "l3"
    known: set[bytes] = set()
    num_cut = num_found = 0
    for number in range(num_kills):
        set_policies(loop.prefills[0], write_policy, "wait_complete")
        prompts = [ids_of(PROMPT, (number, n)) for n in range(NUM_PROMPTS)]
        before = half_written(root)
        answers = ask_and_kill(loop, prompts, random.Random(number))
        assert broken_pages(root) == []
        restart(loop)
        again = ask(loop, prompts)
        assert [answer.ids for answer in again] == [answer.ids for answer in answers]
        assert all(not wrong_tokens(reference, [answer]) for answer in again)
        drain(loop)  # what is still half written then, the dead one has left
        cut = half_written(root) - before
        assert len(cut) <= WRITERS, "more was left than can have been in flight"
        num_cut += len(cut)
        num_found += sum(answer.sources["storage"] for answer in again)
        assert loop.prefills[0].metric("kvloop_faults_total") == 0
        known |= {key for a in again for key in page_keys(a.history, PAGE, None)}
    names = {page.key for page in published(root)}
    assert names <= known, "L3 holds pages of nobody"
    assert num_found > 0, "nothing that was written before a kill was read after it"
    with capsys.disabled():
        print(
            f"\n{write_policy}: {num_kills} kills, {num_cut} pages cut in the writing, "
            f"{len(names)} whole ones in L3, {num_found // PAGE} read after a restart"
        )


def ask(loop: Loop, prompts: Sequence[Sequence[int]]) -> list[Answer]:
    with ThreadPoolExecutor(len(prompts)) as threads:
        return list(threads.map(lambda p: complete(loop.url, p, ANSWER), prompts))


def ask_and_kill(
    loop: Loop, prompts: Sequence[Sequence[int]], chance: random.Random
) -> list[Answer]:
    """All are answered; prefill, front or engine first, dies at some moment of it."""
    prefill = loop.prefills[0]
    victims = [prefill.process.pid, engine_of(prefill)]
    asked = [asking(loop.url, prompt, max_tokens=ANSWER) for prompt in prompts]
    time.sleep(chance.uniform(0.05, 1.5))
    kill_9(chance.choice(victims))
    prefill.process.wait(30)
    return [task.result(120) for task in asked]


def restart(loop: Loop) -> None:
    """Another prefill node in the place of the dead one, with nothing but L3."""
    dead = loop.prefills[0]
    flush(loop.decodes[0])
    flags = (*FLAGS, *TIERS.flags())
    loop.prefills[0] = loop.cluster.node("prefill", *flags, port=dead.port).wait_ready()
    wait_for("L3", lambda: is_in_state(loop.prefills[0], "attached"))
    incarnation = loop.prefills[0].info()["node"]["incarnation"]
    wait_for("the router's notice", lambda: incarnation in str(fetch(f"{loop.url}/server_info")[1]))


def broken_pages(root: Path) -> list[tuple[str, str]]:
    """Published pages that must not be served, and why."""
    faults = ((page.path.name, page.fault(SHAPE)) for page in published(root))
    return [(name, fault) for name, fault in faults if fault is not None]


def test_pages_damaged_on_the_disk_are_counted_replaced_and_never_served(
    loop: Loop, reference: Any
) -> None:
    prompt = ids_of(PROMPT, "damaged")
    first = complete(loop.url, prompt, ANSWER)
    drain(loop)
    root = loop.cluster.directory / "l3"
    of_prompt = page_keys(prompt, PAGE, None)
    pages = {page.key: page for page in published(root)}
    prefill = loop.prefills[0]
    # The payload, the trailer, and the end of three different pages.
    damage = {of_prompt[3]: 100, of_prompt[7]: SHAPE.payload_bytes + 20}
    for key, at in damage.items():
        data = bytearray(pages[key].path.read_bytes())
        data[at] ^= 1
        pages[key].path.write_bytes(data)
    with pages[of_prompt[11]].path.open("r+b") as file:
        file.truncate(SHAPE.object_bytes // 2)
    for expected in (3, 20):
        for node in loop.nodes:
            flush(node)
        again = complete(loop.url, prompt, ANSWER, cache="l3_only")
        assert again.ids == first.ids and not wrong_tokens(reference, [again])
        assert again.sources["storage"] == expected * PAGE
        drain(loop)
    assert prefill.metric("kvloop_faults_total") == 2
    assert broken_pages(root) == []
