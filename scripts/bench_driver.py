# ruff: noqa: INP001
"""What the benchmark's driver adds to the times that it reports, by number of streams.

    python scripts/bench_driver.py --streams 1,50,500

A stub server in a process of its own answers at once: the first token when it has read the request,
the others at a steady interval. Requests start evenly spread, so that as many streams as asked for
are open all along. The first token's time that the driver reports is then its own cost, and the
stub's. A control, a third process with a bare blocking socket, asks the same stub at the same time
and tells how long that alone takes. Exit status 1 if a median reaches the bar of 5 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from rich.console import Console
from rich.table import Table

from kvloop.benchmark.arms import Segment
from kvloop.benchmark.driver.api import open_session
from kvloop.benchmark.driver.drive import drive
from kvloop.benchmark.driver.driven import Driven
from kvloop.benchmark.driver.loop import new_event_loop
from kvloop.benchmark.driver.options import DriveOptions
from kvloop.benchmark.driver.target import Target
from kvloop.benchmark.results.stats import percentile
from kvloop.benchmark.workloads.plan import Ceiling, Content, Conversation, Said, Turn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from stub_process import running_stub

_BAR_MS = 5.0
_LEAST_REQUESTS = 30
_CONTROL_EVERY_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Steady:
    """A load of one-turn conversations, evenly spread."""

    kind = "steady"
    content: Content = "token-ids"
    ceiling: Ceiling | None = None
    num: int
    every_s: float
    prompt_length: int
    output_length: int

    @cached_property
    def conversations(self) -> Sequence[Conversation]:
        return [
            Conversation(
                turns=(Turn(output_length=self.output_length, at_s=number * self.every_s),)
            )
            for number in range(self.num)
        ]

    def say(self, conversation: int, turn: int) -> Said:
        return Said(ids=tuple(range(1000 + conversation, 1000 + conversation + self.prompt_length)))

    def describe(self) -> Mapping[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number of streams; milliseconds."""

    streams: int
    most_streams: int
    requests: int
    failed: int
    ttft_p50: float
    ttft_p99: float
    control_p50: float
    control_p99: float
    itl_p50: float
    itl_p99: float
    lag_p50: float
    lag_p99: float
    cpu_share: float
    stub_cpu_share: float
    is_bottleneck: bool


def main() -> int:
    args = _parse()
    if args.control is not None:
        _control(args.control, args.seconds)
        return 0
    rows = [_measure(streams, args) for streams in args.streams]
    loop = _loop(args)()
    name = type(loop).__module__.split(".")[0]
    loop.close()
    print(f"{_hardware()}; loop {name}; every {args.interval_ms:g} ms a token of each stream")
    _show(rows)
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 1 if any(row.failed or row.ttft_p50 >= _BAR_MS for row in rows) else 0


