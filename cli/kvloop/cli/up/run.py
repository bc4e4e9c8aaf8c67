"""`kvloop up` from start to stop."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from rich.console import Console

from kvloop.cli.up.config import UpConfig
from kvloop.cli.up.plan import Plan, build_plan, num_inner_ports
from kvloop.cli.up.ports import check_port_is_free, free_ports
from kvloop.cli.up.progress import StartProgress
from kvloop.cli.up.proof import prove_reuse
from kvloop.cli.up.state import new_secret_file, run_directory
from kvloop.cli.up.supervisor import PartFailed, Supervisor


def run_up(config: UpConfig) -> int:
    """Run until told to stop; returns the exit status. Raises ConfigError for a wrong flag."""
    check_port_is_free(config.host, config.port)
    with run_directory(config) as logs:
        return asyncio.run(_run_until_told(config, Console(highlight=False), logs))


async def _run_until_told(config: UpConfig, console: Console, logs: Path) -> int:
    """Ctrl-C, SIGTERM and a closed terminal end the run in order; a second one hurries it."""
    run = asyncio.create_task(_run(config, console, logs))
    was_told = False

    def tell() -> None:
        nonlocal was_told
        was_told = True
        run.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, tell)
    try:
        return await run
    except asyncio.CancelledError:
        if not was_told:
            raise
        return 0


async def _run(config: UpConfig, console: Console, logs: Path) -> int:
    ports = free_ports(num_inner_ports(config))
    plan = build_plan(config, ports, new_secret_file(config.directory))
    supervisor = Supervisor(logs)
    try:
        with StartProgress(console) as progress:
            await supervisor.start(plan.parts, config.ready_timeout_s, progress.report)
        return await _serve(config, console, plan, supervisor)
    except PartFailed as failed:
        console.print(f"\n{failed}", style="red", markup=False, soft_wrap=True)
        return 1
    finally:
        console.print("stopping")
        await supervisor.stop()


async def _serve(config: UpConfig, console: Console, plan: Plan, supervisor: Supervisor) -> int:
    """Chat, then hold; raises PartFailed as soon as a part dies."""
    proof = asyncio.create_task(prove_reuse(config, console, plan))
    watch = asyncio.create_task(supervisor.watch())
    try:
        await asyncio.wait((proof, watch), return_when=asyncio.FIRST_COMPLETED)
        if watch.done():
            await watch
        status = 0 if await proof else 1
        if not config.once:
            _say_where(config, console)
            await watch
        return status
    finally:
        proof.cancel()
        watch.cancel()
        await asyncio.gather(proof, watch, return_exceptions=True)


def _say_where(config: UpConfig, console: Console) -> None:
    console.print(f"\nserving at [bold]{config.url}[/]   Ctrl-C stops it", soft_wrap=True)
    console.print(f"  logs   {config.directory / 'logs'}", soft_wrap=True)
    console.print(f"  load   kvloop bench multi-turn {config.url}", soft_wrap=True)
