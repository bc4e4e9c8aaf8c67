"""The end of a run: its report to every outlet, and an exit status."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from kvloop.benchmark.outlets.config_map import ConfigMapTarget, write_config_map
from kvloop.benchmark.outlets.files import write_json, write_page
from kvloop.benchmark.outlets.termination import (
    Ending,
    Reason,
    summarize,
    write_termination_message,
)
from kvloop.benchmark.results.document import Report


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailure:
    """A run that gave no report."""

    reason: Reason
    message: str
    exit_status: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlets:
    """Where a report goes; None: not there. Fields are the command's flags."""

    json_file: Path | None = None
    with_samples: bool = True
    """Whether single requests are in the JSON file."""
    page_file: Path | None = None
    config_map: ConfigMapTarget | None = None
    termination_file: Path | None = None
    """Written of a failed run too."""


Render = Callable[[Report], str]
Say = Callable[[str], None]


def publish(outcome: Report | RunFailure, outlets: Outlets, render: Render, say: Say) -> int:
    """Write to all outlets, whichever of them fail; returns the command's exit status.

    0: every request was answered and every outlet took it; 1 otherwise, or what a failure says.
    `render` makes the page, where one is wanted; `say` is told of each outlet that failed.
    """
    ending, status = _ending(outcome)
    # Before what may take long: a pod that is being stopped has seconds only.
    faults = _end(outcome, ending, outlets)
    reported = (
        list(_write_report(outcome, outlets, render, ending)) if isinstance(outcome, Report) else []
    )
    if reported:
        _end(outcome, _with(ending, reported), outlets)
        faults += reported
    for fault in faults:
        say(fault)
    return status or int(bool(faults))


def _end(outcome: Report | RunFailure, ending: Ending, outlets: Outlets) -> list[str]:
    if (file := outlets.termination_file) is None:
        return []
    report = outcome if isinstance(outcome, Report) else None
    return list(
        _tried(
            f"--termination-message {file}",
            lambda: write_termination_message(report, file, ending),
        )
    )


def _with(ending: Ending, faults: list[str]) -> Ending:
    """What had failed before stays the reason."""
    if ending.phase == "Succeeded":
        return Ending(phase="Failed", reason="OutletFailed", message="; ".join(faults))
    return replace(ending, message="; ".join((ending.message, *faults)))


def _write_report(
    report: Report, outlets: Outlets, render: Render, ending: Ending
) -> Iterator[str]:
    """What went wrong, outlet by outlet."""
    if (file := outlets.json_file) is not None:
        yield from _tried(
            f"--json {file}", lambda: write_json(report, file, with_samples=outlets.with_samples)
        )
    page = ""
    if outlets.page_file is not None or outlets.config_map is not None:
        faults, page = _rendered(report, render)
        yield from faults
    if (page_file := outlets.page_file) is not None and page:
        yield from _tried(f"--html {page_file}", lambda: write_page(page, page_file))
    if (target := outlets.config_map) is not None:
        summary = summarize(report, ending)
        yield from _tried(
            f"--config-map {target.namespace}/{target.name}",
            lambda: write_config_map(report, page, summary, target),
        )


def _rendered(report: Report, render: Render) -> tuple[list[str], str]:
    pages: list[str] = []
    faults = list(_tried("--html", lambda: pages.append(_utf8(render(report)))))
    return faults, "".join(pages)


def _utf8(page: str) -> str:
    return page.encode(errors="replace").decode()


def _tried(outlet: str, write: Callable[[], object]) -> Iterator[str]:
    try:
        write()
    except OSError as error:
        yield f"{outlet}: {error.strerror or error}"
    except Exception as error:  # a fault of one outlet must not cost the others their report
        yield f"{outlet}: {error or type(error).__name__}"


def _ending(outcome: Report | RunFailure) -> tuple[Ending, int]:
    if isinstance(outcome, RunFailure):
        failed = Ending(phase="Failed", reason=outcome.reason, message=outcome.message)
        return failed, outcome.exit_status
    completed = sum(arm.counts.completed for arm in outcome.arms)
    planned = sum(arm.counts.planned for arm in outcome.arms)
    if outcome.is_cut_short:
        reason: Reason = "CutShort"
    elif outcome.failures and not completed:
        reason = "NothingAnswered"
    elif outcome.failures:
        reason = "RequestsFailed"
    else:
        return Ending(phase="Succeeded", reason="Completed", message=_claim(outcome)), 0
    not_sent = sum(arm.counts.not_sent for arm in outcome.arms)
    words = f"{completed} of {planned} requests were answered, {len(outcome.failures)} failed"
    words += f", {not_sent} not sent" if not_sent else ""
    return Ending(phase="Failed", reason=reason, message=words + _first(outcome)), 1


def _first(report: Report) -> str:
    if not report.failures:
        return ""
    first = report.failures[0]
    return f"; the first: {first.kind}: {first.message}"


def _claim(report: Report) -> str:
    return report.claims[0].words if report.claims else ""
