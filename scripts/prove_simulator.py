# ruff: noqa: INP001
"""Can the simulator be believed? Calibrated on one run of the demo model, checked on another.

    python scripts/prove_simulator.py --out results
    python scripts/prove_simulator.py --out results --again      # simulate the runs that are there

Starts `kvloop up` (one prefill, one decode node, SmolLM2), measures two loads of different shapes
and seeds, fits the device to the first, simulates the second one's own requests and prints both
side by side, by turn and by tier; then the other way round. The exit status is 1 if the median
TTFT of one of them misses by more than --tolerance. Takes about ten minutes on two cores; whatever
else runs on the machine meanwhile is measured too.
"""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KVLOOP = (sys.executable, "-P", "-m", "kvloop.cli")
SHAPES = {
    "calibration": (
        *("--conversations", "8", "--turns", "5", "--clients", "3", "--seed", "1"),
        *("--request-length", "100:400", "--output-length", "24:40"),
    ),
    "other": (
        *("--conversations", "6", "--turns", "6", "--clients", "2", "--seed", "2"),
        *("--request-length", "150:300", "--output-length", "16:48", "--think-s", "0.5"),
    ),
}
QUICK = ("--conversations", "4", "--turns", "3", "--request-length", "40:90")
"""In place of each load's own; too little for a believable calibration."""
# what `kvloop up` gives each node: 32,768 tokens of L1, L2 twice that; links of one machine
CLUSTER = (
    *("--device", "cpu2", "--model", "smollm2-135m", "--page-size", "16"),
    *("--device-gib", str(32768 * 23040 / 2**30), "--l1-pages", "2048", "--l2-pages", "4096"),
    *("--pcie-gbps", "32", "--network-gbps", "32", "--l3-gbps", "16"),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flag = parser.add_argument
    flag("--out", type=Path, required=True, help="where reports and profiles go")
    flag("--again", action="store_true", help="measure nothing: the reports are in --out")
    flag("--quick", action="store_true", help="much smaller loads, to see that it works")
    flag("--tolerance", default="0.25")
    flag("--ready-s", type=float, default=300.0, help="longest time until the cluster serves")
    flag("--run-s", type=float, default=1800.0, help="longest time of one load")
    return parser.parse_args()


@contextmanager
def cluster(ready_s: float, log: Path) -> Iterator[str]:
    """The URL of a `kvloop up` that serves; it is stopped on the way out."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as file:
        command = (*KVLOOP, "up", "--port", str(port))
        up = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        wait_until_it_serves(up, log, ready_s)
        yield url
    finally:
        up.send_signal(signal.SIGINT)
        try:
            up.wait(120)
        except subprocess.TimeoutExpired:
            up.kill()
            up.wait()


def wait_until_it_serves(up: subprocess.Popen[bytes], log: Path, ready_s: float) -> None:
    until = time.monotonic() + ready_s
    while "serving at" not in log.read_text():
        if up.poll() is not None or time.monotonic() > until:
            sys.exit(f"kvloop up did not come to serve; its output is in {log}")
        time.sleep(0.5)


def measure(url: str, name: str, args: argparse.Namespace) -> None:
    shape = (*SHAPES[name], *(QUICK if args.quick else ()))
    print(f"measuring: {' '.join(shape)}", flush=True)
    command = (*KVLOOP, "bench", "multi-turn", url, *shape, "--arms", "on")
    report = args.out / f"{name}.json"
    done = subprocess.run((*command, "--json", str(report)), timeout=args.run_s)
    if done.returncode:
        sys.exit(f"the load {name!r} had failures")


def compare(fitted_on: str, checked_on: str, args: argparse.Namespace) -> int:
    print(f"\ncalibrated on {fitted_on}, checked on {checked_on}", flush=True)
    out: Path = args.out
    command = (
        *(*KVLOOP, "bench", "simulate", *CLUSTER, "--tolerance", args.tolerance),
        *("--calibrate", str(out / f"{fitted_on}.json")),
        *("--check", str(out / f"{checked_on}.json")),
        *("--profile-out", str(out / f"profile-{fitted_on}.json")),
        *("--json", str(out / f"check-{checked_on}.json")),
    )
    return subprocess.run(command, timeout=600).returncode


def main() -> int:
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the cluster is stopped on the way out
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.again:
        with cluster(args.ready_s, args.out / "up.log") as url:
            for name in SHAPES:
                measure(url, name, args)
    first, second = SHAPES
    results = [compare(first, second, args), compare(second, first, args)]
    return max(results)


if __name__ == "__main__":
    sys.exit(main())
