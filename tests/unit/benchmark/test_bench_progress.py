"""What a run shows while it runs."""

import io
import time
from collections.abc import Iterator

import pytest
from bench_reports import MadeUpLoad, Run, Shape, make_run, planned
from rich.console import Console

from kvloop.benchmark.arms import Segment
from kvloop.benchmark.driver.listener import Listener
from kvloop.benchmark.page import units
from kvloop.benchmark.progress import LiveProgress
from kvloop.benchmark.sample import Failure
from kvloop.benchmark.tally import LATEST, Tally

SHAPE = Shape(arms=("on", "bypassed"), conversations=8, turns=3, rounds=2, clients=2)


class Clock:
    """Goes on when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def made() -> Run:
    return make_run(1, SHAPE)


def plan(run: Run) -> list[Segment]:
    return [planned(SHAPE, segment) for segment in run.segments]


def hold(listener: Listener, run: Run, segments: int, outcomes: int | None = None) -> None:
    """Tell of whole segments, and of the first `outcomes` of the next."""
    for number, (segment, result) in enumerate(zip(plan(run), run.segments, strict=True)):
        mine = [s for s in run.samples if (s.arm, s.round) == (segment.arm, segment.round)]
        if number < segments:
            listener.began(segment)
            for sample in mine:
                listener.sent()
                listener.outcome(sample)
            listener.ended(result)
        elif number == segments and outcomes is not None:
            listener.began(segment)
            for sample in mine[:outcomes]:
                listener.sent()
                listener.outcome(sample)


def failure(kind: str) -> Failure:
    return Failure(conversation=0, turn=1, kind=kind, message="", arm="on")


def progress(run: Run, clock: Clock, *, is_terminal: bool = True, **options: float) -> LiveProgress:
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=100, record=True)
    return LiveProgress(console, MadeUpLoad(shape=SHAPE), plan(run), clock=clock, **options)


def shown(progress: LiveProgress) -> str:
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(progress.picture())
    return console.export_text().replace(units.SPACE, " ")


def test_requests_are_counted_done_failed_and_in_flight(made: Run, clock: Clock) -> None:
    live = progress(made, clock)
    hold(live, made, 0, outcomes=3)
    for _ in range(3):
        live.sent()
    live.outcome(failure("connect"))
    assert "3 of 48 requests, 2 in flight, 1 failed" in shown(live)


def test_arm_and_round_under_way_are_named(made: Run, clock: Clock) -> None:
    live = progress(made, clock)
    hold(live, made, 1, outcomes=1)
    assert "arm bypassed, round 1 of 2" in shown(live)


def test_steps_of_a_sweep_are_named_with_their_rate(clock: Clock) -> None:
    shape = Shape(arms=("on",), conversations=4, turns=2, rounds=1, rates=(1.0, 2.5))
    run = make_run(1, shape)
    segments = [planned(shape, segment) for segment in run.segments]
    live = LiveProgress(Console(file=io.StringIO()), MadeUpLoad(shape=shape), segments, clock=clock)
    live.began(segments[1])
    assert "arm on, step 2 of 2 (2.5 requests/s), round 1 of 1" in live.line()


def test_medians_hits_and_output_rates_run_by_arm(made: Run, clock: Clock) -> None:
    live = progress(made, clock)
    hold(live, made, 4)
    mine = [s for s in made.samples if s.arm == "on"]
    ordered = sorted(s.ttft_s for s in mine)
    median = units.duration(500 * (ordered[11] + ordered[12])).replace(units.SPACE, " ")
    seconds = sum(s.ended_at - s.began_at for s in made.segments if s.arm == "on")
    rate = units.digits(sum(s.completion_tokens for s in mine) / seconds)
    hits = sum(s.cached_tokens or 0 for s in mine) / sum(s.prompt_tokens for s in mine)
    row = next(line for line in shown(live).splitlines() if line.startswith("on "))
    assert row.split() == ["on", "24", "0", *median.split(), f"{100 * hits:.0f}", "%", rate]
    assert any(line.startswith("bypassed") for line in shown(live).splitlines())


def test_an_arm_under_way_has_a_rate_over_its_time_so_far(made: Run, clock: Clock) -> None:
    tally = Tally(MadeUpLoad(shape=SHAPE), plan(made), clock)
    hold(tally, made, 0, outcomes=4)
    clock.now = 8.0
    assert tally.output_rate("on") == 4 * 32 / 8


def test_a_server_that_reports_no_hits_shows_none(clock: Clock) -> None:
    shape = Shape(arms=("on",), conversations=2, turns=2, rounds=1, has_hits=False)
    tally = Tally(MadeUpLoad(shape=shape), (), clock)
    for sample in make_run(1, shape).samples:
        tally.outcome(sample)
    assert tally.arms["on"].hit_rate is None


def test_errors_are_counted_by_kind(made: Run, clock: Clock) -> None:
    live = progress(made, clock)
    for kind in ("connect", "http_429", "http_429"):
        live.outcome(failure(kind))
    assert "errors: http_429 2, connect 1" in shown(live)
    assert "errors: http_429 2, connect 1" in live.line()


def test_the_bar_grows_with_the_requests_that_are_over(made: Run, clock: Clock) -> None:
    live = progress(made, clock)
    hold(live, made, 2)
    assert shown(live).startswith("█" * 15 + "░" * 15 + " ")


def test_many_kinds_of_errors_stay_one_line(made: Run, clock: Clock) -> None:
    live = progress(made, clock)
    for number in range(9):
        live.outcome(failure(f"http_{500 + number}"))
    assert "4 other kinds" in shown(live)
    assert "7 other kinds" in live.line()


def test_off_a_terminal_a_line_is_of_the_arm_under_way_and_short(clock: Clock) -> None:
    shape = Shape(conversations=6, turns=2, rounds=2, rates=(12.5, 25.0), fail_share=0.1)
    run = make_run(1, shape)
    plan = [planned(shape, segment) for segment in run.segments]
    assert len({segment.arm for segment in plan}) == 4
    live = LiveProgress(Console(file=io.StringIO()), MadeUpLoad(shape=shape), plan, clock=clock)
    live.began(plan[0])
    for outcome in (*run.samples, *run.failures):
        live.sent()
        live.outcome(outcome)
    for number in range(9):
        live.outcome(failure(f"http_{500 + number}"))
    clock.now = 36_000.0
    line = live.line()
    assert line.count("TTFT median") == line.count("hit rate") == 1
    assert f"arm {plan[0].arm}, step" in line and "round" in line
    assert len(line) <= 210, line


def test_turns_that_are_never_sent_are_over_with_their_segment(made: Run, clock: Clock) -> None:
    tally = Tally(MadeUpLoad(shape=SHAPE), plan(made), clock)
    tally.began(plan(made)[0])
    tally.ended(made.segments[0])
    assert (tally.over, tally.answered, tally.planned) == (12, 0, 48)


def test_the_time_to_go_follows_the_pace_so_far(made: Run, clock: Clock) -> None:
    live = progress(made, clock)
    clock.now = 100.0
    live.began(plan(made)[0])
    clock.now = 160.0
    hold(live, made, 2)
    assert "1:00, about 1:00 to go" in live.line()


def test_before_the_first_arm_the_run_warms_up_and_between_arms_it_says_so(
    made: Run, clock: Clock
) -> None:
    live = progress(made, clock)
    clock.now = 5.0
    assert "0:00; warming up" in live.line()
    hold(live, made, 1)
    assert "between two arms" in live.line()
    hold(live, made, 4)
    assert live.line().endswith("; done")


def test_a_run_that_was_cut_short_ends_with_these_words(made: Run, clock: Clock) -> None:
    live = progress(made, clock, is_terminal=False)
    with live:
        hold(live, made, 1, outcomes=2)
    assert lines(live)[-1].startswith("14 of 48 requests")
    assert lines(live)[-1].endswith("; ended early")


def test_memory_does_not_grow_with_the_run(made: Run, clock: Clock) -> None:
    tally = Tally(MadeUpLoad(shape=SHAPE), plan(made), clock)
    for _ in range(LATEST + 10):
        tally.outcome(made.samples[0])
    assert len(tally.arms["on"].ttft_s) == LATEST


def test_on_a_terminal_the_picture_is_live_and_gone_at_the_end(made: Run, clock: Clock) -> None:
    live = progress(made, clock)
    with live:
        hold(live, made, 1, outcomes=2)
    written = live._console.file.getvalue()  # type: ignore[attr-defined]
    assert "of 48 requests" not in written.rsplit(ERASE_LINE, 1)[-1]
    assert "14 of 48 requests" in written


ERASE_LINE = "\x1b[2K"


def lines(live: LiveProgress) -> list[str]:
    return live._console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def wait_for_lines(live: LiveProgress, num: int) -> Iterator[str]:
    until = time.monotonic() + 30
    while len(lines(live)) < num:
        assert time.monotonic() < until, f"no {num} lines: {lines(live)}"
        time.sleep(0.01)
    yield from lines(live)


def test_off_a_terminal_lines_come_though_no_request_ends(made: Run, clock: Clock) -> None:
    live = progress(made, clock, is_terminal=False, line_every_s=0.01)
    with live:
        hold(live, made, 0, outcomes=2)
        assert all("of 48 requests" in line for line in wait_for_lines(live, len(lines(live)) + 3))
        last = lines(live)[-1]
    assert last.startswith("2 of 48 requests") and "arm on, round 1 of 2" in last


def test_lines_are_plain_so_that_a_log_can_be_searched(made: Run, clock: Clock) -> None:
    live = progress(made, clock, is_terminal=False)
    hold(live, made, 1, outcomes=2)
    assert " ms" in live.line() and live.line().isascii()


def test_off_a_terminal_the_thread_ends_with_the_run(made: Run, clock: Clock) -> None:
    live = progress(made, clock, is_terminal=False)
    with live:
        pass
    assert not live._lines.is_alive()
    assert lines(live) == [live.line()]


def test_a_run_that_breaks_ends_the_progress(made: Run, clock: Clock) -> None:
    live = progress(made, clock, is_terminal=False)
    with pytest.raises(RuntimeError), live:
        raise RuntimeError
    assert not live._lines.is_alive()