def _measure(streams: int, args: argparse.Namespace) -> Row:
    # Few streams are short ones, so that there are enough of them to tell.
    stream_s = min(args.stream_s, streams * args.seconds / _LEAST_REQUESTS)
    tokens = max(round(stream_s * 1000 / args.interval_ms), 2)
    load = Steady(
        num=round(streams * args.seconds / stream_s),
        every_s=stream_s / streams,
        prompt_length=args.prompt,
        output_length=tokens,
    )
    with running_stub("--interval-ms", str(args.interval_ms)) as stub:
        control = subprocess.Popen(
            [sys.executable, __file__, "--control", stub.url, "--seconds", str(args.seconds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        with asyncio.Runner(loop_factory=_loop(args)) as runner:
            driven = runner.run(_drive(stub.url, load))
        controls = sorted(json.loads(control.communicate(timeout=60)[0]))
        seen = stub.seen()
    return _row(streams, driven, controls, seen)


def _loop(args: argparse.Namespace) -> Callable[[], asyncio.AbstractEventLoop]:
    return asyncio.new_event_loop if args.plain_loop else new_event_loop


async def _drive(url: str, load: Steady) -> Driven:
    segment = Segment(
        arm="on", step=0, round=0, conversations=tuple(range(load.num)), salt="bench-driver"
    )
    async with open_session() as http:
        target = Target(url=url, model="stub")
        return await drive(http, target, load, [segment], DriveOptions())


def _row(streams: int, driven: Driven, controls: list[float], seen: dict[str, Any]) -> Row:
    # Until the first streams end, there are fewer of them than asked for.
    full_at = driven.samples[0].ended_at if len(driven.samples) > streams else 0.0
    measured = [one for one in driven.samples if one.sent_at >= full_at * 0.9] or driven.samples
    ttft = sorted(one.ttft_s * 1000 for one in measured)
    itl = sorted(gap * 1000 for one in measured for gap in one.itl_s)
    lag = driven.cost.lag_ms
    assert lag is not None
    return Row(
        streams=streams,
        most_streams=driven.cost.most_streams,
        requests=len(measured),
        failed=len(driven.failures),
        ttft_p50=percentile(ttft, 0.5),
        ttft_p99=percentile(ttft, 0.99),
        control_p50=percentile(controls, 0.5),
        control_p99=percentile(controls, 0.99),
        itl_p50=percentile(itl, 0.5),
        itl_p99=percentile(itl, 0.99),
        lag_p50=lag.p50,
        lag_p99=lag.p99,
        cpu_share=driven.cost.cpu_share,
        stub_cpu_share=seen["cpu_s"] / driven.duration_s,
        is_bottleneck=driven.cost.is_bottleneck,
    )


def _control(url: str, seconds: float) -> None:
    """Ask for one token again and again over new connections; print the times, in ms, as JSON."""
    place = urlsplit(url)
    body = msgspec.json.encode(
        {"prompt": [1, 2, 3], "max_tokens": 1, "stream": True, "return_token_ids": True}
    )
    request = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    times, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        began_at = time.monotonic()
        with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
            connection.sendall(request + body)
            heard = b""
            while b"data:" not in heard:
                heard += connection.recv(65536)
            times.append((time.monotonic() - began_at) * 1000)
        time.sleep(_CONTROL_EVERY_S)
    print(json.dumps(times))


def _show(rows: Sequence[Row]) -> None:
    table = Table()
    for head in (
        "streams",
        "at once",
        "requests",
        "failed",
        "TTFT p50 / p99 ms",
        "bare socket",
        "ITL",
        "loop late by",
        "CPU",
        "stub's",
        "bottleneck",
    ):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(
            str(row.streams),
            str(row.most_streams),
            str(row.requests),
            str(row.failed),
            f"{row.ttft_p50:.2f} / {row.ttft_p99:.2f}",
            f"{row.control_p50:.2f} / {row.control_p99:.2f}",
            f"{row.itl_p50:.1f} / {row.itl_p99:.1f}",
            f"{row.lag_p50:.2f} / {row.lag_p99:.2f}",
            f"{row.cpu_share:.0%}",
            f"{row.stub_cpu_share:.0%}",
            "yes" if row.is_bottleneck else "no",
        )
    Console(width=130).print(table)


def _hardware() -> str:
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    load = os.getloadavg()[0]
    return f"{len(os.sched_getaffinity(0))} cores, {model}, load {load:.1f}"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flag = parser.add_argument
    flag("--streams", type=_numbers, default=(1, 50, 500), metavar="N,N", help="at once")
    flag("--seconds", type=float, default=15.0, help="during which streams start")
    flag("--stream-s", type=float, default=5.0, help="how long one lasts")
    flag("--interval-ms", type=float, default=100.0, help="between a stream's tokens")
    flag("--prompt", type=int, default=250, help="ids of a prompt")
    flag("--plain-loop", action="store_true", help="asyncio's own, even where uvloop is there")
    flag("--json", type=Path, metavar="FILE", help="write the rows here")
    flag("--control", metavar="URL", help=argparse.SUPPRESS)
    return parser.parse_args()


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split(","))
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"must be numbers above 0, got {text}")
    return numbers


if __name__ == "__main__":
    sys.exit(main())
