"""`kvloop bench LOAD` from start to report."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from rich.console import Console

from kvloop.benchmark.arms import Arm, Segment
from kvloop.benchmark.driver.api import ServedModel, find_model, open_session
from kvloop.benchmark.driver.bad_answer import BadAnswer
from kvloop.benchmark.driver.drive import drive
from kvloop.benchmark.driver.driven import Driven
from kvloop.benchmark.driver.listener import Listeners
from kvloop.benchmark.driver.loop import run as run_loop
from kvloop.benchmark.driver.options import DriveOptions
from kvloop.benchmark.driver.target import Salting, Target
from kvloop.benchmark.hardware import describe_machine
from kvloop.benchmark.node_seconds import NodeSeconds, find_metrics
from kvloop.benchmark.outlets.publish import Outlets, RunFailure, publish
from kvloop.benchmark.page.render import render_page
from kvloop.benchmark.progress import LiveProgress
from kvloop.benchmark.results.build import About, build_report
from kvloop.benchmark.results.document import Report
from kvloop.benchmark.results.goodput import Objectives
from kvloop.benchmark.results.tables import show
from kvloop.benchmark.schedule import plan_segments
from kvloop.benchmark.terminal import new_console
from kvloop.benchmark.workloads.plan import Workload
from kvloop.shared_cache.errors import ConfigError, KVLoopError

MakeWorkload = Callable[[ServedModel], Workload]
"""For loads that are cut to the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Fields are the command's flags."""

    url: str
    model: str | None = None
    api_key: str | None = None
    run_id: str | None = None
    """Begins every salt; None: new for each run."""
    salting: Salting = "field"
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    dropped_fields: frozenset[str] = frozenset()
    arm_bodies: Mapping[Arm, Mapping[str, Any]] = field(default_factory=dict)
    arms: tuple[Arm, ...] | None = None
    """None: on, and the best control that the server can do."""
    rates: tuple[float, ...] = ()
    rounds: int | None = None
    options: DriveOptions = field(default_factory=DriveOptions)
    objectives: Objectives = field(default_factory=Objectives)
    price_per_gpu_hour: float | None = None
    node_metrics: tuple[str, ...] = ()
    title: str = "kvloop bench"
    command: str = ""
    hardware: str | None = None
    outlets: Outlets = field(default_factory=Outlets)


def run_bench(config: RunConfig, workload: Workload | MakeWorkload) -> int:
    """Run, show and publish; the command's exit status. Every end is told to the outlets."""
    console = new_console()
    try:
        outcome: Report | RunFailure = run_loop(_Run(config, console).report(workload))
    except BadAnswer as error:
        message = f"the warm-up failed: {error.kind}: {error}"
        outcome = RunFailure(reason="WarmUpFailed", message=message)
    except ConfigError as error:
        outcome = RunFailure(reason="BadInput", message=str(error), exit_status=2)
    except KeyboardInterrupt:
        cut = RunFailure(reason="CutShort", message="interrupted before there was a report")
        publish(cut, config.outlets, render_page, print)
        raise
    except Exception as error:
        # Whatever it is: a Job's status must say so.
        crash = RunFailure(reason="Crashed", message=f"{type(error).__name__}: {error}")
        publish(crash, config.outlets, render_page, print)
        raise
    try:
        if isinstance(outcome, Report):
            show(outcome, console)
    finally:  # a terminal that is gone must not cost the report
        status = publish(
            outcome, config.outlets, render_page, lambda words: _complain(console, words)
        )
    if isinstance(outcome, RunFailure):
        raise (ConfigError if status == 2 else KVLoopError)(outcome.message)
    return status


def _complain(console: Console, words: str) -> None:
    console.print(words, style="red", markup=False, soft_wrap=True)


class _Run:
    """One run; its parts in the order in which they are needed."""

    def __init__(self, config: RunConfig, console: Console) -> None:
        self._config, self._console = config, console

    async def report(self, workload: Workload | MakeWorkload) -> Report:
        """Ask the server what it serves, drive the load, and judge what came."""
        config = self._config
        async with open_session() as http:
            model = await find_model(http, config.url, config.api_key, config.model)
            load = workload(model) if callable(workload) else workload
            plan = self._plan(load, model)
            nodes = NodeSeconds(self._metrics(model))
            progress = LiveProgress(self._console, load, plan)
            with progress:
                driven = await drive(
                    http,
                    self._target(load, model),
                    load,
                    plan,
                    config.options,
                    Listeners(nodes, progress),
                )
        return self._build(load, plan, driven, nodes, model)

    def _plan(self, load: Workload, model: ServedModel) -> tuple[Segment, ...]:
        config = self._config
        control: Arm = "bypassed" if model.is_kvloop else "all_miss"
        return plan_segments(
            load,
            config.arms or ("on", control),
            config.rates,
            config.rounds,
            config.run_id or secrets.token_hex(6),
            config.options.seed,
            clients=config.options.clients,
        )

    def _metrics(self, model: ServedModel) -> tuple[str, ...]:
        if self._config.node_metrics or not model.is_kvloop:
            return self._config.node_metrics
        return find_metrics(self._config.url)

    def _target(self, load: Workload, model: ServedModel) -> Target:
        config = self._config
        return Target(
            url=config.url,
            model=model.name,
            api_key=config.api_key,
            content=load.content,
            salting=config.salting,
            extra_body=config.extra_body,
            dropped_fields=config.dropped_fields,
            arm_bodies=config.arm_bodies,
        )

    def _build(
        self,
        load: Workload,
        plan: tuple[Segment, ...],
        driven: Driven,
        nodes: NodeSeconds,
        model: ServedModel,
    ) -> Report:
        config = self._config
        about = About(
            title=config.title,
            command=config.command,
            version=version("kvloop"),
            hardware=config.hardware or describe_machine(),
            server_url=config.url,
            model=model.name,
        )
        return build_report(
            about=about,
            workload=load,
            plan=plan,
            driven=driven,
            objectives=config.objectives,
            node_seconds=nodes.spent,
            price_per_gpu_hour=config.price_per_gpu_hour,
            more_warnings=(*getattr(load, "warnings", ()), *nodes.problems),
            driving={**config.options.describe(), "rates": config.rates},
        )
