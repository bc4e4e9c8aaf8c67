"""The shared cache dies: requests go on, it is visible, and the cache works again afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest
from faults import PAGE, Loop, kill_9, prompt_of, start_loop
from loop_client import Answer, complete
from running import ADMIN, Cluster, Running, drained, fetch, wait_for

pytestmark = pytest.mark.integration
ANSWER = 80


@pytest.fixture(scope="module")
def loop(tiny_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    with Cluster(tmp_path_factory.mktemp("store"), tiny_models["llama"]) as cluster:
        wait_mounted(cluster.mooncake(segment_gib="0.1"))
        loop = start_loop(cluster)
        wait_state(loop, "attached")
        yield loop


def wait_mounted(store: Running) -> None:
    """A master without a segment takes no page."""
    wait_for("the store's segment", lambda: "store ready" in store.log.read_text())


def wait_state(loop: Loop, state: str) -> None:
    def is_there(node: Running) -> bool:
        return node.metric("kvloop_storage_state", backend="mooncake", state=state) == 1

    wait_for(f"state {state}", lambda: all(map(is_there, loop.nodes)), 60)


def store_of(loop: Loop) -> Running:
    return next(r for r in reversed(loop.cluster.started) if r.log.name.startswith("store"))


def master_of(store: Running) -> int:
    children = psutil.Process(store.process.pid).children()
    (master,) = [child.pid for child in children if "mooncake_master" in child.name()]
    return master


def restart_store(loop: Loop) -> None:
    """The same store at the same port, after what is left of the old one is gone."""
    store = store_of(loop)
    store.kill()
    wait_mounted(loop.cluster.mooncake(store.port, segment_gib="0.1"))
    wait_state(loop, "attached")


def check_reuse(loop: Loop, first: Answer, *, is_restored: bool = False) -> None:
    """All full pages of prompt and answer are read from L3, each from the node that filled it.

    Unless it was restored: what prefill has in L2 it writes to a store that has lost its pages.
    Where the machine is so busy that calls to L3 stall, their pages are lost, and written again.
    """
    num_prompt = len(first.prompt) // PAGE * PAGE
    num_all = (len(first.history) - 1) // PAGE * PAGE
    for _ in range(3):
        wait_for("the drain", lambda: drained(*loop.nodes))
        second = complete(loop.url, [*first.history, 9], 8, cache="l3_only")
        found = (second.by_prefill, second.by_decode)
        expected = (num_prompt, num_all - num_prompt)
        if is_restored:
            found, expected = (sum(found),), (num_all,)
        if found == expected or not has_stalled(loop):
            break
        wait_state(loop, "attached")
        complete(loop.url, first.prompt, ANSWER)
    assert found == expected


def has_stalled(loop: Loop) -> bool:
    headers = {"Authorization": f"Bearer {ADMIN}"}
    found = [
        fetch(f"{node.url}/hicache/storage-backend", headers=headers)[1] for node in loop.nodes
    ]
    return any(status["stats"][kind] for status in found for kind in ("stalls", "overloads"))


def flush(node: Running) -> None:
    assert fetch(f"{node.url}/flush_cache", {}, {"Authorization": f"Bearer {ADMIN}"})[0] == 200


def test_requests_go_on_without_the_master_and_reuse_begins_again_with_the_next(
    loop: Loop,
) -> None:
    prompt = prompt_of(100)
    alone = complete(loop.url, prompt, ANSWER, cache="off")
    first = complete(loop.url, prompt, ANSWER)
    check_reuse(loop, first)

    kill_9(master_of(store_of(loop)))
    # What prefill holds in its own pool and remembers as stored is in no L3 any more.
    assert complete(loop.url, prompt, ANSWER).ids == alone.ids
    wait_state(loop, "open")
    unseen = prompt_of(120)
    without = complete(loop.url, unseen, ANSWER)
    assert without.ids == complete(loop.url, unseen, ANSWER, cache="off").ids
    assert without.sources["computed"] == 120
    headers = {"Authorization": f"Bearer {ADMIN}"}
    for node in loop.nodes:
        status, body = fetch(f"{node.url}/hicache/storage-backend", headers=headers)
        assert (status, body["backend"], body["state"]) == (200, "mooncake", "open")
        assert body["last_error"]

    restart_store(loop)
    wait_for("the drain", lambda: drained(*loop.nodes))  # a page under way outlives a flush
    flush(loop.decodes[0])
    again = complete(loop.url, prompt, ANSWER)
    assert again.ids == alone.ids
    assert again.sources["device"] > 0, f"the test wants pages that prefill remembers: {again}"
    check_reuse(loop, again, is_restored=True)
    check_reuse(loop, complete(loop.url, prompt_of(130), ANSWER))
    loop.wait_idle()


def test_a_store_that_restarts_between_two_requests_leaves_no_hole_in_the_next_turn(
    loop: Loop,
) -> None:
    """Nobody asked anything of L3 meanwhile: only the loss of its content tells."""
    prompt = prompt_of(140)
    first = complete(loop.url, prompt, ANSWER)
    check_reuse(loop, first)
    epochs = [epoch(node) for node in loop.nodes]
    restart_store(loop)
    wait_for("the loss", lambda: not set(epochs) & {epoch(node) for node in loop.nodes})
    wait_for("the drain", lambda: drained(*loop.nodes))
    flush(loop.decodes[0])
    check_reuse(loop, complete(loop.url, prompt, ANSWER), is_restored=True)


def epoch(node: Running) -> str:
    headers = {"Authorization": f"Bearer {ADMIN}"}
    return str(fetch(f"{node.url}/hicache/storage-backend", headers=headers)[1]["epoch"])
