"""Pools that hold 1.2 requests, and sixteen that want in: each gets its right answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faults import PAGE, Loop, asking, prompt_of, start_loop
from loop_client import complete
from running import Cluster

pytestmark = pytest.mark.integration
PROMPT, ANSWER = 600, 40
NUM_PAGES = -(-(PROMPT + ANSWER) // PAGE) * 6 // 5


SLOW = pytest.mark.slow


@pytest.fixture(
    scope="module",
    params=["both", pytest.param("decode", marks=SLOW), pytest.param("prefill", marks=SLOW)],
)
def loop(
    request: pytest.FixtureRequest,
    tiny_models: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Loop]:
    small = ("--max-total-tokens", str(NUM_PAGES * PAGE))
    prefill = small if request.param != "decode" else ()
    decode = small if request.param != "prefill" else ()
    with Cluster(tmp_path_factory.mktemp("small"), tiny_models["llama"]) as cluster:
        cluster.file_cache()
        yield start_loop(cluster, prefills=(prefill,), decodes=(decode,))


def test_all_of_sixteen_waiting_requests_finish_with_right_answers(loop: Loop) -> None:
    prompts = [prompt_of(PROMPT, seed) for seed in range(16)]
    alone = [complete(loop.url, prompt, ANSWER, cache="off").ids for prompt in prompts]
    asked = [asking(loop.url, prompt, max_tokens=ANSWER) for prompt in prompts]
    assert [future.result(120).ids for future in asked] == alone
    loop.wait_idle()
    again = [asking(loop.url, prompt, max_tokens=ANSWER) for prompt in reversed(prompts)]
    assert [future.result(120).ids for future in again] == alone[::-1]
    loop.wait_idle()
