"""From what was seen of a canary to the state of each stage, and a reason in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kvloop.router.canary.plan import Pair
from kvloop.router.canary.report import Stage, StageReport, State
from kvloop.router.canary.shape import ChatShape
from kvloop.shared_cache.canary import DevicePage, PageReply, StoredPage
from kvloop.shared_cache.wire import PromptSources, Role, Started

MAX_ERROR = 0.25
"""Rounding and another order of sums stay far below; zeros are at 1, other tokens' KV above."""

Seen = PageReply | str
"""A node's reply, or why there is none."""


class HandOffFailure(NamedTuple):
    """Why decode gave up on a prefill node."""

    reason: str
    is_busy: bool = False
    """It had no room: nothing was observed."""

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One answer, as far as it came."""

    seconds: float
    start_s: float = 0.0
    """Until the prompt's KV was at decode."""
    started: Started | None = None
    ids: list[int] = field(default_factory=list)
    error: str | None = None
    is_busy: bool = False
    """The nodes had no room: nothing was observed."""


def judge_transfer(
    pair: Pair,
    shape: ChatShape,
    turn: Turn,
    failure: HandOffFailure | None,
    seen: Seen,
    took_s: float,
) -> StageReport:
    """Did the prompt's KV come from prefill, and is it what decode itself would compute?"""
    expected = {"pages": shape.prompt_pages}

    def verdict(state: State, reason: str = "", right: int = 0) -> StageReport:
        return _report("transfer", state, reason, took_s, expected, {"pages": right})

    path = f"prefill {pair.prefill.url} to decode {pair.decode.url}"
    if turn.started is None:
        return verdict("unknown" if turn.is_busy else "failed", f"turn 1: {turn.error}")
    if turn.started.prefill_node != pair.prefill.url:
        what = f"no KV came from {path}, decode computed the prompt itself"
        return verdict(*_fallback(what, failure))
    if isinstance(seen, str):
        return verdict("unknown", f"decode {pair.decode.url} did not look at its pages: {seen}")
    if seen.problem is not None:
        return verdict("unknown", f"decode {pair.decode.url} did not compare: {seen.problem}")
    pages = seen.device
    wrong = next((i for i, page in enumerate(pages) if not page.error <= MAX_ERROR), None)
    right = sum(page.error <= MAX_ERROR for page in pages)
    if wrong is not None:
        what = _wrong_page(wrong, pages[wrong])
        return verdict("failed", f"wrong KV came from {path}: {what}", right)
    if len(pages) < shape.prompt_pages:
        return verdict("unknown", f"decode {pair.decode.url} did not keep the pages", right)
    return verdict("ok", right=right)


def judge_write_back(
    pair: Pair, shape: ChatShape, turn: Turn, seen: Seen, took_s: float
) -> StageReport:
    """Is every full page of turn 1 in L3, checked, and are decode's its own?"""
    expected = {"pages": shape.num_pages, "by_decode": shape.decode_pages}
    pages = seen.stored if isinstance(seen, PageReply) else ()
    good = [page for page in pages if page.result == "good"]
    by_decode = sum(page.writer == "decode" for page in pages[shape.prompt_pages :])
    found = {"pages": len(good), "by_decode": by_decode}

    def verdict(state: State, reason: str = "") -> StageReport:
        return _report("write_back", state, reason, took_s, expected, found)

    if turn.error is not None:
        return verdict("failed", f"turn 1's answer: {turn.error}")
    if isinstance(seen, str) or seen.problem is not None:
        why = seen if isinstance(seen, str) else seen.problem
        return verdict("unknown", f"decode {pair.decode.url} did not look into L3: {why}")
    if found == expected and not any(page.is_zero for page in good):
        return verdict("ok")
    detached = storage_problem("decode", pair.decode.url, seen)
    if detached is not None:
        return verdict("failed", detached)
    reason = _wrong_pages(shape, pages)
    if reason is not None:
        return verdict("failed", f"{reason}, {took_s:.1f} s after turn 1's end")
    unread = sum(page.result == "unread" for page in pages)
    if unread:
        why = f"{unread} pages are in L3 but were not read: no host page was free"
        return verdict("unknown", f"decode {pair.decode.url}: {why}")
    whose = f"{by_decode} of {shape.decode_pages} pages of the answer"
    return verdict("failed", f"{whose} were written by decode, the others by somebody else")


