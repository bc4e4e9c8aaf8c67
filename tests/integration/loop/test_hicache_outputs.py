"""Sixteen chats at once over tiers that are far too small: every answer is transformers'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from admin import storage
from faults import FLAGS, PAGE, Loop, known_nodes
from hicache_loop import (
    SOURCES,
    SYSTEM,
    Tiers,
    all_chats,
    drain,
    set_policies,
    start,
    total,
    wrong_tokens,
)
from loop_client import Answer, complete
from running import Cluster, wait_for

from kvloop.shared_cache.hicache_names import (
    EvictionPolicy,
    HostLayout,
    PrefetchPolicy,
    WritePolicy,
)

pytestmark = pytest.mark.integration
DECODE = ("--max-total-tokens", "2560")
Pair = tuple[WritePolicy, PrefetchPolicy]


class Case(NamedTuple):
    """One loop, and the policies that it goes through; the first are those of its flags."""

    tiers: Tiers
    policies: list[Pair]


CASES = {
    "page_first_direct": Case(
        Tiers(io_backend="kernel", device_policy="lru", host_policy="lru"),
        [
            ("write_through", "wait_complete"),
            ("write_through_selective", "best_effort"),
            ("write_back", "timeout"),
        ],
    ),
    "layer_first": Case(
        Tiers(
            layout="layer_first",
            io_backend="direct",
            device_policy="lfu",
            host_policy="slru",
            store="mooncake",
        ),
        [
            ("write_back", "wait_complete"),
            ("write_through", "best_effort"),
            ("write_through_selective", "timeout"),
        ],
    ),
    "page_first": Case(
        Tiers(
            layout="page_first", io_backend="kernel", device_policy="slru", host_policy="priority"
        ),
        [
            ("write_through_selective", "wait_complete"),
            ("write_back", "best_effort"),
            ("write_through", "timeout"),
        ],
    ),
    "page_first by direct": Case(
        Tiers(
            layout="page_first",
            io_backend="direct",
            device_policy="priority",
            host_policy="lfu",
            store="mooncake",
        ),
        [("write_back", "timeout"), ("write_through", "wait_complete")],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_sixteen_chats_under_pools_that_evict_at_every_turn_are_answered_as_transformers_does(
    name: str, model: str, reference: Any, tmp_path: Path
) -> None:
    check(CASES[name], model, reference, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("device_policy", get_args(EvictionPolicy))
@pytest.mark.parametrize("io_backend", ["kernel", "direct"])
@pytest.mark.parametrize("layout", get_args(HostLayout))
@pytest.mark.parametrize("store", ["file", "mooncake"])
def test_so_under_every_layout_path_eviction_policy_write_policy_and_prefetch_policy(
    layout: HostLayout,
    io_backend: str,
    device_policy: EvictionPolicy,
    store: str,
    model: str,
    reference: Any,
    tmp_path: Path,
) -> None:
    policies = list(product(get_args(WritePolicy), get_args(PrefetchPolicy)))
    others = get_args(EvictionPolicy)
    tiers = Tiers(
        layout=layout,
        io_backend=io_backend,
        device_policy=device_policy,
        host_policy=others[others.index(device_policy) - 1],
        store=store,
    )
    check(Case(tiers, policies), model, reference, tmp_path)


def check(case: Case, model: str, reference: Any, directory: Path) -> None:
    """All rounds of a case: answers, sources, that each tier had its share, and what L3 holds."""
    write, prefetch = case.policies[0]
    answers: list[Answer] = []
    with Cluster(directory, model) as cluster:
        loop = start(cluster, replace(case.tiers, write=write, prefetch=prefetch), *DECODE)
        for number, policies in enumerate(case.policies):
            if number:
                set_policies(loop.prefills[0], *policies)
            chats = check_round(loop, policies, reference)
            answers += [answer for turns in chats for answer in turns]
        assert loop.prefills[0].metric("kvloop_faults_total") == 0
    # What so small an L1 still has at a next turn, decode has too: that counts as transfer_skipped.
    shares = {source: total(answers, source) for source in SOURCES if source != "device"}
    assert min(shares.values()) > 0, shares
    assert sum(answer.by_prefill for answer in answers) > 0
    assert sum(answer.by_decode for answer in answers) > 0


def check_round(loop: Loop, policies: Pair, reference: Any) -> list[list[Answer]]:
    """Sixteen new chats; `complete` checks that each answer's sources sum to its prompt."""
    loaded: list[float] = []

    def after_turn() -> None:
        drain(loop)
        loaded.append(loaded_pages(loop))

    chats = all_chats(loop.url, str(policies), after_turn)
    if policies[1] == "wait_complete":
        # Every turn had evicted: in each later one pages come back to L1.
        assert all(old < new for old, new in pairwise(loaded)), loaded
        computed = sum(total(turns, "computed") for turns in chats)
        assert computed == sum(map(num_new_tokens, chats)) or has_stalled(loop)
    for turns in chats:
        assert wrong_tokens(reference, turns) == [], f"{policies}, {len(turns[0].prompt)} tokens"
        assert {turn.sources["fallback"] for turn in turns} == {None}
    loop.wait_idle()
    return chats


