"""Prefill killed while it writes pages back: what is left is whole, or is not there."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
from faults import FLAGS, PAGE, Loop, asking, known_nodes, start_loop
from hicache_loop import VOCAB, small_model
from loop_client import Answer, complete
from running import Cluster, wait_for

from kvloop.shared_cache.page_object import PageShape, check, object_name

pytestmark = pytest.mark.integration
NUM_PROMPTS = 6
FILE_THREADS = 4
"""Of the file backend: so many pages can be in flight."""
SMALL = ("--max-total-tokens", "512", "--hicache-ratio", "2")
POLICIES = ("write_back", "write_through")


def flags_of(number: int) -> tuple[str, ...]:
    return (*SMALL, "--hicache-write-policy", POLICIES[number % 2])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("num_kills", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_prefill_killed_while_it_writes_leaves_whole_pages_only(
    num_kills: int, model: str, tmp_path: Path
) -> None:
    """Answers are those of a run without cache, whatever was on its way at the kill."""
    with Cluster(tmp_path, model) as cluster:
        cluster.file_cache()
        loop = start_loop(cluster, prefills=(flags_of(0),))
        for number in range(num_kills):
            check_one_kill(loop, number)
        assert loop.prefills[0].metric("kvloop_faults_total") == 0
    check_objects(tmp_path / "l3", model, num_kills)


def check_one_kill(loop: Loop, number: int) -> None:
    chance = random.Random(number)
    prompts = [prompt_of(chance, 60 + 40 * i) for i in range(NUM_PROMPTS)]
    before = written(loop)
    under_way = [asking(loop.url, prompt, max_tokens=20) for prompt in prompts]
    wait_for("the first pages on their way to L3", lambda: written(loop) > before)
    time.sleep(chance.random() * 0.2)
    loop.prefills[0].kill()
    answers = [answer.result(60) for answer in under_way]
    restart(loop, number + 1)
    for prompt, answer in zip(prompts, answers, strict=True):
        check_same(loop, prompt, answer)


def check_same(loop: Loop, prompt: list[int], answer: Answer) -> None:
    assert complete(loop.url, prompt, 20, cache="off").ids == answer.ids
    assert complete(loop.url, prompt, 20, cache="l3_only").ids == answer.ids
    assert complete(loop.url, [*answer.history, 7], 4, cache="l3_only").sources["fallback"] is None


def prompt_of(chance: random.Random, length: int) -> list[int]:
    return chance.choices(range(10, VOCAB), k=length)


def written(loop: Loop) -> float:
    """Pages that prefill has copied to L2, on their way to L3 then."""
    return loop.prefills[0].metric("kvloop_pages_total", path="backup", result="done")


def restart(loop: Loop, number: int) -> None:
    port = loop.prefills[0].port
    node = loop.cluster.node("prefill", *FLAGS, *flags_of(number), port=port)
    loop.prefills[0] = node.wait_ready()
    wait_for("L3", lambda: node.metric("kvloop_storage_state", state="attached") == 1)
    now = node.info()["node"]["incarnation"]
    wait_for("the router's notice", lambda: known_nodes(loop.url, now) >= len(loop.nodes))


def check_objects(root: Path, model: str, num_kills: int) -> None:
    """All that was published checks; a kill leaves no more behind than it had in flight."""
    shape = shape_of(model)
    objects = [path for path in root.rglob("kvl1-*") if path.is_file()]
    assert len(objects) > num_kills
    for path in objects:
        _, namespace, key, group = path.name.split("-")
        names = bytes.fromhex(namespace), bytes.fromhex(key)
        assert object_name(*names, int(group)) == path.name
        view = memoryview(bytearray(path.read_bytes()))
        assert check(view, shape, names[1], names[0], int(group)).fault is None, path
    left = [path for path in root.rglob("tmp/*") if path.is_file()]
    assert len(left) <= FILE_THREADS * num_kills


def shape_of(model: str) -> PageShape:
    config = json.loads((Path(model) / "config.json").read_text())
    heads = config["num_attention_heads"]
    return PageShape(
        num_layers=config["num_hidden_layers"],
        page_size=PAGE,
        num_kv_heads=config["num_key_value_heads"],
        head_size=config.get("head_dim") or config["hidden_size"] // heads,
        itemsize=4,
    )
