"""Many chats with sampled answers through two prefill and two decode nodes: every page is hit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from many_chats import ManyNodes, Shape, many_nodes, variants

from kvloop.benchmark.reuse.account import Account
from kvloop.benchmark.reuse.load import ChatLoad
from kvloop.benchmark.reuse.tables import verdict

pytestmark = pytest.mark.integration
THREADS = ("--threads", "1")
SHAPE = Shape(dtype="float32", prefill_flags=THREADS, decode_flags=THREADS)
LOAD = ChatLoad(chats=8)


@pytest.fixture(scope="module")
def loop(
    tiny_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ManyNodes]:
    directory = tmp_path_factory.mktemp("chats")
    with many_nodes(directory, tiny_models["llama"], SHAPE, LOAD) as running:
        yield running


def check_whole(account: Account) -> None:
    assert account.is_whole, f"{verdict(account)}: {account.misses()[:3]} {account.failures[:3]}"
    assert not account.num_short, "an answer of fewer than four pages proves little"
    # each later turn repeats the one before: half of the pages are answers'
    assert account.total.expected > 4 * account.load.chats * (account.load.turns - 1)


def test_every_full_page_of_every_earlier_turn_is_hit_though_the_next_turn_comes_at_once(
    loop: ManyNodes,
) -> None:
    account = loop.hold("at once", LOAD)
    check_whole(account)
    assert {turn.prefill_node for turn in account.turns} == {node.url for node in loop.prefills}
    assert {turn.decode_node for turn in account.turns} == {node.url for node in loop.decodes}


def test_all_of_it_is_in_the_shared_cache_and_decode_wrote_the_answers(loop: ManyNodes) -> None:
    account = loop.hold("l3_only", variants(LOAD)["l3_only"])
    check_whole(account)
    sources = account.total.sources
    assert sources.storage == account.total.expected * SHAPE.page_size
    assert sources.storage_by_decode > sources.storage_by_prefill > 0


def test_without_history_ids_drift_costs_pages_and_the_account_shows_it(loop: ManyNodes) -> None:
    account = loop.hold("off", ChatLoad(chats=4, turns=2, history="off"))
    assert not account.failures
    assert account.total.drifted == 4, "random answers never tokenize back to what was generated"
    assert not account.is_whole
    for count in account.counts:
        assert count.found == count.repeated_tokens // SHAPE.page_size < count.expected


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_decode_alone_stores_everything_where_prefill_writes_nothing_through(
    tiny_models: dict[str, str], tmp_path: Path
) -> None:
    shape = Shape(
        dtype="float32",
        prefills=1,
        decodes=1,
        write_policy="write_back",
        prefill_flags=THREADS,
        decode_flags=THREADS,
    )
    load = ChatLoad(chats=20, pace="rounds", cache="l3_only")
    with many_nodes(tmp_path, tiny_models["llama"], shape, load) as loop:
        account = loop.hold("write_back", load)
        repaired = loop.decodes[0].metric(
            "kvloop_chain_holes_total", reason="policy", repaired="true"
        )
    check_whole(account)
    assert account.total.sources.storage_by_prefill == 0
    assert repaired > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["at once", "rounds", "l3_only"])
def test_two_hundred_chats_hit_every_full_page_of_every_earlier_turn(
    name: str, tiny_models: dict[str, str], tmp_path: Path
) -> None:
    load = variants(ChatLoad(chats=200))[name]
    with many_nodes(tmp_path, tiny_models["llama"], SHAPE, load) as loop:
        check_whole(loop.hold(name, load))
