"""`kvloop bench simulate` from its flags to its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console

from kvloop.benchmark.outlets.files import read_report, write_whole
from kvloop.benchmark.replay.trace import PAGE_TOKENS, read_trace
from kvloop.benchmark.simulate.calibrate import calibrate
from kvloop.benchmark.simulate.check import check, show_check
from kvloop.benchmark.simulate.cluster import Cluster
from kvloop.benchmark.simulate.config import ClusterConfig
from kvloop.benchmark.simulate.device import find_device
from kvloop.benchmark.simulate.model_shape import read_model
from kvloop.benchmark.simulate.profile import Profile, profile_of, read_profile, write_profile
from kvloop.benchmark.simulate.prompt import Load, Sharing
from kvloop.benchmark.simulate.report_load import report_load
from kvloop.benchmark.simulate.result import (
    SCHEMA,
    Objective,
    SimulationResult,
    make_result,
)
from kvloop.benchmark.simulate.sweep import Setting, parse_sweep
from kvloop.benchmark.simulate.tables import show_run, show_sweep
from kvloop.benchmark.simulate.trace_load import trace_load
from kvloop.shared_cache.errors import ConfigError

MODEL = "llama-3.1-8b"
NODE_PAGE_TOKENS = 16
"""Of a run of `kvloop up`, where the flag does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateConfig:
    """Fields are the command's flags."""

    trace: Path | None = None
    calibrate: Path | None = None
    check: Path | None = None
    device: str = "h100"
    model: str | None = None
    """None: `MODEL`, or that of a calibrated device; a calibrated device has its dtypes too."""
    devices_per_node: int = 1
    weight_bytes: float | None = None
    kv_bytes: float | None = None
    device_gib: float | None = None
    pcie_gbps: float | None = None
    chunk_tokens: int | None = None
    max_running_requests: int | None = None
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    page_size: int | None = None
    hits: Sharing = "as_traced"
    answers: bool = False
    time_scale: float = 1.0
    skip: int = 0
    limit: int | None = None
    sweep: tuple[str, ...] = ()
    objective: Objective = field(default_factory=Objective)
    gpu_hour_price: float | None = None
    tolerance: float = 0.25
    profile_out: Path | None = None
    json_file: Path | None = None


def run_simulate(config: SimulateConfig, console: Console) -> int:
    """Calibrate, check, replay: whatever was asked for; 1 if a check failed. Raises ConfigError."""
    _check_flags(config)
    profile = make_profile(config)
    page_size = config.page_size or NODE_PAGE_TOKENS
    if config.calibrate is not None:
        profile, words = calibrate(
            read_report(config.calibrate), profile, config.cluster, page_size
        )
        console.print(words, soft_wrap=True)
    if config.profile_out is not None:
        write_profile(profile, config.profile_out)
        console.print(f"wrote {config.profile_out}", soft_wrap=True)
    document: dict[str, Any] = {"schema": SCHEMA, "profile": profile}
    is_close = True
    if config.check is not None:
        report = read_report(config.check)
        load = report_load(report, page_size)
        comparison = check(report, Cluster(config.cluster, profile, load).run(), config.tolerance)
        show_check(comparison, console)
        document["check"], is_close = comparison, comparison.is_close
    if config.trace is not None:
        document["runs"] = _replay(config, profile, console)
    if config.json_file is not None:
        _write(document, config.json_file)
    return 0 if is_close else 1


def make_profile(config: SimulateConfig) -> Profile:
    """The device's costs: from a file that was calibrated, or from its sheet and the model."""
    profile = _from_device(config)
    changes: dict[str, Any] = {}
    if config.device_gib is not None:
        changes["memory_bytes"] = config.device_gib * 2**30
    if config.pcie_gbps is not None:
        changes["pcie_bytes_per_s"] = config.pcie_gbps * 1e9 / 8
    if config.chunk_tokens is not None:
        enough = min(profile.enough_tokens, config.chunk_tokens)
        if profile.enough_tokens == profile.chunk_tokens:
            enough = config.chunk_tokens
        changes |= {"chunk_tokens": config.chunk_tokens, "enough_tokens": enough}
    if config.max_running_requests is not None:
        changes["max_running"] = config.max_running_requests
    return replace(profile, **changes)


def _from_device(config: SimulateConfig) -> Profile:
    if Path(config.device).is_file():
        profile = read_profile(Path(config.device))
        _refuse(config, _OF_SHEET, f"--device {config.device} was calibrated with {profile.model}")
        return profile
    return profile_of(
        find_device(config.device),
        read_model(config.model or MODEL),
        weight_bytes=config.weight_bytes or 2.0,
        kv_bytes=config.kv_bytes or 2.0,
        devices_per_node=config.devices_per_node,
    )