def judge_reuse(
    pair: Pair, shape: ChatShape, turn: Turn, failure: HandOffFailure | None, seen: Seen | None
) -> StageReport:
    """Did turn 2, which read nothing but L3, find every full page of turn 1?

    `seen`: what L3 has by the reader's word; None where nobody had to ask.
    """
    size = shape.page_size
    expected = {"pages": shape.num_pages, "by_decode": shape.decode_pages}
    sources = turn.started.sources if turn.started is not None else PromptSources()
    found = {
        "pages": sources.storage // size,
        "by_decode": sources.storage_by_decode // size,
    }

    def verdict(state: State, reason: str = "") -> StageReport:
        return _report("reuse", state, reason, turn.seconds, expected, found)

    reader = f"prefill {pair.reader.url}"
    if turn.started is None:
        return verdict("unknown" if turn.is_busy else "failed", f"turn 2: {turn.error}")
    if turn.started.prefill_node != pair.reader.url:
        what = f"decode computed turn 2 itself, nothing came from {reader}"
        return verdict(*_fallback(what, failure))
    is_found = all(found[name] >= expected[name] for name in expected)
    if is_found and turn.error is None:
        return verdict("ok")
    if is_found:
        return verdict("failed", f"turn 2: {turn.error}")
    missed = f"turn 2 found {found['pages']} of {shape.num_pages} pages in L3"
    return verdict("failed", f"{missed}: {_why_missed(pair, shape, seen)}")


def storage_problem(role: Role, url: str, reply: PageReply) -> str | None:
    """Why a node has no L3 to write to or read from; None where it has."""
    node = f"{role} {url}"
    if reply.state == "attached":
        return None
    if reply.state == "detached":
        if reply.launched_with is None:
            what = "offload" if role == "decode" else "reading L3"
            return f"{what} is off: {node} was started without --hicache-storage-backend"
        return f"L3 is detached on {node} (it was started with {reply.launched_with})"
    why = f": {reply.last_error}" if reply.last_error else ""
    return f"L3 ({reply.backend}) is {reply.state} on {node}{why}"


def skipped(stage: Stage, reason: str) -> StageReport:
    """A stage that had nothing to be judged by."""
    return StageReport(stage=stage, state="skipped", reason=reason)


def _report(
    stage: Stage,
    state: State,
    reason: str,
    seconds: float,
    expected: dict[str, int],
    found: dict[str, int],
) -> StageReport:
    return StageReport(
        stage=stage,
        state=state,
        seconds=round(seconds, 3),
        expected=expected,
        found=found,
        reason=reason,
    )


def _fallback(what: str, failure: HandOffFailure | None) -> tuple[State, str]:
    if failure is None:
        return "failed", what
    return "unknown" if failure.is_busy else "failed", f"{what}: {failure}"


def _wrong_page(index: int, page: DevicePage) -> str:
    if page.is_zero:
        return f"page {index} is all zeros"
    return (
        f"page {index}, layer {page.layer} differs from what decode computes itself by "
        f"{page.error:.2f} of its size (up to {MAX_ERROR} is rounding)"
    )


def _wrong_pages(shape: ChatShape, pages: Sequence[StoredPage]) -> str | None:
    """What is wrong with pages in L3; None where none is missing, damaged or zero."""
    missing = [i for i, page in enumerate(pages) if page.result == "missing"]
    if missing:
        decodes = sum(i >= shape.prompt_pages for i in missing)
        return (
            f"{len(missing)} of {shape.num_pages} pages are not in L3, "
            f"{decodes} of them decode's own"
        )
    for what in ("damaged", "zero"):
        bad = [
            i
            for i, page in enumerate(pages)
            if (page.is_zero if what == "zero" else page.result == what)
        ]
        if bad:
            return f"{len(bad)} of {shape.num_pages} pages in L3 are {_BAD[what]}"
    return None


_BAD = {"damaged": "damaged: their trailers do not check", "zero": "all zeros"}


def _why_missed(pair: Pair, shape: ChatShape, seen: Seen | None) -> str:
    reader = f"prefill {pair.reader.url}"
    if seen is None or isinstance(seen, str):
        return f"{reader} did not say why" + (f" ({seen})" if seen else "")
    problem = storage_problem("prefill", pair.reader.url, seen)
    if problem is not None:
        return problem
    there = sum(page.result == "there" for page in seen.stored)
    if there < shape.num_pages:
        return (
            f"{reader} sees {there} of them in its L3 ({seen.backend}), decode "
            f"{pair.decode.url} sees all: they do not share one store"
        )
    return f"{reader} sees all of them there, but did not read them in time"
