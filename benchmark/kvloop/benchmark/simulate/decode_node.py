"""One simulated decode node: pages are reserved, answers grow by a token a step, all together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import ceil, sqrt

from kvloop.benchmark.simulate.clock import Clock, Event
from kvloop.benchmark.simulate.decode_pool import DecodePool
from kvloop.benchmark.simulate.job import Job
from kvloop.benchmark.simulate.profile import Profile


class DecodeNode:
    """Steps in which nobody joins or leaves are taken as one.

    `reserved` is called when a prompt may be computed, `answered` when its answer is whole.
    """

    def __init__(
        self,
        clock: Clock,
        profile: Profile,
        pool: DecodePool,
        *,
        page_size: int,
        slowdown: Callable[[], float],
        busy_changed: Callable[[], None],
        reserved: Callable[[Job], None],
        answered: Callable[[Job], None],
    ) -> None:
        self.pool = pool
        self._clock, self._profile, self._page_size = clock, profile, page_size
        self._slowdown, self._busy_changed = slowdown, busy_changed
        self._reserved, self._answered = reserved, answered
        self._waiting: deque[Job] = deque()
        self._num_active = 0
        self._joining: list[Job] = []
        self._running: list[Job] = []
        self._context = 0
        """Tokens with KV of all that run."""
        self._run_at = 0.0
        self._num_steps = 0
        self._factor = 1.0
        self._end: Event | None = None
        self.busy_s = 0.0
        self.num_steps = 0
        self.num_tokens = 0

    @property
    def load(self) -> int:
        """Requests that this node owns."""
        return len(self._waiting) + self._num_active

    @property
    def is_busy(self) -> bool:
        """Whether it computes."""
        return bool(self._running)

    def add(self, job: Job) -> None:
        """A request that was routed here."""
        self._waiting.append(job)
        self._admit()

    def begin(self, job: Job) -> None:
        """Its prompt's KV and its first token are here."""
        assert job.held is not None
        job.first_at = self._clock.now
        job.num_left = job.prompt.output_length - 1
        self.pool.publish(job.held, job.keys[: job.num_full])
        if not job.num_left:
            self._leave(job)
            return
        self._joining.append(job)
        self.interrupt()

    # --- pages --------------------------------------------------------------------------------

    def _admit(self) -> None:
        now = self._clock.now
        for job in list(self._waiting):
            if self._num_active >= self._profile.max_running:
                return
            if job.early_until > now:
                self._clock.at(job.early_until, self._admit)
                continue
            num_tokens = job.prompt.num_tokens + job.prompt.output_length
            readable = job.keys[: min(job.prompt.num_readable, job.num_full)]
            job.held = self.pool.reserve(readable, -(-num_tokens // self._page_size))
            if job.held is None:
                return
            self._waiting.remove(job)
            self._num_active += 1
            job.num_held, job.reserved_at = len(job.held.keys), now
            self._reserved(job)

    def _leave(self, job: Job) -> None:
        assert job.held is not None
        self.pool.publish(job.held, job.after_keys)
        self.pool.release(job.held)
        self._num_active -= 1
        self._answered(job)
        self._admit()

    # --- steps --------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Somebody joins, or steps take longer or shorter from the next one on."""
        if not self._running:
            self._plan(self._clock.now)
            return
        num = self._steps_by(self._clock.now - self._run_at)
        if num < self._num_steps:
            ended_at = self._advance(num)
            self._plan(ended_at)

    def _plan(self, now: float) -> None:
        """All steps until the first answer is whole."""
        was_busy = self.is_busy
        self._running += self._joining
        self._context += sum(job.prompt.num_tokens for job in self._joining)
        self._joining = []
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if self._running:
            self._run_at, self._factor = now, 1 + self._slowdown()
            self._num_steps = min(job.num_left for job in self._running)
            self._end = self._clock.at(now + self._seconds(self._num_steps), self._ended)
        if was_busy != self.is_busy:
            self._busy_changed()

    def _ended(self) -> None:
        was_busy = self.is_busy
        self._end = None
        self._advance(self._num_steps)
        self._num_steps = 0  # nothing is planned: whoever interrupts now changes nothing
        done = [job for job in self._running if not job.num_left]
        self._running = [job for job in self._running if job.num_left]
        for job in done:
            self._context -= job.prompt.num_tokens + job.prompt.output_length - 1
        for job in done:
            self._leave(job)
        self._plan(self._clock.now)
        if was_busy and not self.is_busy:
            self._busy_changed()

    def _advance(self, num: int) -> float:
        """So many steps of those planned have been made; when the last of them ended, or will."""
        seconds = self._seconds(num)
        for job in self._running:
            job.num_left -= num
        self._context += num * len(self._running)
        self.busy_s += seconds
        self.num_steps += num
        self.num_tokens += num * len(self._running)
        return self._run_at + seconds

    def _costs(self) -> tuple[float, float]:
        """The first step's seconds, and by how much each further one is longer."""
        num, each = len(self._running), self._profile.decode_context_s
        first = self._profile.decode_base_s(num) + each * self._context
        return first * self._factor, each * num * self._factor

    def _seconds(self, num: int) -> float:
        first, more = self._costs()
        return num * first + more * num * (num - 1) / 2

    def _steps_by(self, seconds: float) -> int:
        """Steps that have ended, or are under way, after so many seconds."""
        if seconds <= 0:
            return 0
        first, more = self._costs()
        if more < 1e-12 * first:
            return ceil(seconds / first)
        root = first - more / 2
        num = (sqrt(root * root + 2 * more * seconds) - root) / more
        return max(ceil(num - 1e-9), 0)
