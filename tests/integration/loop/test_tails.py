"""Short answers are reused too: the next turn begins inside the page that the last one left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import PAGE, Loop, start_loop
from hicache_loop import drain, ids_of, wait_attached, wrong_tokens
from loop_client import Answer, complete
from page_files import published
from running import Cluster, wait_for

from kvloop.shared_cache.keys import cache_seed, page_keys
from kvloop.shared_cache.tail import tail_key

pytestmark = pytest.mark.integration
ANSWERS = (3, 20, 7, 11, 5, 16)
"""Tokens of each turn's answer."""


@pytest.fixture(scope="module", params=["file", "mooncake"])
def loop(
    request: pytest.FixtureRequest, model: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Loop]:
    with Cluster(tmp_path_factory.mktemp("tails"), model, "--tail-objects") as cluster:
        if request.param == "file":
            cluster.file_cache()
        else:
            store = cluster.mooncake(segment_gib="0.1")
            wait_for("the store's segment", lambda: "store ready" in store.log.read_text())
        # Chunks of two pages, so that prompts are cut behind a start inside a page.
        loop = start_loop(cluster, prefills=(("--chunked-prefill-size", str(2 * PAGE)),))
        wait_attached(*loop.nodes)
        yield loop


def seed_of(salt: str) -> bytes:
    seed = cache_seed(None, salt)
    assert seed is not None
    return seed


def tail_tokens(loop: Loop, result: str) -> float:
    return sum(node.metric("kvloop_tail_tokens_total", result=result) for node in loop.nodes)


@pytest.mark.parametrize(
    ("cache", "first"),
    [
        ("on", 5),
        ("l3_only", 70),
        pytest.param("on", 70, marks=pytest.mark.slow),
        pytest.param("l3_only", 5, marks=pytest.mark.slow),
    ],
)
def test_every_token_that_has_kv_is_a_hit_in_the_next_turn_and_answers_are_the_references(
    loop: Loop, reference: Any, cache: str, first: int
) -> None:
    salt, hits = f"{cache} {first}", tail_tokens(loop, "hit")
    turns: list[Answer] = []
    expected = 0
    for number, num_answer in enumerate(ANSWERS):
        before = turns[-1] if turns else None
        new = ids_of(first if before is None else 2 + 9 * number, f"{salt} {number}")
        prompt = [*(before.history if before else []), *new]
        answer = complete(loop.url, prompt, num_answer, cache=cache, cache_salt=salt)
        held = len(before.history) - 1 if before else 0
        assert answer.sources["computed"] == len(prompt) - held, f"turn {number + 1}"
        if cache == "l3_only":
            assert answer.sources["storage"] == held, f"turn {number + 1}"
        expected += held % PAGE
        turns.append(answer)
        drain(loop)
    assert wrong_tokens(reference, turns) == []
    assert complete(loop.url, turns[-1].prompt, ANSWERS[-1], cache="off").ids == turns[-1].ids
    assert expected > 0 and tail_tokens(loop, "hit") == hits + expected


def test_two_answers_to_one_prompt_are_both_found(loop: Loop, reference: Any) -> None:
    prompt = ids_of(40, "branch")
    asked = [
        complete(loop.url, prompt, 6, cache_salt="branch", temperature=1.0, seed=seed)
        for seed in (1, 2)
    ]
    assert asked[0].ids[:-1] != asked[1].ids[:-1]
    drain(loop)
    for one in asked:
        following = [*one.history, *ids_of(9, "next")]
        answer = complete(loop.url, following, 12, cache="l3_only", cache_salt="branch")
        assert answer.sources["storage"] == len(one.history) - 1 == 45
        assert wrong_tokens(reference, [answer]) == []


def test_a_prompt_that_leaves_the_last_answer_behind_finds_its_full_pages_only(
    loop: Loop, reference: Any
) -> None:
    one = complete(loop.url, ids_of(40, "other"), 6, cache_salt="other")
    drain(loop)
    following = [*one.prompt, *ids_of(20, "edited")]
    answer = complete(loop.url, following, 12, cache="l3_only", cache_salt="other")
    assert answer.sources["storage"] == 32
    assert wrong_tokens(reference, [answer]) == []


@pytest.mark.parametrize("loop", ["file"], indirect=True)
def test_a_damaged_tail_is_a_counted_miss_and_the_answer_is_right(
    loop: Loop, reference: Any
) -> None:
    root = loop.cluster.directory / "l3"
    prefill = loop.prefills[0]
    one = complete(loop.url, ids_of(40, "damage"), 6, cache_salt="damage")
    drain(loop)
    parent = page_keys(one.history, PAGE, seed_of("damage"))[-1]
    damage(root, tail_key(parent, one.history[32:45]))
    faults = prefill.metric("kvloop_faults_total", kind="payload")
    misses = tail_tokens(loop, "miss")
    following = [*one.history, *ids_of(9, "next")]
    answer = complete(loop.url, following, 12, cache="l3_only", cache_salt="damage")
    assert answer.sources["storage"] == 32
    assert wrong_tokens(reference, [answer]) == []
    assert prefill.metric("kvloop_faults_total", kind="payload") == faults + 1
    assert tail_tokens(loop, "miss") == misses + 13


def damage(root: Path, key: bytes) -> None:
    """Flip a byte of one stored page."""
    (path,) = [page.path for page in published(root) if page.key == key]
    content = bytearray(path.read_bytes())
    content[100] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.slow
def test_without_the_flag_decode_stores_no_tail_and_prefill_takes_none(
    model: str, tmp_path: Path
) -> None:
    with Cluster(tmp_path, model) as cluster:
        cluster.file_cache()
        loop = start_loop(cluster)
        wait_attached(*loop.nodes)
        one = complete(loop.url, ids_of(40, "flag"), 6)
        drain(loop)
        answer = complete(loop.url, [*one.history, *ids_of(9, "next")], 2, cache="l3_only")
        assert answer.sources["storage"] == 32
        drain(loop)
        assert not list((tmp_path / "l3").rglob("*tail-*"))
        assert all(node.metric("kvloop_tail_tokens_total") == 0 for node in loop.nodes)
