"""One simulated prefill node: a queue, steps over chunks of prompts, pages pushed to decode."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvloop.benchmark.simulate.clock import Clock, Event
from kvloop.benchmark.simulate.job import Job
from kvloop.benchmark.simulate.link import Link, send_through
from kvloop.benchmark.simulate.prefill_cache import PrefillCache
from kvloop.benchmark.simulate.profile import Profile
from kvloop.benchmark.simulate.prompt import Sharing

_LOOK_AGAIN_S = 0.02
"""Until a prompt that waits for its pages is asked again whether it should."""


@dataclass(slots=True, kw_only=True)
class Step:
    """Chunks that are computed together."""

    chosen: list[tuple[Job, int]]
    began_at: float
    is_loading: bool
    """Whether it waits for pages from L2."""
    left_s: float
    """Of its work, at `paced_at`, if nobody shared the device."""
    factor: float
    """By how much longer it takes now."""
    paced_at: float

    @property
    def ends_at(self) -> float:
        return self.paced_at + self.left_s * self.factor

    def pace(self, now: float, factor: float) -> None:
        """From now on it takes another time."""
        self.left_s = max(self.left_s - (now - self.paced_at) / self.factor, 0.0)
        self.paced_at, self.factor = now, factor


class PrefillNode:
    """`sent` is called when a prompt's first token and all its KV are with decode.

    `out` is its own way to the network, `into` those of the decode nodes, by number.
    """

    def __init__(
        self,
        clock: Clock,
        profile: Profile,
        cache: PrefillCache,
        *,
        page_size: int,
        sharing: Sharing,
        out: Link,
        into: Sequence[Link],
        slowdown: Callable[[], float],
        busy_changed: Callable[[], None],
        sent: Callable[[Job], None],
    ) -> None:
        self.cache, self.out, self._into = cache, out, into
        self._clock, self._profile, self._page_size = clock, profile, page_size
        self._is_traced = sharing == "as_traced"
        self._slowdown, self._busy_changed, self._sent = slowdown, busy_changed, sent
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._num_sending = 0
        self._alarm: Event | None = None
        self._step: Step | None = None
        self._ending: Event | None = None
        self.busy_s = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether it computes."""
        return self._step is not None

    @property
    def load(self) -> int:
        """Prompts that wait, are computed or sent."""
        return len(self._waiting) + len(self._running) + self._num_sending

    def add(self, job: Job) -> None:
        """A prompt whose pages decode has reserved."""
        self._waiting.append(job)
        if not self._is_traced:
            self.cache.look_up(job)
        self.wake()

    def wake(self) -> None:
        """Begin a step, if there is anything to compute."""
        if self.is_busy:
            return
        self._admit()
        chosen = self._plan()
        if chosen:
            self._begin(chosen)

    # --- which prompts ------------------------------------------------------------------------

    def _admit(self) -> None:
        for job in list(self._waiting):
            if len(self._running) >= self._profile.max_running:
                return
            if self._waits(job):
                continue
            if not self._is_traced and not self.cache.place(job, self._num_pages(job)):
                return
            cached = min(len(job.sources) * self._page_size, job.prompt.num_tokens - 1)
            job.num_done = cached  # at least the last token is computed
            self._waiting.remove(job)
            self._running.append(job)

    def _waits(self, job: Job) -> bool:
        if not self._is_traced:
            if self.cache.waits(job):
                self._look_again(self._clock.now + _LOOK_AGAIN_S)
                return True
            return False
        if job.maker is not None:
            return True
        if job.ready_at > self._clock.now:
            self._look_again(job.ready_at)
            return True
        return False

    def _look_again(self, when: float) -> None:
        if self._alarm is not None:
            if self._alarm.at <= when:
                return
            self._alarm.cancel()
        self._alarm = self._clock.at(when, self._alarmed)

    def _alarmed(self) -> None:
        self._alarm = None
        self.wake()

    def _plan(self) -> list[tuple[Job, int]]:
        """Tokens of each prompt in the next step, oldest first, by the engine's rule."""
        chosen: list[tuple[Job, int]] = []
        room = self._profile.chunk_tokens
        for job in self._running:
            num = self._profile.chunk_tokens - room
            if chosen and num >= self._profile.enough_tokens:
                break
            rest = job.prompt.num_tokens - job.num_done
            take = rest if rest <= room else self._whole_pages(job.num_done, room)
            if take:
                chosen.append((job, take))
                room -= take
        return chosen

    def _whole_pages(self, num_done: int, room: int) -> int:
        # a chunk that is smaller than a page still has to go on
        return (num_done + room) // self._page_size * self._page_size - num_done or room

    def _num_pages(self, job: Job) -> int:
        return -(-job.prompt.num_tokens // self._page_size)

    # --- computing ----------------------------------------------------------------------------

    def interrupt(self) -> None:
        """The step under way takes longer or shorter from now on."""
        if self._step is not None:
            self._step.pace(self._clock.now, 1 + self._slowdown())
            self._plan_end(self._step)

    def _begin(self, chosen: list[tuple[Job, int]]) -> None:
        now = self._clock.now
        seconds = self._profile.prefill_step_s([(take, job.num_done) for job, take in chosen])
        fresh = [job for job, _ in chosen if job.computing_at is None]
        seconds += len(fresh) * self._profile.prefill_request_s
        computing_s, factor = seconds, 1 + self._slowdown()
        for job in fresh:
            job.computing_at = now
            if job.loaded_at > now:  # a layer is computed when its pages are in
                last_s = computing_s / self._profile.layers
                seconds = max(seconds, (job.loaded_at - now) / factor + last_s)
        for job, take in chosen:
            self._push(job, take)
        self._step = Step(
            chosen=chosen,
            began_at=now,
            is_loading=seconds > computing_s,
            left_s=seconds,
            factor=factor,
            paced_at=now,
        )
        self._plan_end(self._step)
        self._busy_changed()

    def _plan_end(self, step: Step) -> None:
        if self._ending is not None:
            self._ending.cancel()
        self._ending = self._clock.at(step.ends_at, self._end)

    def _push(self, job: Job, take: int) -> None:
        """Layer by layer while it is computed; what was cached goes with the first step."""
        first = 0 if job.computing_at == self._clock.now else job.num_done
        first = max(first, job.num_held * self._page_size)  # decode has these, found or computed
        num_bytes = max(job.num_done + take - first, 0) * self._profile.kv_bytes_per_token
        job.last_layer_s = num_bytes / self._profile.layers / self.out.bytes_per_s
        ways = (self.out, self._into[job.decode])
        job.sent_at = send_through(ways, self._clock.now, num_bytes)

    def _end(self) -> None:
        step, now = self._step, self._clock.now
        assert step is not None
        self._step = self._ending = None
        self.busy_s += now - step.began_at
        if not step.is_loading:
            num_tokens = sum(take for _, take in step.chosen)
            self.cache.rates.computed(num_tokens, now - step.began_at)
        for job, take in step.chosen:
            job.num_done += take
        done = [job for job, _ in step.chosen if job.num_done == job.prompt.num_tokens]
        for job in done:
            job.sent_at = max(job.sent_at, now + job.last_layer_s)
            self._finish(job)
        for wake in [wake for job in done for wake in job.dependents]:
            wake()
        self._busy_changed()
        self.wake()

    def _finish(self, job: Job) -> None:
        job.computed_at = self._clock.now
        self._running.remove(job)
        self._num_sending += 1
        if not self._is_traced:
            self.cache.publish(job)
        self._clock.at(job.sent_at, lambda: self._leave(job))

    def _leave(self, job: Job) -> None:
        self._num_sending -= 1
        if not self._is_traced:
            self.cache.release(job)
        self._sent(job)
        self.wake()
