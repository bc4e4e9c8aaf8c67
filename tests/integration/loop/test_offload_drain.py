"""A decode node that is told to end in mid-answer: every full page is in L3 when it has ended."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import msgspec
import pytest
from faults import PAGE, Loop, open_request, start_loop
from hicache_loop import ids_of, support_cluster, use_stalling, wait_attached
from l3_pages import L3
from running import Running
from stalling_backend import Hand

from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.wire import (
    GenerateRequest,
    PrefillCandidate,
    Sampling,
    Tokens,
    decode_generate_event,
)

pytestmark = pytest.mark.integration
PROMPT = ids_of(9 * PAGE + 5, "drain")


@pytest.fixture
def loop(model: str, tmp_path: Path) -> Iterator[Loop]:
    with support_cluster(tmp_path, model) as cluster:
        use_stalling(cluster, {"stall_s": 120})
        pool = ("--max-total-tokens", str(300 * PAGE))
        drain = ("--drain-timeout-s", "60", "--offload-deadline-s", "50")
        loop = start_loop(cluster, prefills=(pool,), decodes=((*pool, *drain),))
        wait_attached(*loop.nodes)
        yield loop


def test_every_full_page_of_an_answer_that_sigterm_cut_short_is_stored(loop: Loop) -> None:
    (prefill,), (decode,) = loop.prefills, loop.decodes
    root = loop.cluster.directory / "l3"
    l3, hand = L3(root, decode.info()["node"]["namespace"]), Hand(root)
    body = msgspec.to_builtins(request_of(prefill, l3.namespace))
    hand.hold("set", "exists")  # nothing gets into L3 before the stream has ended
    with open_request(decode.url, "/kvloop/generate", body) as connection:
        reply = connection.getresponse()
        ids = tokens_of(reply, at_least=6 * PAGE)
        decode.process.send_signal(signal.SIGTERM)
        ids += tokens_of(reply, at_least=1_000_000)
    assert not l3.keys()
    decode.process.send_signal(signal.SIGTERM)  # a second one changes nothing
    assert decode.process.poll() is None
    hand.release()
    assert decode.process.wait(90) == -signal.SIGTERM, decode.log.read_text()
    keys = page_keys([*PROMPT, *ids[:-1]], PAGE)
    assert len(keys) > 9 + 6 and set(keys) <= l3.check()


def request_of(prefill: Running, namespace: bytes) -> GenerateRequest:
    return GenerateRequest(
        request_id="cut-short",
        prompt=PROMPT,
        sampling=Sampling(max_tokens=100 * PAGE, temperature=0.0, ignore_eos=True),
        namespace=namespace.hex(),
        prefills=(PrefillCandidate(url=prefill.url),),
    )


def tokens_of(reply: HTTPResponse, at_least: int) -> list[int]:
    """The next ones, until there are enough or the stream ends."""
    ids: list[int] = []
    while len(ids) < at_least and (line := reply.readline()):
        event = decode_generate_event(line)
        if isinstance(event, Tokens):
            ids += event.ids
    return ids
