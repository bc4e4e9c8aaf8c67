# ruff: noqa: INP001
"""How often does `kvloop bench compare` cry wolf, and how small a slowdown does it find?

    python scripts/bench_compare_alarms.py

Compares pairs of made-up runs (tests/support/bench_reports.py: 20 conversations of 6 turns, one
arm, each request's time with lognormal noise of 20 %), the second run's first tokens later by some
factor. Prints the share of pairs in which anything regressed, and in which TTFT did. Equal under
equal seeds; takes about two minutes.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from bench_reports import make_report

from kvloop.benchmark.compare.compare import compare
from kvloop.benchmark.compare.comparison import Comparison
from kvloop.benchmark.compare.verdict import Tolerances
from kvloop.benchmark.results.document import Report


def main() -> None:
    """Print one line a factor and tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=40, help="runs are twice as many")
    args = parser.parse_args()
    print("slower by  tolerance  any regression  ttft_mean_later regressed")
    for factor, tolerance in ((1.0, 0.05), (1.0, 0.0), (1.1, 0.05), (1.2, 0.05), (1.3, 0.05)):
        found = [_compared(seed, factor, tolerance) for seed in range(args.pairs)]
        any_share = sum(one.has_regressed for one in found) / len(found)
        ttft = sum(
            any(row.metric == "ttft_mean_later" for row in one.of("regression")) for one in found
        ) / len(found)
        print(f"{factor - 1:9.0%}  {tolerance:9.0%}  {any_share:14.1%}  {ttft:25.1%}", flush=True)


def _compared(seed: int, factor: float, tolerance: float) -> Comparison:
    shape = {"arms": ("on",), "conversations": 20, "turns": 6}
    a, b = make_report(2 * seed, **shape), make_report(2 * seed + 1, **shape)
    return compare(a, _later(b, factor), Tolerances(default=tolerance))


def _later(report: Report, factor: float) -> Report:
    samples = []
    for sample in report.samples:
        more_s = (factor - 1) * sample.ttft_s
        ended_at = sample.ended_at + more_s
        samples.append(replace(sample, ttft_s=sample.ttft_s + more_s, ended_at=ended_at))
    return replace(report, samples=tuple(samples))


if __name__ == "__main__":
    main()
