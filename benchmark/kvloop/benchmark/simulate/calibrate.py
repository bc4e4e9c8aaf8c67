"""A device's costs from a measured run: fitted to single steps, then to the run as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import log
from statistics import median
from typing import Any

from kvloop.benchmark.results.document import Report
from kvloop.benchmark.simulate.check import Rows, check
from kvloop.benchmark.simulate.cluster import Cluster
from kvloop.benchmark.simulate.config import ClusterConfig
from kvloop.benchmark.simulate.least_squares import fit_costs, relative_error
from kvloop.benchmark.simulate.measured import Service, Stream, services, streams
from kvloop.benchmark.simulate.profile import Profile
from kvloop.benchmark.simulate.report_load import report_load, samples_of
from kvloop.shared_cache.errors import ConfigError

LEAST_SAMPLES = 12
_SLOWDOWNS = tuple(step / 10 for step in range(16))
_ROUNDS = 16
_STRIDE = 0.5
_NOISE = 0.35
"""A median error of single prompts beyond which the run shows the machine's other work."""
_PREFILL = ("prefill_request_s", "prefill_token_s", "prefill_pair_s", "fetch_token_s")
_DECODE = ("decode_step_s", "decode_sequence_s", "decode_context_s")


def calibrate(
    report: Report, base: Profile, config: ClusterConfig, page_size: int
) -> tuple[Profile, str]:
    """The profile that fits the run best, and how well, in words. Raises ConfigError.

    `base` says what a run does not show: sizes, links, chunks. Single steps are fitted first, by
    what was computed, read and attended to; how prefill and decode slow each other down on one
    device is tried out. Then all prefill costs and all decode costs are scaled until the run,
    simulated, has the medians that were measured.
    """
    samples = samples_of(report)
    if len(samples) < LEAST_SAMPLES:
        raise ConfigError(
            f"--calibrate: {len(samples)} requests are too few, give a run of {LEAST_SAMPLES}"
        )
    if config.prefill != 1 or config.decode != 1:
        raise ConfigError(
            "--calibrate: a run of one prefill and one decode node shows what one costs; "
            "leave --prefill and --decode at 1"
        )
    busy = services(samples)
    fitted, error = _fit_prefill(base, busy)
    fitted, decode_error = _fit_decode(fitted, streams(samples, busy))
    load = report_load(report, page_size)
    fitted = replace(fitted, name=f"calibrated {base.name}")

    def simulate(profile: Profile) -> Rows:
        return check(report, Cluster(config, profile, load).run(), 0.0).rows[0]

    fitted, ratio = _scale(fitted, simulate)
    return fitted, _words(fitted, len(samples), error, decode_error, ratio)


def _scale(profile: Profile, simulate: Callable[[Profile], Rows]) -> tuple[Profile, float]:
    """Scaled until a whole run has the measured medians, as near as it gets; TTFT's ratio."""
    tried: list[tuple[float, float, Profile]] = []
    for _ in range(_ROUNDS):
        rows = simulate(profile)
        tpot = rows.tpot.ratio if rows.tpot is not None else 1.0
        tried.append((abs(log(rows.ttft.ratio)) + abs(log(tpot)), rows.ttft.ratio, profile))
        # the same prompts queue otherwise when they take longer: half of the way each time
        profile = _scaled(profile, _PREFILL, rows.ttft.ratio**-_STRIDE)
        profile = _scaled(profile, _DECODE, tpot**-_STRIDE)
    _, ratio, best = min(tried, key=lambda one: one[0])
    return best, ratio


def _fit_prefill(base: Profile, busy: Sequence[Service]) -> tuple[Profile, float]:
    rows = [(one.num, one.computed, one.pairs, one.fetched) for one in busy]

    def times(slowdown: float) -> list[float]:
        return [one.seconds / (1 + slowdown * one.decode_share) for one in busy]

    slowdown, costs, error = _best(rows, times)
    profile = replace(
        _with_costs(base, _PREFILL, costs),
        prefill_floor_s=0.0,
        prefill_context_s=0.0,
        prefill_slowdown=slowdown,
    )
    return profile, error


def _fit_decode(base: Profile, answers: Sequence[Stream]) -> tuple[Profile, float]:
    if not answers:
        return base, 0.0  # single tokens show nothing of decode
    rows = [(1.0, one.batch, one.context) for one in answers]

    def times(slowdown: float) -> list[float]:
        return [one.tpot_s / (1 + slowdown * one.prefill_share) for one in answers]

    slowdown, costs, error = _best(rows, times)
    profile = replace(
        _with_costs(base, _DECODE, costs), decode_floor_s=0.0, decode_slowdown=slowdown
    )
    return profile, error


def _best(
    rows: Sequence[Sequence[float]], times: Callable[[float], list[float]]
) -> tuple[float, list[float], float]:
    """The slowdown with the smallest mean error: it, the costs, and the median error."""
    best: tuple[float, float, list[float], float] | None = None
    for slowdown in _SLOWDOWNS:
        wanted = times(slowdown)
        costs = fit_costs(rows, wanted)
        errors = [relative_error(row, time, costs) for row, time in zip(rows, wanted, strict=True)]
        total = sum(min(error, 1.0) for error in errors)
        if best is None or total < best[0]:
            best = total, slowdown, costs, median(errors)
    assert best is not None
    return best[1:]


def _scaled(profile: Profile, names: Sequence[str], factor: float) -> Profile:
    return _with_costs(profile, names, [getattr(profile, name) * factor for name in names])


def _with_costs(profile: Profile, names: Sequence[str], costs: Sequence[float]) -> Profile:
    changes: dict[str, Any] = dict(zip(names, costs, strict=True))
    return replace(profile, **changes)


def _words(
    profile: Profile, num: int, prefill_error: float, decode_error: float, ratio: float
) -> str:
    words = (
        f"calibrated on {num} requests: {1000 * profile.prefill_request_s:.0f} ms a prompt, "
        f"{1e6 * profile.prefill_token_s:.0f} µs a prompt token, "
        f"{1e6 * profile.fetch_token_s:.0f} µs a token from L3, "
        f"{1000 * profile.decode_base_s(1):.1f} ms a decode step, slower by "
        f"{profile.prefill_slowdown:.0%} (prefill) and {profile.decode_slowdown:.0%} (decode) "
        f"while the other computes; median error of a prompt {prefill_error:.0%}, of an answer's "
        f"token {decode_error:.0%}; the run simulated has {ratio:.2f} of its median TTFT"
    )
    if prefill_error > _NOISE:
        words += (
            "\nWARNING: prompts that are alike took very different times; something else ran on "
            "the machine, and these costs foretell nothing"
        )
    return words
