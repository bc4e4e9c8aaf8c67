"""`kvloop bench multi-turn` from start to report."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kvloop.benchmark.api import Target, find_model, open_session
from kvloop.benchmark.closed_loop import Driver
from kvloop.benchmark.report import Report, to_json
from kvloop.benchmark.sample import Failure, Sample
from kvloop.benchmark.stream import BadAnswer
from kvloop.benchmark.tables import show
from kvloop.benchmark.workload import Workload
from kvloop.shared_cache.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """Fields are the command's flags."""

    url: str
    workload: Workload
    model: str | None = None
    api_key: str | None = None
    cache_salt: str | None = None
    timeout_s: float = 600.0
    json_file: Path | None = None


def run_bench(config: BenchConfig) -> int:
    """Run, show and write; returns 1 if any request failed. Raises ConfigError."""
    if config.json_file is not None and not config.json_file.absolute().parent.is_dir():
        raise ConfigError(f"--json {config.json_file}: there is no such directory")
    console = Console(highlight=False)
    try:
        report = asyncio.run(_run(config, console))
    except BadAnswer as error:
        console.print(f"the warm-up failed: {error.kind}: {error}", style="red", markup=False)
        return 1
    show(report, console)
    if config.json_file is not None:
        config.json_file.write_text(json.dumps(to_json(report), indent=1) + "\n")
    return 1 if report.failures else 0


async def _run(config: BenchConfig, console: Console) -> Report:
    async with open_session() as http:
        model = config.model or await find_model(http, config.url, config.api_key)
        target = Target(
            url=config.url,
            model=model,
            api_key=config.api_key,
            cache_salt=config.cache_salt,
            content=config.workload.content,
            output_length=config.workload.output_length,
            timeout_s=config.timeout_s,
        )
        with _progress(console) as bar:
            task = bar.add_task("requests", total=config.workload.num_requests, failed="")
            num_failed = 0

            def on_outcome(outcome: Sample | Failure) -> None:
                nonlocal num_failed
                num_failed += isinstance(outcome, Failure)
                failed = f"{num_failed} failed" if num_failed else ""
                bar.update(task, advance=1, failed=failed)

            return await Driver(
                http=http, target=target, workload=config.workload, on_outcome=on_outcome
            ).run()


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[red]{task.fields[failed]}"),
        console=console,
        disable=not console.is_terminal,
    )
