"""A sender that was given up and goes on writing reaches no page but those it was offered."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from decode_engine import FILLED, Decode, Writer, save_config
from faults import (
    PAGE,
    Loop,
    asking,
    engine_of,
    load,
    prompt_of,
    sent_pages,
    start_loop,
    wait_still,
)
from loop_client import complete
from running import Cluster, wait_for

from kvloop.engine.messages import AskPrefill, AttemptQuiet, GiveUp

pytestmark = pytest.mark.integration
LONG = 5000
NUM_PAGES = -(-LONG // PAGE)


@pytest.fixture(scope="module")
def loop(tiny_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """Two prefill nodes that compute a page a step; decode holds 2.5 of the long prompts."""
    slow = ("--chunked-prefill-size", str(PAGE))
    decode = ("--hand-off-stall-s", "4", "--max-total-tokens", str(5 * LONG // 2))
    with Cluster(tmp_path_factory.mktemp("quarantine"), tiny_models["llama"]) as cluster:
        yield start_loop(cluster, prefills=(slow, slow), decodes=(decode,))


def test_a_prefill_that_wakes_up_late_changes_no_page_of_other_requests(loop: Loop) -> None:
    (decode,) = loop.decodes
    long, others = prompt_of(LONG), [prompt_of(700, seed) for seed in range(4)]
    alone = complete(loop.url, long, 32, cache="off")
    undisturbed = [complete(loop.url, prompt, 160, cache="off") for prompt in others]
    loop.wait_idle()

    sent = {node.url: sent_pages(node) for node in loop.prefills}
    asked = asking(loop.url, long, max_tokens=32, cache="off")
    sleeper = loop.working_prefill()
    front, engine = sleeper.process.pid, engine_of(sleeper)
    sleeper.signal(signal.SIGSTOP)
    try:
        wait_for("the quarantine", lambda: load(decode)["quarantined_pages"] == NUM_PAGES)
        answer = asked.result(60)
        assert answer.ids == alone.ids
        assert answer.sources["fallback"] == "prefill_retry"
        assert answer.sources["prefill_node"] not in (None, sleeper.url)
        assert decode.metric("kvloop_fallbacks_total", kind="prefill_retry") == 1

        # All of the pool but the quarantine is in use when the late writes come.
        disturbed = [asking(loop.url, p, max_tokens=160, cache="off") for p in others * 2]
        wait_for("other requests", lambda: load(decode)["running"] >= 4)
        os.kill(engine, signal.SIGCONT)
        wait_still(engine)
        assert load(decode)["quarantined_pages"] == NUM_PAGES
        answers = [future.result(60).ids for future in disturbed]
        assert answers == [answer.ids for answer in undisturbed] * 2
    finally:
        for pid in (engine, front):
            os.kill(pid, signal.SIGCONT)
    loop.wait_idle()
    # It had never heard that it was given up: it wrote all of the prompt.
    assert sent_pages(sleeper) >= sent[sleeper.url] + NUM_PAGES
    assert complete(loop.url, long, 32, cache="off").ids == alone.ids


def test_late_one_sided_writes_stay_within_the_quarantined_pages(tmp_path: Path) -> None:
    decode = Decode(save_config(tmp_path), num_pages=30, with_transfer=True, hand_off_stall_s=0.2)
    writer = Writer()
    try:
        asked = decode.submit("slow", 10 * PAGE, prefills=("http://a", "http://b"))
        offered = asked.request.target.pages
        writer.order(asked.request.target, [0])
        writer.wait_written()
        decode.push(asked, 0)
        os.kill(writer.process.pid, signal.SIGSTOP)
        writer.order(asked.request.target, [0, 1, 2])
        time.sleep(0.3)
        decode.scheduler.step()

        assert decode.said_last(GiveUp).attempt == asked.request.attempt
        again = decode.said_last(AskPrefill)
        assert again.url == "http://b" and again.request.attempt != asked.request.attempt
        other = decode.submit("other", 10 * PAGE)
        taken = again.request.target.pages + other.request.target.pages
        assert not set(taken) & set(offered)
        assert decode.scheduler.load().free_pages == 0
        decode.pool[:, :, taken] = torch.rand_like(decode.pool[:, :, taken])
        rest = sorted(set(range(30)) - set(offered))
        before = decode.page_bytes(rest)

        os.kill(writer.process.pid, signal.SIGCONT)
        writer.wait_written()
        assert bool((decode.page_bytes(offered) == FILLED).all())
        assert torch.equal(decode.page_bytes(rest), before)
        assert decode.scheduler.load().quarantined_pages == len(offered)

        decode.scheduler.handle(AttemptQuiet(asked.request.attempt, "acknowledged"))
        assert decode.scheduler.load().quarantined_pages == 0
        assert decode.submit("next", 10 * PAGE).request.target.pages == offered
    finally:
        writer.stop()
