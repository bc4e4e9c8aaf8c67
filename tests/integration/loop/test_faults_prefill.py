"""Prefill nodes that die and clients that go away in mid hand-off: answers come, pages return."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from http.client import HTTPConnection

import pytest
from faults import (
    PAGE,
    Loop,
    asking,
    engine_of,
    kill_9,
    load,
    open_request,
    prompt_of,
    sent_pages,
    start_loop,
)
from loop_client import complete
from running import Cluster, wait_for

pytestmark = pytest.mark.integration
LONG = 3000
ONE_PAGE_A_STEP = ("--chunked-prefill-size", str(PAGE))


@pytest.fixture(scope="module")
def loop(tiny_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """One prefill node, and a decode node that holds one long request and not two."""
    decode = ("--max-total-tokens", str(LONG + 1000))
    with Cluster(tmp_path_factory.mktemp("one"), tiny_models["llama"]) as cluster:
        yield start_loop(cluster, prefills=(ONE_PAGE_A_STEP,), decodes=(decode,))


@pytest.fixture
def loop_of_two(
    tiny_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Loop]:
    with Cluster(tmp_path_factory.mktemp("two"), tiny_models["llama"]) as cluster:
        yield start_loop(cluster, prefills=(ONE_PAGE_A_STEP, ONE_PAGE_A_STEP))


def streamed(loop: Loop, length: int, max_tokens: int) -> AbstractContextManager[HTTPConnection]:
    """A streamed request that has been sent."""
    body = {
        "model": "m",
        "prompt": prompt_of(length),
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "stream": True,
        "kvloop": {"cache": "off"},
    }
    return open_request(loop.url, "/v1/completions", body)


def test_a_killed_prefill_costs_an_attempt_and_the_last_one_a_local_prefill(
    loop_of_two: Loop,
) -> None:
    loop = loop_of_two
    (decode,) = loop.decodes
    alone = complete(loop.url, prompt_of(LONG), 24, cache="off")

    asked = asking(loop.url, prompt_of(LONG), max_tokens=24, cache="off")
    first = loop.working_prefill()
    first.kill()
    answer = asked.result(60)
    assert answer.ids == alone.ids
    assert answer.sources["fallback"] == "prefill_retry"
    assert answer.sources["prefill_node"] not in (None, first.url)
    # Nobody listens at the dead node's port: its attempt leaves quarantine.
    wait_for("its pages", lambda: load(decode)["quarantined_pages"] == 0)

    asked = asking(loop.url, prompt_of(LONG), max_tokens=24, cache="off")
    loop.prefills.remove(first)
    second = loop.working_prefill()
    second.kill()
    answer = asked.result(60)
    assert answer.ids == alone.ids
    assert answer.sources["fallback"] == "local_prefill"
    assert answer.sources["prefill_node"] is None
    assert answer.sources["computed"] == LONG
    assert decode.metric("kvloop_fallbacks_total", kind="local_prefill") == 1
    loop.wait_idle()

    answer = complete(loop.url, prompt_of(LONG), 24, cache="off")
    assert (answer.ids, answer.sources["fallback"]) == (alone.ids, "local_prefill")


def test_a_prefill_whose_engine_is_killed_ends_whole_and_says_why(loop_of_two: Loop) -> None:
    loop = loop_of_two
    alone = complete(loop.url, prompt_of(LONG), 24, cache="off")
    asked = asking(loop.url, prompt_of(LONG), max_tokens=24, cache="off")
    node = loop.working_prefill()
    kill_9(engine_of(node))
    assert asked.result(60).ids == alone.ids
    assert node.process.wait(10) == 1
    assert "the engine process ended with status -9" in node.log.read_text()
    loop.wait_idle()


def test_a_prefill_told_to_stop_finishes_what_it_was_asked_and_then_ends(
    loop_of_two: Loop,
) -> None:
    loop = loop_of_two
    alone = complete(loop.url, prompt_of(LONG), 24, cache="off")
    asked = asking(loop.url, prompt_of(LONG), max_tokens=24, cache="off")
    node = loop.working_prefill()
    node.process.send_signal(signal.SIGTERM)
    answer = asked.result(60)
    assert answer.ids == alone.ids
    assert node.process.wait(25) in (0, -signal.SIGTERM)
    assert "ended with status" not in node.log.read_text()
    loop.wait_idle()


def test_a_client_that_goes_away_in_the_hand_off_stops_prefill_and_frees_all(loop: Loop) -> None:
    (prefill,) = loop.prefills
    before = sent_pages(prefill)
    with streamed(loop, LONG, 500):
        wait_for("the first pages", lambda: sent_pages(prefill) > before)
    loop.wait_idle()
    assert 0 < sent_pages(prefill) - before < LONG // PAGE


def test_a_client_that_goes_away_while_queued_leaves_nothing(loop: Loop) -> None:
    (decode,) = loop.decodes
    with streamed(loop, LONG, 500):
        wait_for("the first", lambda: load(decode)["running"] == 1)
        with streamed(loop, LONG + 1, 500):
            wait_for("the second", lambda: load(decode)["waiting"] == 1)
        wait_for("its end", lambda: load(decode)["waiting"] == 0)
        assert load(decode)["running"] == 1
    loop.wait_idle()


def test_a_client_that_goes_away_while_tokens_come_frees_all(loop: Loop) -> None:
    with streamed(loop, 100, 3000) as request:
        assert request.getresponse().readline().startswith(b"data: ")
        wait_for("the load", lambda: load(loop.decodes[0])["running"] == 1)
    loop.wait_idle(10)


def test_bytes_of_a_long_prompt_arrive_before_its_last_layer_is_computed(loop: Loop) -> None:
    answer = complete(loop.url, prompt_of(LONG), 2, cache="off")
    trace = loop.decodes[0].info()["hand_offs"][-1]
    assert answer.sources["fallback"] is None
    assert trace["pages"] == -(-LONG // PAGE)
    assert 0 < trace["bytes_before_last_layer"] < trace["bytes"]
    assert trace["first_layer_at"] < trace["last_layer_computed_at"] < trace["done_at"]
