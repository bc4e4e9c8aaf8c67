"""The simulator's hit rates are exact: what the trace says, and what the reference does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from made_traces import made_requests, request
from simulated import profile
from whole_trace import EXCERPT, whole_trace

from kvloop.benchmark.replay.reference import Reference
from kvloop.benchmark.replay.trace import Request, read_trace
from kvloop.benchmark.simulate.cluster import Cluster, Run
from kvloop.benchmark.simulate.config import ClusterConfig
from kvloop.benchmark.simulate.served import Tokens, add_tokens
from kvloop.benchmark.simulate.trace_load import trace_load
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.hicache_names import EvictionPolicy, WritePolicy

POLICIES: tuple[EvictionPolicy, ...] = ("lru", "lfu", "slru")
WRITE_POLICIES: tuple[WritePolicy, ...] = get_args(WritePolicy)
FAST = profile(memory_bytes=1e7, kv_bytes_per_token=10.0, prefill_token_s=1e-6)


def run(requests: Sequence[Request], page_size: int = 512, **options: Any) -> Run:
    load_options = {
        name: options.pop(name)
        for name in ("time_scale", "sharing", "has_answers")
        if name in options
    }
    load = trace_load(requests, page_size=page_size, **load_options)
    return Cluster(ClusterConfig(**options), FAST, load).run()


def found(ran: Run) -> Tokens:
    return add_tokens([one.found for one in ran.served])


def seen_before(requests: Sequence[Request]) -> int:
    """Tokens of ids that an earlier request had: counted without any cache."""
    seen: set[int] = set()
    num = 0
    for one in requests:
        num += sum(one.tokens(i, i + 1) for i, page in enumerate(one.pages) if page in seen)
        seen.update(one.pages)
    return num


def ids_seen_before(requests: Sequence[Request]) -> int:
    """How many ids an earlier request had."""
    seen: set[int] = set()
    num = 0
    for one in requests:
        num += len(seen.intersection(one.pages))
        seen.update(one.pages)
    return num


def ids_found(ran: Run) -> int:
    """Ids that were not computed; a prompt's last one may stand for fewer tokens."""
    return sum(-(-(one.prompt_tokens - one.found.computed) // 512) for one in ran.served)


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [1, 3])
def test_the_whole_trace_hits_all_that_was_seen_before(nodes: int) -> None:
    requests = read_trace(whole_trace())
    ran = run(requests, prefill=nodes, decode=nodes)
    assert ids_found(ran) == ids_seen_before(requests) == 105_710
    assert round(ids_found(ran) / sum(len(one.pages) for one in requests), 3) == 0.366
    tokens = found(ran)
    total = sum(one.num_tokens for one in requests)
    assert (tokens.total - tokens.computed, tokens.total) == (seen_before(requests), total)
    assert round(tokens.hit_rate, 4) == 0.3736


@pytest.mark.parametrize("nodes", [1, 3])
def test_an_excerpt_hits_all_that_was_seen_before(nodes: int) -> None:
    requests = read_trace(EXCERPT)
    ran = run(requests, prefill=nodes, decode=nodes, l1_pages=300, l2_pages=600)
    tokens = found(ran)
    assert tokens.total - tokens.computed == seen_before(requests)
    assert ids_found(ran) == ids_seen_before(requests)
    assert min(tokens.device, tokens.host, tokens.storage_by_prefill) > 0


@pytest.mark.parametrize("write_policy", WRITE_POLICIES)
@pytest.mark.parametrize("policy", POLICIES)
def test_small_tiers_of_one_node_find_what_the_reference_finds(
    policy: EvictionPolicy, write_policy: WritePolicy
) -> None:
    requests = read_trace(EXCERPT)[:250]
    reference = Reference(l1_pages=150, l2_pages=320, policy=policy, write_policy=write_policy)
    ran = run(
        requests,
        l1_pages=150,
        l2_pages=320,
        eviction_policy=policy,
        write_policy=write_policy,
        offloads=False,
    )
    for one, asked in zip(ran.served, requests, strict=True):
        wanted = reference.serve(asked.pages)
        ends = [wanted.device, wanted.device + wanted.host]
        ends.append(ends[1] + wanted.storage)
        assert (one.found.device, one.found.host, one.found.storage) == (
            asked.tokens(0, ends[0]),
            asked.tokens(ends[0], ends[1]),
            asked.tokens(ends[1], ends[2]),
        )


@given(made_requests())
def test_pages_smaller_than_ids_find_the_same_tokens(requests: list[Request]) -> None:
    filled = [replace(one, num_tokens=512 * len(one.pages)) for one in requests]
    sizes = {"l1_pages": 200, "l2_pages": 400}
    whole, small = (found(run(filled, page_size=size, **sizes)) for size in (512, 128))
    assert whole.total == small.total
    assert small.computed == whole.computed == whole.total - seen_before(filled)


def test_a_page_size_that_does_not_divide_an_id_is_refused() -> None:
    with pytest.raises(ConfigError, match="--page-size 100: an id stands for 512 tokens"):
        run([request(0, 1)], page_size=100)


def test_selective_writing_finds_less_unless_decode_mends_the_holes() -> None:
    requests = read_trace(EXCERPT)
    options: dict[str, Any] = {"write_policy": "write_through_selective", "l1_pages": 150}
    alone = found(run(requests, **options, l2_pages=320, offloads=False))
    mended = found(run(requests, **options, l2_pages=320))
    assert alone.hit_rate < mended.hit_rate
    assert mended.storage_by_decode > 0 and not alone.storage_by_decode
    assert mended.total - mended.computed == seen_before(requests)


def test_what_decode_mends_is_written_over_its_network() -> None:
    requests = [request(0, 1, 2), request(1000, 3, 4, 5)]
    ran = run(requests, write_policy="write_back")
    page_bytes = 512 * FAST.kv_bytes_per_token
    assert ran.use.l3_pages == 5 and ran.use.l3_write_bytes == 5 * page_bytes
    assert ran.use.sent_bytes - ran.use.l3_write_bytes == 5 * page_bytes


def test_as_traced_pages_of_l3_are_on_the_bus_when_they_have_come() -> None:
    others = [request(1000.0 * n, 2 * n + 1, 2 * n + 2) for n in range(1, 4)]
    load = trace_load([request(0, 1, 2), *others, request(9000, 1, 2)])
    costs = replace(FAST, pcie_bytes_per_s=10240.0, fetch_latency_s=3.0)
    config = ClusterConfig(l1_pages=2, l2_pages=2)
    last = Cluster(config, costs, load).run().served[-1]
    assert last.found.storage == 1024
    # 3 s until they are in L2, 1 s on the bus, the last layer behind it
    assert last.ttft_s == pytest.approx(4.0, rel=0.01)


def test_a_threshold_of_one_use_writes_what_two_would_not() -> None:
    requests = [request(1000 * i, *pages) for i, pages in enumerate([(1, 2), (3, 4), (1, 2)])]
    options: dict[str, Any] = {"write_policy": "write_through_selective", "l1_pages": 2}
    options |= {"l2_pages": 4, "offloads": False}
    once = found(run(requests, **options, write_through_threshold=1))
    assert (once.host + once.storage, found(run(requests, **options)).computed) == (1024, 3072)


def test_an_l3_with_a_bound_forgets_what_was_used_longest_ago() -> None:
    requests = [
        request(1000 * i, *pages)
        for i, pages in enumerate([(1, 2), (3, 4), (5, 6), (7, 8), (5, 6), (1, 2)])
    ]
    gib = 4.5 * 512 * FAST.kv_bytes_per_token / 2**30  # four pages
    options: dict[str, Any] = {"l1_pages": 2, "l2_pages": 2}
    ran = run(requests, **options, l3_gib=gib)
    assert [one.found.storage for one in ran.served] == [0, 0, 0, 0, 1024, 0]
    assert ran.use.l3_evicted == 6 and ran.use.l3_pages == 4
    assert found(run(requests, **options)).storage == 2048


def test_answers_that_later_prompts_show_are_found_as_decodes_pages() -> None:
    # the second prompt holds the first one's 512 tokens, its answer of 600, and 424 more
    requests = [request(0, 1, output=601), request(60_000, 1, 2, 3)]
    assert found(run(requests)).storage_by_decode == 0
    answered = run(requests, has_answers=True)
    assert answered.served[1].found.device == 512
    assert answered.served[1].found.storage_by_decode == 512


def test_an_answer_that_does_not_fit_into_the_later_prompt_was_not_its() -> None:
    requests = [request(0, 1, output=1025), request(60_000, 1, 2, 3)]
    assert found(run(requests, has_answers=True)).storage_by_decode == 0


def test_as_timed_a_page_is_found_only_once_it_was_computed() -> None:
    together = [request(0, 1, 2), request(0, 1, 2)]
    assert found(run(together)).device == 1024
    timed = run(together, sharing="as_timed")
    assert found(timed).computed == found(timed).total
    apart = [request(0, 1, 2), request(60_000, 1, 2)]
    later = found(run(apart, sharing="as_timed"))
    assert later.device == 512, "the last token's page is computed, as the engine does"


def test_as_traced_a_prompt_waits_for_who_computes_what_it_found() -> None:
    slow = profile(memory_bytes=1e9, kv_bytes_per_token=10.0)
    load = trace_load([request(0, 1, 2), request(1, 1, 2, 3)])
    first, second = Cluster(ClusterConfig(prefill=2, decode=1), slow, load).run().served
    assert second.ttft_s + second.at_s > first.ttft_s + first.at_s


def test_broken_lines_are_named(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"input_length": 600, "hash_ids": [1]}\n')
    with pytest.raises(ConfigError, match="line 1"):
        read_trace(trace)
