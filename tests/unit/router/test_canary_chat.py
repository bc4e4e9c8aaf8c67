"""One pair's canary against nodes that break as they are told."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from canary_nodes import PAGE, FakeNodes, node

from kvloop.router.canary import chat
from kvloop.router.canary.chat import PairCanary
from kvloop.router.canary.judge import HandOffFailure
from kvloop.router.canary.plan import Pair
from kvloop.router.canary.report import PairReport
from kvloop.shared_cache.canary import DevicePage, StoredPage, canary_seed
from kvloop.shared_cache.wire import NodeLoad

PREFILL, READER, DECODE = node("prefill", 0), node("prefill", 1), node("decode", 0)
VOCAB = 4096


async def run(nodes: FakeNodes, seconds: float = 0.6, **decode: Any) -> PairReport:
    deadline = asyncio.get_running_loop().time() + seconds
    changed = msgspec.structs.replace(DECODE, **decode)
    pair = Pair(decode=changed, prefill=PREFILL, reader=READER)
    return await PairCanary(nodes.probe, pair, VOCAB, deadline).run()


def states(report: PairReport) -> list[str]:
    return [stage.state for stage in report.stages]


async def test_a_whole_loop_is_ok_in_all_stages_with_every_page_counted() -> None:
    report = await run(FakeNodes())
    assert states(report) == ["ok", "ok", "ok"], report
    transfer, write_back, reuse = report.stages
    assert transfer.found == transfer.expected == {"pages": 3}
    assert write_back.found == write_back.expected == {"pages": 8, "by_decode": 5}
    assert reuse.found == reuse.expected == {"pages": 8, "by_decode": 5}
    assert (report.prompt_tokens, report.answer_tokens) == (56, 73)


async def test_the_transfers_time_is_that_until_the_kv_was_there_and_not_the_answers() -> None:
    transfer, _, reuse = (await run(FakeNodes())).stages
    assert 0.1 <= transfer.seconds < 9.0 and reuse.seconds == 9.0


async def test_turn_2_repeats_turn_1_reads_only_l3_and_asks_the_other_prefill_node() -> None:
    nodes = FakeNodes()
    await run(nodes)
    first, second = nodes.requests
    assert (first.cache, second.cache) == ("on", "l3_only")
    assert second.prompt[:129] == [*first.prompt, *[7] * 73]
    assert [p.url for p in first.prefills] == [PREFILL.url]
    assert [p.url for p in second.prefills] == [READER.url]
    assert first.sampling.temperature == 0 and first.sampling.ignore_eos
    # or a decode node that stores only sessions that return would store nothing
    assert first.returns is True
    assert (first.namespace, first.generation) == (DECODE.namespace, DECODE.generation)


async def test_two_canaries_share_no_page_and_belong_to_no_tenant() -> None:
    nodes = FakeNodes()
    await run(nodes)
    await run(nodes)
    seeds = {request.cache_seed for request in nodes.requests}
    assert len(seeds) == 2 and len(nodes.requests) == 4
    asked = {canary_seed(question.nonce).hex() for _, question in nodes.questions}
    assert asked == seeds
    assert {request.tenant for request in nodes.requests} == {""}


async def test_its_tokens_are_ordinary_ones_of_the_vocabulary() -> None:
    nodes = FakeNodes()
    await run(nodes)
    assert all(VOCAB // 8 <= token < VOCAB // 2 for token in nodes.requests[0].prompt)


async def test_its_pages_are_removed_from_l3_whatever_was_found() -> None:
    for nodes in (FakeNodes(), FakeNodes(num_found=0)):
        await run(nodes)
        (removed,) = [q for _, q in nodes.questions if q.look == "remove"]
        assert len(removed.tokens) // PAGE == 8
    detached = FakeNodes(storage="detached")
    await run(detached)
    assert [url for url, q in detached.questions if q.look == "remove"] == [DECODE.url, READER.url]


async def test_turn_2s_tail_is_removed_once_it_is_there() -> None:
    nodes = FakeNodes(has_tails=True, late_looks=2)
    assert states(await run(nodes, seconds=5)) == ["ok", "ok", "ok"]
    asked = [question for _, question in nodes.questions if question.look == "remove"]
    assert len(asked) == 3 and all(one.tokens == asked[0].tokens for one in asked)
    second = nodes.requests[1]
    assert asked[0].tokens == [*second.prompt, *[7] * second.sampling.max_tokens]


async def test_a_loop_without_turn_2_or_with_decode_detached_waits_for_no_tail() -> None:
    for broken in (FakeNodes(num_stored=0), FakeNodes(storage="detached", breaks_off="-1")):
        broken.has_tails, broken.late_looks = True, 1
        await run(broken)
        removes = [url for url, q in broken.questions if q.look == "remove"]
        assert removes.count(DECODE.url) == 1


async def test_pages_that_come_late_are_waited_for() -> None:
    report = await run(FakeNodes(late_looks=3), seconds=5)
    assert states(report) == ["ok", "ok", "ok"], report


async def test_a_prompt_that_decode_computed_itself_is_no_transfer_and_the_cause_is_told() -> None:
    nodes = FakeNodes(falls_back=True, failure=HandOffFailure("checksum of layer 0 does not match"))
    transfer = (await run(nodes)).stages[0]
    assert transfer.state == "failed"
    assert transfer.reason.endswith(
        "decode computed the prompt itself: checksum of layer 0 does not match"
    )


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (DevicePage(error=1.0, layer=0, is_zero=True), "page 0 is all zeros"),
        (DevicePage(error=1.3, layer=2, is_zero=False), "page 0, layer 2 differs"),
        (DevicePage(error=0.26, layer=2, is_zero=False), "by 0.26 of its size"),
        (DevicePage(error=float("nan"), layer=2, is_zero=False), "by nan of its size"),
    ],
)
async def test_kv_that_decode_would_not_compute_is_no_transfer(
    page: DevicePage, words: str
) -> None:
    transfer = (await run(FakeNodes(device=page))).stages[0]
    assert transfer.state == "failed" and words in transfer.reason
    assert transfer.found == {"pages": 0}


async def test_rounding_is_no_difference() -> None:
    nodes = FakeNodes(device=DevicePage(error=0.02, layer=2, is_zero=False))
    assert (await run(nodes)).stages[0].state == "ok"


async def test_pages_that_decode_did_not_keep_leave_the_transfer_unknown() -> None:
    transfer = (await run(FakeNodes(num_held=2))).stages[0]
    assert (transfer.state, transfer.found) == ("unknown", {"pages": 2})


async def test_a_node_that_cannot_be_asked_leaves_its_stages_unknown_and_turn_2_still_proves() -> (
    None
):
    report = await run(FakeNodes(looks_fail="HTTP 404"))
    assert states(report) == ["unknown", "unknown", "ok"]
    assert "HTTP 404" in report.stages[0].reason and "HTTP 404" in report.stages[1].reason


async def test_decode_without_a_backend_is_offload_off_and_is_not_waited_for() -> None:
    nodes = FakeNodes(storage="detached", launched_with=None)
    report = await asyncio.wait_for(run(nodes, seconds=600), 30)
    assert states(report) == ["ok", "failed", "skipped"]
    assert report.stages[1].reason == (
        "offload is off: decode http://decode0:1 was started without --hicache-storage-backend"
    )


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("detached", "L3 is detached on decode http://decode0:1 (it was started with file)"),
        ("open", "L3 (file) is open on decode http://decode0:1: disk full"),
    ],
)
async def test_decode_whose_l3_is_gone_breaks_write_back(state: str, words: str) -> None:
    report = await run(FakeNodes(storage=state))
    assert states(report) == ["ok", "failed", "skipped"]
    assert report.stages[1].reason == words


async def test_pages_missing_at_the_deadline_are_counted_and_whose_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chat, "_CLEAN_UP_S", 0.2)  # the removal waits for them as long
    write_back = (await run(FakeNodes(num_stored=2))).stages[1]
    assert write_back.state == "failed"
    assert write_back.reason.startswith("6 of 8 pages are not in L3, 5 of them decode's own")


@pytest.mark.parametrize(
    ("page", "state", "words"),
    [
        (StoredPage(result="damaged"), "failed", "8 of 8 pages in L3 are damaged"),
        (StoredPage(result="good", writer="decode", is_zero=True), "failed", "are all zeros"),
        (StoredPage(result="good", writer="prefill"), "failed", "0 of 5 pages of the answer"),
        (StoredPage(result="unread"), "unknown", "no host page was free"),
    ],
)
async def test_what_l3_holds_is_read_and_checked(page: StoredPage, state: str, words: str) -> None:
    write_back = (await run(FakeNodes(page=page))).stages[1]
    assert write_back.state == state and words in write_back.reason


async def test_a_prompt_page_that_decode_had_to_write_is_no_fault() -> None:
    nodes = FakeNodes()
    look = nodes.look

    async def by_decode(at: Any, question: Any, deadline: float) -> Any:
        reply = await look(at, question, deadline)
        if question.look != "read":
            return reply
        pages = (StoredPage(result="good", writer="decode"),) * len(reply.stored)  # type: ignore[union-attr]
        return msgspec.structs.replace(reply, stored=pages)  # type: ignore[type-var]

    nodes.look = by_decode  # type: ignore[method-assign]
    assert (await run(nodes)).stages[1].state == "ok"


async def test_turn_2_that_finds_too_little_breaks_reuse_and_the_reader_says_why() -> None:
    reuse = (await run(FakeNodes(num_found=3, reader_storage="detached"))).stages[2]
    assert (reuse.state, reuse.found) == ("failed", {"pages": 3, "by_decode": 0})
    assert reuse.reason == (
        "turn 2 found 3 of 8 pages in L3: "
        "L3 is detached on prefill http://prefill1:1 (it was started with file)"
    )


async def test_two_stores_instead_of_one_are_told_apart_from_slow_reading() -> None:
    apart = (await run(FakeNodes(num_found=0, reader_sees=0))).stages[2]
    assert "do not share one store" in apart.reason
    slow = (await run(FakeNodes(num_found=0))).stages[2]
    assert "did not read them in time" in slow.reason


async def test_nodes_without_room_leave_everything_unknown() -> None:
    report = await run(FakeNodes(error="this node's queue is full", is_busy=True))
    assert states(report) == ["unknown", "skipped", "skipped"]


async def test_a_prefill_node_without_room_leaves_the_transfer_and_the_reuse_unknown() -> None:
    busy = HandOffFailure("refused: queue full", is_busy=True)
    transfer, _, reuse = (await run(FakeNodes(falls_back=True, failure=busy))).stages
    assert (transfer.state, reuse.state) == ("unknown", "unknown")
    assert transfer.reason.endswith("decode computed the prompt itself: refused: queue full")
    assert reuse.reason.endswith("refused: queue full")


async def test_a_turn_that_does_not_start_in_time_breaks_the_transfer() -> None:
    report = await run(FakeNodes(error="no node answered in time"))
    assert states(report) == ["failed", "skipped", "skipped"]
    assert report.stages[0].reason == "turn 1: no node answered in time"


async def test_an_answer_that_breaks_off_is_never_ok() -> None:
    report = await run(FakeNodes(breaks_off="-1"))
    assert states(report) == ["ok", "failed", "skipped"]
    assert report.stages[1].reason == "turn 1's answer: the node went away"
    report = await run(FakeNodes(breaks_off="-2"))
    assert states(report) == ["ok", "ok", "failed"]
    assert report.stages[2].reason == "turn 2: the node went away"


async def test_a_context_too_short_for_two_turns_leaves_everything_unknown() -> None:
    nodes = FakeNodes()
    report = await run(nodes, max_context=20)
    assert states(report) == ["unknown"] * 3 and not nodes.requests
    assert "a context of 20 tokens is too short" in report.stages[0].reason


async def test_a_small_pool_makes_a_shorter_chat() -> None:
    report = await run(FakeNodes(), load=NodeLoad(total_pages=6))
    assert report.note is not None and report.stages[0].expected == {"pages": 2}


async def test_a_node_that_refuses_to_look_is_not_asked_until_the_deadline() -> None:
    nodes = FakeNodes(looks_fail="HTTP 404")
    await asyncio.wait_for(run(nodes, seconds=600), 30)
    assert sum(question.look == "device" for _, question in nodes.questions) == 3
