#!/usr/bin/env python
"""What one picture of `kvloop bench`'s live progress costs: `scripts/bench_progress.py`."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from statistics import median

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from bench_reports import MadeUpLoad, Shape, make_run, planned

from kvloop.benchmark.progress import LiveProgress

PICTURES = 40


def main() -> None:
    """Four arms with a thousand answers each, drawn as on a terminal of 100 columns."""
    shape = Shape(conversations=170, turns=6)
    run = make_run(0, shape)
    segments = [planned(shape, segment) for segment in run.segments]
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    progress = LiveProgress(console, MadeUpLoad(shape=shape), segments)
    for sample in run.samples:
        progress.outcome(sample)
    took = []
    for _ in range(PICTURES):
        began = time.perf_counter()
        console.print(progress.picture())
        took.append(1000 * (time.perf_counter() - began))
    print(
        f"{PICTURES} pictures of {len(run.samples)} answers: {min(took):.1f} ms at best, "
        f"{median(took):.1f} ms in the median, {max(took):.1f} ms at most"
    )


if __name__ == "__main__":
    main()
