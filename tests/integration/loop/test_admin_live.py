"""The shared cache is detached, replaced and attached again under chats that run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from admin import attach, detach, storage
from faults import PAGE, Loop, prompt_of, start_loop
from loop_client import complete
from running import Cluster, drained, wait_for

pytestmark = pytest.mark.integration
NUM_CHATS = 8
NUM_TURNS = 3
ANSWER = 33
NUM_CYCLES = 10

Chat = list[list[int]]
"""The ids of each turn's answer."""


@pytest.fixture
def loop(tiny_models: dict[str, str], tmp_path: Path) -> Iterator[Loop]:
    with Cluster(tmp_path, tiny_models["llama"]) as cluster:
        yield start_loop(cluster)


def chat(url: str, number: int, salt: str) -> Chat:
    """A conversation of greedy turns; each must be answered."""
    history, answers = prompt_of(60 + 10 * number, number), []
    for turn in range(NUM_TURNS):
        answer = complete(url, history, ANSWER, cache_salt=salt)
        answers.append(answer.ids)
        history = [*answer.history, *prompt_of(20, turn)]
    return answers


def all_chats(url: str, salt: str) -> list[Chat]:
    with ThreadPoolExecutor(NUM_CHATS) as threads:
        return list(threads.map(lambda number: chat(url, number, salt), range(NUM_CHATS)))


def rounds_during(url: str, disturb: Callable[[], None]) -> list[list[Chat]]:
    """Rounds of all chats, each cold, until the disturbance is over."""
    is_over = threading.Event()

    def chat_on() -> list[list[Chat]]:
        rounds = []
        while not is_over.is_set():
            rounds.append(all_chats(url, f"storm {len(rounds)}"))
        return rounds

    with ThreadPoolExecutor(1) as threads:
        rounds = threads.submit(chat_on)
        try:
            disturb()
        finally:
            is_over.set()
        return rounds.result()


def num_pages(root: Path) -> int:
    return sum(path.is_file() for path in root.rglob("kvl1-*"))


def check_reuse(loop: Loop) -> None:
    """The next turn reads every full page of prompt and answer from L3."""
    first = complete(loop.url, prompt_of(100, 99), 80)
    wait_for("the drain", lambda: drained(*loop.nodes))
    second = complete(loop.url, [*first.history, 9], 8, cache="l3_only")
    num_prompt, num_all = 100 // PAGE * PAGE, (len(first.history) - 1) // PAGE * PAGE
    assert (second.by_prefill, second.by_decode) == (num_prompt, num_all - num_prompt)


def test_chats_go_on_with_the_same_answers_while_l3_comes_and_goes(
    loop: Loop, tmp_path: Path
) -> None:
    calm = all_chats(loop.url, "calm")
    roots = [tmp_path / "a", tmp_path / "b"]

    def disturb() -> None:
        for _ in range(NUM_CYCLES):
            for node in loop.nodes:
                assert attach(node, "file", root=str(roots[0]))["state"] == "attached"
            time.sleep(0.3)
            for node in loop.nodes:
                assert attach(node, "file", root=str(roots[1]))["state"] == "attached"
            time.sleep(0.3)
            for node in loop.nodes:
                assert detach(node)["state"] == "detached"
            time.sleep(0.2)
        for node in loop.nodes:
            attach(node, "file", root=str(roots[0]))

    rounds = rounds_during(loop.url, disturb)
    assert rounds and all(answers == calm for answers in rounds)
    assert all(num_pages(root) > 0 for root in roots), "each was in use"
    for node in loop.nodes:
        assert storage(node)["state"] == "attached" and storage(node)["last_error"] is None
        assert node.metric("kvloop_storage_state", backend="file", state="attached") == 1
        assert node.metric("kvloop_storage_state", backend="none") == 0
    check_reuse(loop)
    loop.wait_idle()


def test_what_is_in_host_memory_is_written_to_a_backend_that_comes_later(
    loop: Loop, tmp_path: Path
) -> None:
    """The same prompt again: its pages are in L1 and L2, and no longer new."""
    prompt = prompt_of(200)
    complete(loop.url, prompt, 8)
    for node in loop.nodes:
        attach(node, "file", root=str(tmp_path / "late"))
    complete(loop.url, prompt, 8)
    wait_for("the drain", lambda: drained(*loop.nodes))
    wait_for("the pages", lambda: num_pages(tmp_path / "late") >= 200 // PAGE)
    again = complete(loop.url, prompt, 8, cache="l3_only")
    assert again.sources["storage"] >= 199 // PAGE * PAGE
