"""What decode is told of a chat's next turn: what it will not repeat, and whether it comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from thinking_templates import STRIPS, byte_tokenizer

from kvloop.router.returns import MIN_SESSIONS
from kvloop.router.tokenizer import ChatTokenizer
from kvloop.shared_cache.wire import StripRule

pytestmark = pytest.mark.integration
HORIZON_S = 0.5


@pytest.fixture(scope="module")
def thinker_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("thinker")
    byte_tokenizer(STRIPS, shown=("<think>", "</think>")).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def thinker(thinker_dir: Path) -> ChatTokenizer:
    return ChatTokenizer.load(str(thinker_dir))


@pytest.fixture
def served(nodes: Any, routers: Any, thinker_dir: Path, thinker: ChatTokenizer) -> Iterator[Any]:
    decode = nodes.start("decode")
    decode.answer = thinker.encode("<think>Hm</think>Well", add_special_tokens=False)
    router = routers.start(
        model=str(thinker_dir), decode=(decode.url,), session_horizon_s=HORIZON_S
    )
    router.wait_ready()
    yield router, decode


def ask(router: Any, *said: str, **body: Any) -> str:
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(said)]
    reply = router.post("/v1/chat/completions", {"messages": messages, **body})
    assert reply.status_code == 200, reply.text
    content: str = reply.json()["choices"][0]["message"]["content"]
    return content


def test_decode_is_told_what_the_template_strips(served: Any, thinker: ChatTokenizer) -> None:
    router, decode = served
    assert ask(router, "Hi") == "<think>Hm</think>Well"
    opening, closing = (
        tuple(thinker.encode(mark, add_special_tokens=False)) for mark in ("<think>", "</think>")
    )
    assert decode.requests[-1].strip == StripRule(opens=opening, closes=closing)


def test_a_variable_of_the_template_changes_what_decode_is_told(served: Any) -> None:
    router, decode = served
    ask(router, "Hi", chat_template_kwargs={"enable_thinking": False})
    (request,) = decode.requests
    assert request.strip == StripRule(kept_prompt=len(request.prompt) - 6)
    ask(router, "Hi", chat_template_kwargs={"tools": [{"type": "function"}]})
    assert decode.requests[-1].strip is None


def test_a_prompt_without_a_template_has_no_rule(served: Any) -> None:
    router, decode = served
    assert router.post("/v1/completions", {"prompt": "Hi"}).status_code == 200
    assert router.post("/generate", {"text": "Hi"}).status_code == 200
    assert [request.strip for request in decode.requests] == [None, None]


@pytest.mark.parametrize(("said", "told"), [("returns", True), ("ends", False), (None, None)])
def test_what_the_client_says_of_its_session_is_passed_on(
    served: Any, said: str | None, told: bool | None
) -> None:
    router, decode = served
    options = {"session": said} if said is not None else {}
    ask(router, "Hi", kvloop=options)
    router.post("/v1/completions", {"prompt": "Hi", "kvloop": options})
    router.post("/generate", {"text": "Hi", "kvloop": options})
    assert [request.returns for request in decode.requests] == [told] * 3
    assert router.metric(f'kvloop_sessions_expected_total{{answer="{said or "unknown"}"}}') == 3


def test_sessions_that_never_returned_are_expected_to_end(served: Any) -> None:
    router, decode = served
    for number in range(MIN_SESSIONS + 2):
        ask(router, f"Hi {number}")
    assert decode.requests[-1].returns is None
    seen = 'kvloop_sessions_seen_total{came_back="false",expected="unknown"}'

    def has_learnt() -> bool:
        ask(router, "And you")
        return bool(router.metric(seen) > MIN_SESSIONS)

    router.wait(has_learnt)
    ask(router, "Hi again")
    assert decode.requests[-1].returns is False
    assert router.metric('kvloop_sessions_expected_total{answer="ends"}') >= 1
    ask(router, "Hi again", kvloop={"session": "returns"})
    assert decode.requests[-1].returns is True


def test_a_second_turn_with_its_thinking_cut_off_is_seen_as_a_return(served: Any) -> None:
    router, _ = served
    ask(router, "Hi")
    ask(router, "Hi", "Well", "Go on")
    seen = 'kvloop_sessions_seen_total{came_back="true",expected="unknown"}'
    assert router.metric(seen) == 1