def has_stalled(loop: Loop) -> bool:
    """Whether the machine was too busy for L3's deadline; pages are lost to a turn then."""
    found = [storage(node)["stats"] for node in loop.nodes]
    return any(stats[kind] for stats in found for kind in ("stalls", "overloads"))


def num_new_tokens(turns: Sequence[Answer]) -> int:
    """Tokens of a chat's prompts that are in no full page of what was asked and answered before."""
    cached = [SYSTEM, *((len(turn.history) - 1) // PAGE * PAGE for turn in turns[:-1])]
    return sum(len(turn.prompt) - held for turn, held in zip(turns, cached, strict=True))


def in_storage(loop: Loop, policies: Pair, last: Answer) -> Answer:
    """Whatever the policies: L3 holds the whole chat, written by one of the nodes or the other."""
    found = complete(loop.url, last.history, 8, cache="l3_only", cache_salt=str(policies))
    assert found.sources["storage"] == (len(last.history) - 1) // PAGE * PAGE, policies
    return found


def loaded_pages(loop: Loop) -> float:
    return loop.prefills[0].metric("kvloop_pages_total", path="load_back", result="done")


def test_int8_pages_go_round_and_are_read_by_nodes_with_that_codec_only(
    model: str, tmp_path: Path
) -> None:
    with Cluster(tmp_path, model) as cluster:
        loop = start(cluster, Tiers(codec="int8"), *DECODE)
        answers = [answer for turns in all_chats(loop.url, "int8") for answer in turns]
        assert total(answers, "storage") > 0 and total(answers, "host") > 0
        drain(loop)
        last = answers[-1].history
        found = complete(loop.url, last, 8, cache="l3_only", cache_salt="int8")
        assert found.sources["storage"] == (len(last) - 1) // PAGE * PAGE

        plain = cluster.node("prefill", *FLAGS).wait_ready()
        namespaces = {node.info()["node"]["namespace"] for node in (*loop.nodes, plain)}
        assert len(namespaces) == 2
        loop.prefills[0].kill()
        # Of the two that are left neither takes the other's pages: decode computes by itself.
        alone = complete(loop.url, last, 8, cache="l3_only", cache_salt="int8")
        assert (alone.sources["fallback"], alone.sources["storage"]) == ("local_prefill", 0)

        loop.decodes[0].kill()
        decode = cluster.node("decode", *FLAGS).wait_ready()
        # The killed one may still be thought of as there.
        incarnation = decode.info()["node"]["incarnation"]
        wait_for("the pair", lambda: known_nodes(cluster.url, incarnation) == 2)
        fresh = complete(loop.url, last, 8, cache="l3_only", cache_salt="int8")
        assert fresh.sources["prefill_node"] == plain.url
        assert fresh.sources["computed"] == len(last)
