"""A shared cache that hangs: prompts are computed instead, and it costs little and then nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import stalling_store
from faults import Loop, start_loop
from hicache_loop import drain, ids_of, small_model
from loop import flush
from loop_client import Answer, complete
from running import Cluster, wait_for

pytestmark = pytest.mark.integration
PROMPTS = [ids_of(200 + 16 * i, i) for i in range(4)]
ANSWER = 8


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture(params=["best_effort", "timeout"])
def loop(
    request: pytest.FixtureRequest, gate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Loop]:
    monkeypatch.setenv("PYTHONPATH", str(Path(stalling_store.__file__).parent))
    with Cluster(tmp_path, small_model(tmp_path / "model")) as cluster:
        cluster.storage = list(stalling_store.flags_for(tmp_path / "l3", gate))
        flags = ("--hicache-storage-prefetch-policy", request.param)
        loop = start_loop(cluster, prefills=(flags,))
        wait_for_state(loop, "attached")
        yield loop


def wait_for_state(loop: Loop, state: str) -> None:
    for node in loop.nodes:
        wait_for(
            f"state {state}",
            lambda node=node: node.metric("kvloop_storage_state", state=state) == 1,
        )


def ask_anew(loop: Loop, prompts: list[list[int]]) -> list[Answer]:
    """No tier but L3 has them."""
    for node in loop.nodes:
        flush(node)
    return [complete(loop.url, prompt, ANSWER) for prompt in prompts]


def unfulfilled(loop: Loop) -> float:
    return loop.prefills[0].metric("kvloop_prefetch_unfulfilled_pages_total")


def test_a_stalled_l3_is_given_up_by_the_policy_and_then_left_alone(loop: Loop, gate: Path) -> None:
    known = [complete(loop.url, prompt, ANSWER) for prompt in PROMPTS]
    drain(loop)
    before = unfulfilled(loop)

    gate.touch()
    (first,) = ask_anew(loop, PROMPTS[:1])
    assert first.ids == known[0].ids and first.sources["computed"] == len(PROMPTS[0])
    assert first.sources["fallback"] is None
    assert unfulfilled(loop) > before
    wait_for_state(loop, "open")

    before = unfulfilled(loop)
    rest = ask_anew(loop, PROMPTS[1:])
    assert [answer.ids for answer in rest] == [answer.ids for answer in known[1:]]
    assert unfulfilled(loop) == before, "an open breaker is asked nothing"

    gate.unlink()
    wait_for_state(loop, "attached")
    drain(loop)
    again = [complete(loop.url, prompt, ANSWER, cache="l3_only") for prompt in PROMPTS]
    assert [answer.ids for answer in again] == [answer.ids for answer in known]
    assert sum(answer.sources["storage"] for answer in again) > 0
