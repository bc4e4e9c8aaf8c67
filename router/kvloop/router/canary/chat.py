"""One pair's canary: two turns, and what nodes say of their pages in between."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from random import Random

from kvloop.router.canary.judge import (
    HandOffFailure,
    Seen,
    Turn,
    judge_reuse,
    judge_transfer,
    judge_write_back,
    skipped,
)
from kvloop.router.canary.plan import Pair
from kvloop.router.canary.probe import Probe
from kvloop.router.canary.report import PairReport, StageReport, same
from kvloop.router.canary.shape import ChatShape, fit, shortest
from kvloop.shared_cache.canary import Look, PageQuestion, PageReply, canary_seed
from kvloop.shared_cache.wire import (
    CacheMode,
    GenerateRequest,
    NodeRecord,
    PrefillCandidate,
    Sampling,
)

_ASK_EVERY_S = (0.05, 0.5)
"""While pages are on their way: the first pause, and the longest."""
_MAX_FAILED_LOOKS = 3
_TRANSFER_SHARE, _WRITE_BACK_SHARE = 0.3, 0.6
"""Of the time left after turn 1; the rest is turn 2's."""
_CLEAN_UP_S = 5.0


class PairCanary:
    """Runs once; its pages are removed from L3 at the end."""

    def __init__(self, probe: Probe, pair: Pair, vocab_size: int, deadline: float) -> None:
        """`deadline` is of the event loop's clock."""
        self._probe, self._pair, self._deadline = probe, pair, deadline
        self._nonce = secrets.token_hex(12)
        self._random = Random(self._nonce)
        self._vocab_size = vocab_size
        self._now = asyncio.get_running_loop().time

    async def run(self) -> PairReport:
        """All stages, in one report; never raises for what nodes do."""
        decode = self._pair.decode
        room = min(self._room(node) for node in (decode, self._pair.prefill, self._pair.reader))
        shape = fit(decode.page_size, room)
        if shape is None:
            need = shortest(decode.page_size)
            return self.not_begun(f"a context of {room} tokens is too short, a canary needs {need}")
        tokens: list[int] = []
        try:
            return self._report(await self._run(shape, tokens), shape)
        finally:
            if len(tokens) >= decode.page_size:
                await self._clean_up(tokens)

    def not_begun(self, reason: str) -> PairReport:
        """Instead of `run`."""
        return self._report(same("unknown", reason))

    async def _run(self, shape: ChatShape, tokens: list[int]) -> tuple[StageReport, ...]:
        """Adds to `tokens` what nodes may have stored."""
        prompt = self._ids(shape.prompt)
        first = await self._turn("1", prompt, shape.answer, self._pair.prefill, "on")
        if first.started is None:
            transfer = judge_transfer(
                self._pair, shape, first, None, "turn 1 failed", first.seconds
            )
            no_turn = f"turn 1: {first.error}"
            return transfer, skipped("write_back", no_turn), skipped("reuse", no_turn)
        tokens += [*prompt, *first.ids]
        transfer, write_back = await asyncio.gather(
            self._check_transfer(shape, first, prompt),
            self._check_write_back(shape, first, tokens),
        )
        if write_back.state == "failed":
            return transfer, write_back, skipped("reuse", "write_back failed")
        return transfer, write_back, await self._check_reuse(shape, tokens)

    async def _check_transfer(
        self, shape: ChatShape, turn: Turn, prompt: Sequence[int]
    ) -> StageReport:
        began = self._now()
        failure: HandOffFailure | None = None
        seen: Seen = "there was nothing to look at"
        assert turn.started is not None
        if turn.started.prefill_node == self._pair.prefill.url:
            seen = await self._ask_until(
                "device",
                prompt,
                self._share(_TRANSFER_SHARE),
                lambda reply: reply.problem is None and len(reply.device) >= shape.prompt_pages,
            )
        else:
            failure = await self._probe.hand_off_failure(self._pair.decode, self._request_id("1"))
        took_s = turn.start_s + self._now() - began
        return judge_transfer(self._pair, shape, turn, failure, seen, took_s)

    async def _check_write_back(
        self, shape: ChatShape, turn: Turn, tokens: Sequence[int]
    ) -> StageReport:
        began = self._now()
        if turn.error is not None:
            return judge_write_back(self._pair, shape, turn, "not asked", 0.0)
        kept = tokens[: shape.num_pages * shape.page_size]
        seen = await self._ask_until(
            "exists",
            kept,
            self._share(_WRITE_BACK_SHARE),
            lambda reply: (
                reply.state == "detached" or all(page.result == "there" for page in reply.stored)
            ),
        )
        took_s = self._now() - began
        if isinstance(seen, PageReply) and seen.state == "attached":
            seen = await self._look(self._pair.decode, "read", kept, self._deadline)
        return judge_write_back(self._pair, shape, turn, seen, took_s)

    async def _check_reuse(self, shape: ChatShape, tokens: list[int]) -> StageReport:
        """Adds turn 2 to `tokens`."""
        prompt = [*tokens, *self._ids(shape.question)]
        reader = self._pair.reader
        turn = await self._turn("2", prompt, shape.second_answer, reader, "l3_only")
        if turn.started is not None:
            tokens[:] = [*prompt, *turn.ids]
        failure: HandOffFailure | None = None
        if turn.started is not None and turn.started.prefill_node != reader.url:
            failure = await self._probe.hand_off_failure(self._pair.decode, self._request_id("2"))
        stage = judge_reuse(self._pair, shape, turn, failure, None)
        if stage.state == "failed" and failure is None:
            kept = tokens[: shape.num_pages * shape.page_size]
            seen = await self._look(reader, "exists", kept, self._deadline)
            stage = judge_reuse(self._pair, shape, turn, None, seen)
        return stage

    async def _turn(
        self,
        number: str,
        prompt: list[int],
        max_tokens: int,
        prefill: NodeRecord,
        cache: CacheMode,
    ) -> Turn:
        decode = self._pair.decode
        request = GenerateRequest(
            request_id=self._request_id(number),
            prompt=prompt,
            sampling=Sampling(max_tokens=max_tokens, temperature=0.0, ignore_eos=True),
            namespace=decode.namespace,
            generation=decode.generation,
            cache_seed=canary_seed(self._nonce).hex(),
            cache=cache,
            prefills=(PrefillCandidate(url=prefill.url, incarnation=prefill.incarnation),),
            timeout_s=max(self._deadline - self._now(), 0.1),
            returns=True,
        )
        return await self._probe.turn(decode, request, self._deadline)

    async def _ask_until(
        self,
        look: Look,
        tokens: Sequence[int],
        deadline: float,
        is_enough: Callable[[PageReply], bool],
    ) -> Seen:
        """Ask decode again and again; its last reply, at the deadline at the latest."""
        pause_s, longest_s = _ASK_EVERY_S
        num_failed = 0
        while True:
            seen = await self._look(self._pair.decode, look, tokens, deadline)
            num_failed += isinstance(seen, str)
            is_over = self._now() + pause_s >= deadline or num_failed == _MAX_FAILED_LOOKS
            if is_over or (isinstance(seen, PageReply) and is_enough(seen)):
                return seen
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)

    async def _look(
        self, node: NodeRecord, look: Look, tokens: Sequence[int], deadline: float
    ) -> Seen:
        question = PageQuestion(nonce=self._nonce, tokens=list(tokens), look=look)
        return await self._probe.look(node, question, deadline)

    async def _clean_up(self, tokens: Sequence[int]) -> None:
        """L3 is not to fill with canaries; a node that is detached leaves it to the other."""
        deadline = self._now() + _CLEAN_UP_S
        page_size = self._pair.decode.page_size
        num_pages, last = len(tokens) // page_size, (len(tokens) - 1) // page_size - 1
        removed: set[int] = set()

        def is_enough(reply: PageReply) -> bool:
            """The last page and the tail are stored a moment after their turn's end."""
            gone = [page.result == "removed" for page in reply.stored]
            removed.update(index for index, is_gone in enumerate(gone) if is_gone)
            is_last_gone = last in removed or not removed  # nothing there: nothing will come
            return reply.state != "attached" or (is_last_gone and all(gone[num_pages:]))

        seen = await self._ask_until("remove", tokens, deadline, is_enough)
        if not isinstance(seen, PageReply) or seen.state != "attached":
            await self._look(self._pair.reader, "remove", tokens, deadline)

    def _share(self, part: float) -> float:
        now = self._now()
        return now + part * max(self._deadline - now, 0.0)

    def _ids(self, count: int) -> list[int]:
        # Neither the special tokens that begin or end most vocabularies, nor padding behind it.
        return self._random.choices(range(self._vocab_size // 8, self._vocab_size // 2), k=count)

    def _request_id(self, number: str) -> str:
        return f"canary-{self._nonce}-{number}"

    @staticmethod
    def _room(node: NodeRecord) -> int:
        pool = node.load.total_pages * node.page_size
        return min(size for size in (node.max_context, pool, 1 << 20) if size > 0)

    def _report(
        self, stages: tuple[StageReport, ...], shape: ChatShape | None = None
    ) -> PairReport:
        pair = self._pair
        return PairReport(
            decode=pair.decode.url,
            prefill=pair.prefill.url,
            reader=pair.reader.url,
            stages=stages,
            page_size=pair.decode.page_size,
            prompt_tokens=shape.prompt if shape else 0,
            answer_tokens=shape.answer if shape else 0,
            note=shape.note if shape else None,
        )
