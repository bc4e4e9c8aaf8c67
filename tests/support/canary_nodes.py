"""A loop as a canary sees it: answers turns and looks as nodes do, and breaks as it is told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

from kvloop.router.canary.judge import HandOffFailure, Seen, Turn
from kvloop.router.canary.probe import Probe
from kvloop.shared_cache.canary import (
    DevicePage,
    PageQuestion,
    PageReply,
    PageResult,
    StoredPage,
)
from kvloop.shared_cache.wire import (
    GenerateRequest,
    NodeLoad,
    NodeRecord,
    PromptSources,
    Role,
    Started,
)

PAGE = 16


def node(role: Role, number: int = 0, **fields: object) -> NodeRecord:
    """A ready node."""
    return NodeRecord(
        role=role,
        incarnation=f"{role}-{number}",
        **{
            "url": f"http://{role}{number}:1",
            "namespace": "aa" * 32,
            "page_size": PAGE,
            "max_context": 4096,
            "model": "m",
            "ready": True,
            "load": NodeLoad(total_pages=1000),
            **fields,
        },  # type: ignore[arg-type]
    )


GOOD = DevicePage(error=0.001, layer=1, is_zero=False)


@dataclass
class FakeNodes:
    """Stands where the Probe does."""

    error: str | None = None
    """Of every turn before it starts."""
    is_busy: bool = False
    breaks_off: str = ""
    """The turn whose answer does."""
    falls_back: bool = False
    failure: HandOffFailure | None = None
    device: DevicePage = GOOD
    num_held: int = 1000
    looks_fail: str | None = None
    storage: str = "attached"
    """State of decode's L3."""
    launched_with: str | None = "file"
    reader_storage: str = "attached"
    reader_sees: int = 1000
    num_stored: int = 1000
    has_tails: bool = False
    late_looks: int = 0
    """So many first looks of one kind find nothing yet."""
    page: StoredPage = field(default_factory=lambda: StoredPage(result="good", writer="decode"))
    num_found: int = 1000
    """Pages that turn 2 reads from L3."""
    requests: list[GenerateRequest] = field(default_factory=list)
    questions: list[tuple[str, PageQuestion]] = field(default_factory=list)
    gate: asyncio.Event | None = None

    @property
    def probe(self) -> Probe:
        return cast(Probe, self)

    async def turn(self, decode: NodeRecord, request: GenerateRequest, deadline: float) -> Turn:
        self.requests.append(request)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            return Turn(seconds=0.1, error=self.error, is_busy=self.is_busy)
        prefill = None if self.falls_back else request.prefills[0].url
        is_second = request.cache == "l3_only"
        found = min((len(request.prompt) - 1) // PAGE, self.num_found) if is_second else 0
        by_prefill = min(found, 3)
        sources = PromptSources(
            computed=len(request.prompt) - found * PAGE,
            storage=found * PAGE,
            storage_by_prefill=by_prefill * PAGE,
            storage_by_decode=(found - by_prefill) * PAGE,
        )
        started = Started(sources=sources, prefill_node=prefill, decode_node=decode.url)
        wanted = request.sampling.max_tokens
        if self.breaks_off and request.request_id.endswith(self.breaks_off):
            return Turn(seconds=0.1, started=started, ids=[7] * 3, error="the node went away")
        return Turn(seconds=9.0, start_s=0.1, started=started, ids=[7] * wanted)

    async def look(self, at: NodeRecord, question: PageQuestion, deadline: float) -> Seen:
        self.questions.append((at.url, question))
        if self.looks_fail is not None:
            return self.looks_fail
        count = len(question.tokens) // PAGE
        asked = sum(q.look == question.look for _, q in self.questions)
        is_late = asked <= self.late_looks and question.look != "read"
        if question.look == "device":
            held = 0 if is_late else min(count, self.num_held)
            return self._reply(at, device=(self.device,) * held)
        there = 0 if is_late else min(count, self.num_stored)
        if at.role == "prefill":
            there = min(there, self.reader_sees)
        there = there if self._state(at) == "attached" else 0
        found: PageResult = "removed" if question.look == "remove" else "there"
        good = self.page if question.look == "read" else StoredPage(result=found)
        pages = tuple(
            (
                StoredPage(result="good", writer="prefill")
                if good.result == "good" and i < 3
                else good
            )
            if i < there
            else StoredPage(result="missing")
            for i in range(count)
        )
        if question.look == "remove" and self.has_tails and (len(question.tokens) - 1) % PAGE:
            result: PageResult = "missing" if asked <= self.late_looks else "removed"
            pages += (StoredPage(result=result),)
        return self._reply(at, stored=pages)

    async def hand_off_failure(self, decode: NodeRecord, request_id: str) -> HandOffFailure | None:
        return self.failure

    def _state(self, at: NodeRecord) -> str:
        return self.storage if at.role == "decode" else self.reader_storage

    def _reply(
        self,
        at: NodeRecord,
        stored: tuple[StoredPage, ...] = (),
        device: tuple[DevicePage, ...] = (),
    ) -> PageReply:
        return PageReply(
            page_size=PAGE,
            launched_with=self.launched_with,
            backend="file",
            state=self._state(at),
            last_error="disk full" if self._state(at) == "open" else None,
            stored=stored,
            device=device,
        )
