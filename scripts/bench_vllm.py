#!/usr/bin/env python3
"""The same multi-turn load on kvloop and on vLLM's CPU build, turn and turn about.

Both servers are started once, on loopback, with the same weights; then each pair of runs gives
both the same conversations (under a seed of its own, so that turn 1 is cold), one after the other,
in changing order. While one is measured the other has no requests. Ends with medians and ratios,
and leaves each run's JSON and a summary in --out.

    .venv/bin/python scripts/bench_vllm.py --vllm-python VENV/bin/python --out results

vLLM is tuned for a small CPU: all cores bound, room for all KV, blocks of 32 tokens, prefix
caching on. Its documentation asks for tcmalloc and Intel's OpenMP: name them with --preload.
float32 is its faster type on CPUs without bf16 units.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READY_S = 900.0
STOP_S = 20.0
BAR = 1.05


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a run's arm `on`; `is_rate`: more is better."""

    name: str
    read: Callable[[dict[str, Any]], float]
    is_rate: bool = False

    def cost(self, kvloop: float, vllm: float) -> float:
        """kvloop's cost in units of vLLM's: above 1 is worse."""
        return vllm / kvloop if self.is_rate else kvloop / vllm


METRICS = (
    Metric("later turns' TTFT, median, ms", lambda on: on["later_turns"]["ttft_ms"]["p50"]),
    Metric("later turns' TTFT, mean, ms", lambda on: on["later_turns"]["ttft_ms"]["mean"]),
    Metric("later turns' ITL, median, ms", lambda on: on["later_turns"]["itl_ms"]["p50"]),
    Metric("output tokens/s", lambda on: on["rates"]["output_tokens_per_s"], is_rate=True),
    Metric("later turns' hit rate", lambda on: on["later_turns"]["hit_rate"], is_rate=True),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flag = parser.add_argument
    flag("--vllm-python", type=Path, required=True, help="python of vLLM's own environment")
    flag("--out", type=Path, required=True, help="directory for the results")
    flag("--model", default="smollm2", help="as kvloop's --model; vLLM reads the converted one")
    flag("--vllm-dtype", default="float32", choices=("float32", "bfloat16"))
    flag("--vllm-flag", action="append", default=[], help="one more flag of vLLM; repeat it")
    flag("--preload", action="append", default=[], help="library for vLLM's LD_PRELOAD; repeat it")
    flag("--kv-gib", type=int, default=4, help="vLLM's room for KV")
    flag("--up-flag", action="append", default=[], help="one more flag of kvloop up; repeat it")
    flag("--runs", type=int, default=5, help="runs of each (default 5)")
    flag("--clients", type=int, default=4)
    flag("--turns", type=int, default=5)
    flag("--request-length", type=int, default=250)
    flag("--output-length", type=int, default=32)
    flag("--max-in-flight", type=int, default=2)
    flag("--seed", type=int, default=0, help="of the first pair of runs")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        urls = {
            "kvloop": stack.enter_context(kvloop_serving(args)),
            "vllm": stack.enter_context(vllm_serving(args)),
        }
        runs = measure(args, urls)
    metrics = compare(runs)
    summary = {"hardware": hardware(), "arguments": sys.argv[1:], "metrics": metrics}
    (args.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    show(metrics)
    return 0


def measure(args: argparse.Namespace, urls: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in urls}
    for pair in range(args.runs):
        order = list(urls) if pair % 2 == 0 else list(reversed(urls))
        for name in order:
            runs[name].append(one_run(args, name, urls[name], pair))
    return runs


def one_run(args: argparse.Namespace, name: str, url: str, pair: int) -> dict[str, Any]:
    target = args.out / f"{name}-{pair}.json"
    load = [f"{os.getloadavg()[0]:.1f} load average before"]
    argv = [
        sys.executable,
        "-P",
        "-m",
        "kvloop.cli",
        "bench",
        "multi-turn",
        url,
        "--arms",
        "on",
        "--json",
        str(target),
    ]
    for flag in ("clients", "turns", "request_length", "output_length", "max_in_flight"):
        argv += [f"--{flag.replace('_', '-')}", str(getattr(args, flag))]
    subprocess.run([*argv, "--seed", str(args.seed + pair)], check=True, stdout=subprocess.DEVNULL)
    (result,) = json.loads(target.read_text())["arms"]
    numbers = [f"{metric.name} {metric.read(result):.3g}" for metric in METRICS]
    print(f"{name} {pair}: {'; '.join(numbers + load)}", flush=True)
    return dict(result)


def compare(runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """For each metric the medians of both and of the pairs' ratios."""
    return [_compare(metric, runs["kvloop"], runs["vllm"]) for metric in METRICS]


def _compare(metric: Metric, kvloop: Sequence[Any], vllm: Sequence[Any]) -> dict[str, Any]:
    ours, theirs = [metric.read(run) for run in kvloop], [metric.read(run) for run in vllm]
    costs = [metric.cost(a, b) for a, b in zip(ours, theirs, strict=True)]
    return {
        "metric": metric.name,
        "kvloop": statistics.median(ours),
        "vllm": statistics.median(theirs),
        "cost": statistics.median(costs),
        "costs": costs,
    }


def show(rows: Sequence[dict[str, Any]]) -> None:
    print(f"\nmedians; cost is kvloop's in units of vLLM's (below 1: kvloop is better; bar {BAR})")
    print(f"{'':32} {'kvloop':>9} {'vLLM':>9} {'cost':>7}   of each pair")
    for row in rows:
        each = " ".join(f"{cost:.2f}" for cost in row["costs"])
        numbers = f"{row['kvloop']:9.3g} {row['vllm']:9.3g} {row['cost']:7.2f}"
        print(f"{row['metric']:32} {numbers}   {each}")


def hardware() -> dict[str, Any]:
    names = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {"cpu": names[0].partition(":")[2].strip() if names else "?", "cores": os.cpu_count()}


@contextmanager
def kvloop_serving(args: argparse.Namespace) -> Iterator[str]:
    port = free_port()
    argv = [
        sys.executable,
        "-P",
        "-m",
        "kvloop.cli",
        "up",
        "--model",
        args.model,
        "--port",
        str(port),
    ]
    url = f"http://127.0.0.1:{port}"
    with running("kvloop", [*argv, *args.up_flag], dict(os.environ), args.out) as (process, log):
        # Its own chat is over then: nothing but the benchmark's load is left.
        wait_for(process, log, lambda: "serving at" in log.read_text(errors="replace"))
        yield url


@contextmanager
def vllm_serving(args: argparse.Namespace) -> Iterator[str]:
    from kvloop.engine.model_files import resolve_model

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{(os.cpu_count() or 1) - 1}",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "VLLM_CPU_KVCACHE_SPACE": str(args.kv_gib),
        "LD_PRELOAD": ":".join(args.preload),
    }
    # Both dtypes from the same bf16 weights, which are kvloop's.
    model = resolve_model(args.model, "bfloat16").directory
    argv = [str(args.vllm_python), "-m", "vllm.entrypoints.openai.api_server"]
    argv += ["--model", str(model), "--served-model-name", "m", "--dtype", args.vllm_dtype]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--block-size", "32"]
    argv += ["--enable-prefix-caching", "--enable-prompt-tokens-details", *args.vllm_flag]
    with running("vllm", argv, environment, args.out) as (process, log):
        wait_for(process, log, lambda: answers(f"{url}/health"))
        yield url


@contextmanager
def running(
    name: str, argv: Sequence[str], environment: dict[str, str], out: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A server in a process group of its own, which is gone at the end."""
    path = out / f"{name}.log"
    print(f"starting {name} (log: {path})", flush=True)
    with path.open("wb") as log:
        process = subprocess.Popen(
            argv,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process, path
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL to the group at the deadline. The group is the process's own."""
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline:
        # WNOWAIT: unreaped, its group number cannot become another's.
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(process: subprocess.Popen[bytes], log: Path, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_S
    while not is_ready():
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            raise SystemExit(f"the server ended at its start:\n{log.read_text()[-2000:]}")
        if time.monotonic() > deadline:
            raise SystemExit(f"the server was not ready in {READY_S:.0f} s; see {log}")
        time.sleep(0.5)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    raise SystemExit(main())
