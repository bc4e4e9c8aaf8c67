"""Holds the conversations of one segment."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kvloop.benchmark.arms import Segment
from kvloop.benchmark.driver.bad_answer import BadAnswer
from kvloop.benchmark.driver.body import build_body
from kvloop.benchmark.driver.forks import Forks, Standing
from kvloop.benchmark.driver.gate import Gate
from kvloop.benchmark.driver.heads import Heads, head_of
from kvloop.benchmark.driver.history import new_history
from kvloop.benchmark.driver.options import DriveOptions
from kvloop.benchmark.driver.outcome import Place, Plan, to_failure, to_sample
from kvloop.benchmark.driver.pace import Pace
from kvloop.benchmark.driver.target import Target
from kvloop.benchmark.sample import Failure, Sample
from kvloop.benchmark.workloads.plan import Conversation, Said, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What all segments of a run share."""

    target: Target
    workload: Workload
    conversations: Sequence[Conversation]
    """The workload's, looked up once: a workload may make them anew."""
    options: DriveOptions
    heads: Heads
    gate: Gate
    on_outcome: Callable[[Sample | Failure], None]
    start: float
    """The run's, of `time.monotonic`."""

    def is_next_whole(self, number: int, index: int) -> bool:
        """Whether a conversation's turn after its own turn `index` needs no history."""
        has_next = index + 1 < len(self.conversations[number].turns)
        return has_next and self.workload.say(number, index + 2).is_whole


class Holder:
    """One segment: one arm alone."""

    def __init__(self, course: Course, segment: Segment) -> None:
        self._course, self._segment = course, segment
        conversations, options = course.conversations, course.options
        self._forks = Forks(conversations, segment.conversations)
        self._pace = Pace(conversations, segment, options)
        most = options.clients
        self._clients = contextlib.nullcontext() if most is None else asyncio.Semaphore(most)
        self._began_at = time.monotonic()

    async def hold(self) -> None:
        """All conversations, to their ends."""
        async with asyncio.TaskGroup() as tasks:
            for number in self._segment.conversations:
                tasks.create_task(self._hold(number))

    async def _hold(self, number: int) -> None:
        try:
            standing = await self._begin(number)
            if standing is None:
                return  # its parent did not come so far
            await self._sleep(number, 0, standing)
            async with self._clients:
                for index in range(len(self._course.conversations[number].turns)):
                    if index:
                        await self._sleep(number, index, standing)
                    standing = await self._turn_or_gap(number, index, standing)
        except BadAnswer:
            return  # counted; without this answer the later turns would be another conversation
        finally:
            self._forks.end(number)

    async def _begin(self, number: int) -> Standing | None:
        branch = self._course.conversations[number].branch
        if branch is not None:
            return await self._forks.wait(branch)
        return Standing(history=new_history(self._course.workload.content))

    async def _sleep(self, number: int, index: int, standing: Standing) -> None:
        """Until a turn is due and its client has thought."""
        due_s = self._pace.due_s(number, index, standing.answered_s) or 0.0
        free_s = self._pace.free_s(number, index, standing.answered_s)
        left_s = max(due_s, free_s) - self._now_s()
        if left_s > 0:
            await asyncio.sleep(left_s)

    async def _turn_or_gap(self, number: int, index: int, standing: Standing) -> Standing:
        """A turn that failed, and is counted, is a gap where the next turn says all by itself."""
        try:
            return await self._turn(number, index, standing)
        except BadAnswer:
            if not self._course.is_next_whole(number, index):
                raise
            return Standing(
                history=new_history(self._course.workload.content),
                turns=standing.turns + 1,
                answered_s=self._now_s(),
            )

    async def _turn(self, number: int, index: int, standing: Standing) -> Standing:
        """Say a turn and hear its answer; raises BadAnswer once that is counted."""
        course = self._course
        place = self._place(number, standing.turns + 1)
        said = course.workload.say(number, index + 1)
        plan = self._plan(number, index, standing, said)
        body = self._body(place, plan, standing.history.say(said))
        try:
            exchange = await course.gate.ask(body)
            if self._goes_on(number, index, place.turn):
                standing.history.hear(said, exchange.answer)
            sample = to_sample(place, plan, exchange, course.start)
        except BadAnswer as error:
            course.on_outcome(to_failure(place, error, time.monotonic() - course.start))
            raise
        course.on_outcome(sample)
        after = self._after(standing, said, sample, exchange.ended_at - self._began_at)
        self._forks.offer(number, after)
        return after

    def _place(self, number: int, turn: int) -> Place:
        segment = self._segment
        return Place(
            conversation=number,
            turn=turn,
            arm=segment.arm,
            step=segment.step,
            round=segment.round,
        )

    def _plan(self, number: int, index: int, standing: Standing, said: Said) -> Plan:
        now_s = self._now_s()
        due_s = self._pace.due_s(number, index, standing.answered_s)
        repeated = standing.history.num_repeated(said)
        reusable = min(standing.reusable_tokens, math.inf if repeated is None else repeated)
        return Plan(
            due_at=self._began_at + (now_s if due_s is None else due_s),
            ready_at=self._began_at + now_s,
            output_length=self._course.conversations[number].turns[index].output_length,
            reusable_tokens=0 if self._segment.arm == "all_miss" else int(reusable),
        )

    def _body(self, place: Place, plan: Plan, prompt: Sequence[Any]) -> dict[str, Any]:
        course, segment = self._course, self._segment
        head = head_of(segment, course.target.salting, place.conversation, place.turn)
        return build_body(
            course.target,
            prompt if head is None else course.heads.put(prompt, head),
            output_length=plan.output_length,
            salt=segment.salt,
            arm=segment.arm,
        )

    def _goes_on(self, number: int, index: int, turn: int) -> bool:
        """Whether the answer is needed: by the next turn, or by a branch."""
        num_turns = len(self._course.conversations[number].turns)
        return index + 1 < num_turns or self._forks.is_awaited(number, turn)

    def _after(self, standing: Standing, said: Said, sample: Sample, answered_s: float) -> Standing:
        # The last sampled token has no KV; a recorded answer's tokens are not those generated.
        heard = 0 if said.answer is not None else max(sample.completion_tokens - 1, 0)
        return Standing(
            history=standing.history,
            turns=sample.turn,
            reusable_tokens=sample.prompt_tokens + heard,
            answered_s=answered_s,
        )

    def _now_s(self) -> float:
        return time.monotonic() - self._began_at
