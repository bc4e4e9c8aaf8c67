"""The real tree and pools do what the reference says, page for page."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from kvloop.benchmark.replay.__main__ import main
from kvloop.benchmark.replay.cache import ReplayedCache
from kvloop.benchmark.replay.reference import Reference
from kvloop.benchmark.replay.run import ReplayConfig, replay
from kvloop.shared_cache.hicache_names import EvictionPolicy, WritePolicy

TRACE = Path(__file__).parents[2] / "data" / "conversation_trace_excerpt.jsonl"
POLICIES: tuple[EvictionPolicy, ...] = get_args(EvictionPolicy)
WRITE_POLICIES: tuple[WritePolicy, ...] = get_args(WritePolicy)
PAIRS = [(policy, write) for policy in POLICIES for write in WRITE_POLICIES]


@pytest.mark.parametrize(("policy", "write_policy"), PAIRS)
def test_every_request_of_a_real_trace_finds_what_the_reference_finds(
    policy: EvictionPolicy, write_policy: WritePolicy
) -> None:
    config = ReplayConfig(
        trace=TRACE, l1_share=0.05, l2_share=0.2, policies=(policy,), write_policies=(write_policy,)
    )
    _, (outcome,) = replay(config)
    assert outcome.is_equal
    assert outcome.tokens == outcome.expected
    assert outcome.tokens.device > 0 and outcome.tokens.computed < outcome.tokens.total


def test_all_tiers_have_a_share_where_they_are_small() -> None:
    _, (outcome,) = replay(ReplayConfig(trace=TRACE, l1_share=0.05, l2_share=0.1))
    tokens = outcome.tokens
    assert min(tokens.device, tokens.host, tokens.storage, tokens.computed) > 0
    expected = sum(json.loads(line)["input_length"] for line in TRACE.read_text().splitlines())
    assert tokens.total == expected


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("policy", "write_policy"), PAIRS)
def test_pools_that_hold_hardly_more_than_one_request_do_as_the_reference_too(
    policy: EvictionPolicy, write_policy: WritePolicy, seed: int
) -> None:
    rng = random.Random(seed)
    longest = rng.choice([3, 6, 10])
    l1 = rng.randint(longest, 3 * longest)
    l2 = rng.randint(l1 + longest, l1 + 6 * longest)
    cache = ReplayedCache(l1_pages=l1, l2_pages=l2, policy=policy, write_policy=write_policy)
    reference = Reference(l1_pages=l1, l2_pages=l2, policy=policy, write_policy=write_policy)
    for pages in prompts(rng, longest):
        priority = rng.choice([0, 0, 0, 1, 5])
        found = cache.serve(cache.keys(pages), priority)
        assert found == reference.serve(pages, priority)
        tiers = (reference.device.pages, reference.host.pages, reference.stored)
        assert cache.contents() == tiers
        cache.check()


def prompts(rng: random.Random, longest: int) -> Iterator[list[int]]:
    """Walks down a growing tree: mostly along pages that were walked before."""
    after: dict[int, list[int]] = {}
    num_pages = 0
    for _ in range(120):
        path, page = list[int](), 0
        for _ in range(rng.randint(1, longest)):
            known = after.setdefault(page, [])
            if not known or rng.random() > (0.85 if page or len(known) > 3 else 0.5):
                num_pages += 1
                known.append(num_pages)
                page = num_pages
            else:
                page = rng.choice(known)
            path.append(page)
        yield path


def test_the_command_shows_the_shares_and_says_that_all_is_equal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--trace", str(TRACE), "--l1-share", "0.1", "--limit", "200"]
    assert main([*flags, "--policy", "all", "--json", str(tmp_path / "result.json")]) == 0
    shown = capsys.readouterr().out
    assert "hit rate" in shown and shown.count("equal") == len(POLICIES)
    result = json.loads((tmp_path / "result.json").read_text())
    assert [outcome["policy"] for outcome in result["outcomes"]] == list(POLICIES)
    assert all(outcome["is_equal"] for outcome in result["outcomes"])