_OF_SHEET = {"model": "--model", "weight_bytes": "--weight-dtype", "kv_bytes": "--kv-dtype"}
_OF_TRACE = {
    "sweep": "--sweep",
    "skip": "--skip",
    "limit": "--limit",
    "time_scale": "--time-scale",
    "hits": "--hits",
    "answers": "--answers",
    "objective": "--slo-ttft-ms, --slo-tpot-ms and --slo-share",
    "gpu_hour_price": "--gpu-hour-price",
}
_UNSET = SimulateConfig()


def _refuse(config: SimulateConfig, flags: Mapping[str, str], why: str) -> None:
    """What was asked for and would change nothing."""
    for name, flag in flags.items():
        if getattr(config, name) != getattr(_UNSET, name):
            raise ConfigError(f"{flag} would change nothing: {why}")


def _check_flags(config: SimulateConfig) -> None:
    if config.trace is None and config.calibrate is None and config.check is None:
        raise ConfigError("give --trace FILE to replay, --calibrate REPORT or --check REPORT")
    if config.profile_out is not None and config.calibrate is None:
        raise ConfigError("--profile-out: there is nothing to write without --calibrate REPORT")
    if config.trace is None:
        _refuse(config, _OF_TRACE, "it is of a trace; give --trace FILE")
    if config.check is None:
        _refuse(config, {"tolerance": "--tolerance"}, "nothing is checked; give --check REPORT")
    _check_policies(config)
    if config.objective.share != Objective().share and not config.objective.is_set:
        raise ConfigError("--slo-share: of which objective? give --slo-ttft-ms or --slo-tpot-ms")
    for flag, path in (("--json", config.json_file), ("--profile-out", config.profile_out)):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError(f"{flag} {path}: there is no such directory")


def _check_policies(config: SimulateConfig) -> None:
    """What a policy is told must be asked by it."""
    cluster, swept = config.cluster, {text.partition("=")[0] for text in config.sweep}
    is_timed = config.hits == "as_timed" or config.check is not None or config.calibrate is not None
    if not is_timed and (cluster.prefetch_policy != "best_effort" or "prefetch-policy" in swept):
        raise ConfigError(
            "--prefetch-policy would change nothing: as traced, all that L3 has is waited for; "
            "give --hits as-timed"
        )
    is_selective = cluster.write_policy == "write_through_selective" or "write-policy" in swept
    if not is_selective and cluster.write_through_threshold != 2:
        raise ConfigError(
            "--write-through-threshold would change nothing: it is of "
            "--write-policy write_through_selective"
        )


def _replay(config: SimulateConfig, profile: Profile, console: Console) -> list[SimulationResult]:
    settings = parse_sweep(config.sweep)
    loads = _loads(config)
    results = []
    with console.status("simulating") as status:
        for number, result in enumerate(_simulate(config, profile, settings, loads), 1):
            results.append(result)
            status.update(f"simulated {number} of {len(settings)}")
    if config.sweep:
        show_sweep(results, config.objective, console)
    else:
        show_run(results[0], config.objective, console)
    return results


def _loads(config: SimulateConfig) -> Callable[[float], Load]:
    assert config.trace is not None
    requests = read_trace(config.trace, skip=config.skip, limit=config.limit)
    known: dict[float, Load] = {}

    def load(time_scale: float) -> Load:
        if time_scale not in known:
            known[time_scale] = trace_load(
                requests,
                page_size=config.page_size or PAGE_TOKENS,
                time_scale=time_scale,
                sharing=config.hits,
                has_answers=config.answers,
            )
        return known[time_scale]

    return load


def _simulate(
    config: SimulateConfig,
    profile: Profile,
    settings: list[Setting],
    loads: Callable[[float], Load],
) -> Iterator[SimulationResult]:
    for setting in settings:
        cluster = setting.apply(config.cluster)
        load = loads(setting.time_scale or config.time_scale)
        yield make_result(
            Cluster(cluster, profile, load).run(),
            objective=config.objective,
            prefill=cluster.prefill,
            decode=cluster.decode,
            devices_per_node=config.devices_per_node,
            gpu_hour_price=config.gpu_hour_price,
            settings=setting.values,
        )


def _write(document: dict[str, Any], path: Path) -> None:
    try:
        write_whole(path, msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    except OSError as error:
        raise ConfigError(f"--json {path}: {error.strerror}") from None
