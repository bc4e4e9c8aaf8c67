"""Reasoning-style chats through a whole loop: what is stored, and what the next turn finds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from running import EXACT, Cluster, Running, drained, wait_for
from thinking_chats import FilledPages, ThinkingChat, Turn, decode_pages
from thinking_model import save_thinker
from thinking_templates import STRIPS

pytestmark = pytest.mark.integration
PAGE = 16


class Loop:
    """A loop whose decode node stores what `selective` chooses."""

    def __init__(self, cluster: Cluster) -> None:
        cluster.file_cache()
        router = cluster.router()
        self.prefill = cluster.node("prefill")
        self.decode = cluster.node("decode", "--offload-policy", "selective")
        for running in (self.prefill, self.decode, router):
            running.wait_ready()
        for node in (self.prefill, self.decode):
            wait_for("L3", lambda node=node: is_attached(node))
        self.url = cluster.url

    def chat(self, name: str, num_turns: int, **options: Any) -> list[Turn]:
        """A chat whose every turn is stored before the next."""
        chat = ThinkingChat(self.url, name)
        for _ in range(num_turns):
            chat.ask(**options)
            wait_for("the drain", lambda: drained(self.prefill, self.decode))
        return chat.turns

    def skipped(self, reason: str) -> float:
        return self.decode.metric("kvloop_offload_skipped_pages_total", reason=reason)

    def stored(self) -> float:
        return self.decode.metric("kvloop_pages_total", path="offload", result="stored")


def is_attached(node: Running) -> bool:
    return node.metric("kvloop_storage_state", state="attached") == 1


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    model = save_thinker(tmp_path_factory.mktemp("thinker"), STRIPS, mean_thought=80)
    directory = tmp_path_factory.mktemp("thinking")
    flags = ("--dtype", "float32", "--page-size", str(PAGE), *EXACT)
    with Cluster(directory, model, *flags) as cluster:
        yield Loop(cluster)


def check_hits(turns: list[Turn]) -> None:
    filled = FilledPages(PAGE)
    for number, turn in enumerate(turns):
        assert turn.sources["storage"] == filled.reusable(turn), number
        filled.add(turn)


def test_stripped_thinking_is_not_stored_and_every_page_that_returns_is_hit(loop: Loop) -> None:
    before, skipped = loop.stored(), loop.skipped("stripped")
    turns = loop.chat("thinking", 4)
    assert all("</think>" in turn.text for turn in turns)
    check_hits(turns)
    filled, repeated = decode_pages(turns, PAGE)
    stored = loop.stored() - before
    assert repeated <= stored <= len(turns) < filled
    assert loop.skipped("stripped") - skipped == filled - stored


def test_an_answer_cut_off_inside_its_thinking_is_stored_and_hit(loop: Loop) -> None:
    turns = loop.chat("cut off", 3, max_tokens=40)
    assert all("</think>" not in turn.text and len(turn.ids) == 40 for turn in turns[:1])
    check_hits(turns)
    assert turns[1].sources["by_writer"]["decode"] >= PAGE


def test_nothing_is_stored_of_a_session_that_ends(loop: Loop) -> None:
    before, skipped = loop.stored(), loop.skipped("session")
    loop.chat("over", 1, max_tokens=60, session="ends")
    assert loop.stored() == before
    assert loop.skipped("session") > skipped
    loop.chat("goes on", 1, max_tokens=40, session="returns")
    assert loop.stored() > before
