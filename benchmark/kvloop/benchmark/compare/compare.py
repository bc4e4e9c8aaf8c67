"""Two reports compared. Pure: equal reports give equal verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kvloop.benchmark.compare import same_load
from kvloop.benchmark.compare.comparison import Comparison, Row, Side
from kvloop.benchmark.compare.pairs import answers, left_out, matched
from kvloop.benchmark.compare.rows import rows
from kvloop.benchmark.compare.tracks import tracks
from kvloop.benchmark.compare.verdict import RULE, Tolerances
from kvloop.benchmark.compare.warnings import warnings
from kvloop.benchmark.results.document import Report
from kvloop.shared_cache.errors import ConfigError


def compare(
    a: Report,
    b: Report,
    tolerances: Tolerances,
    *,
    arms: Sequence[str] = (),
    allow_different_load: bool = False,
    names: tuple[str, str] = ("A", "B"),
    files: tuple[str, str] = ("", ""),
) -> Comparison:
    """B against A, in all arms that both have or in `arms`.

    Raises ConfigError: different loads, no arm in common, no samples, a tolerance of no metric.
    """
    found = same_load.differences(a, b)
    if not allow_different_load:
        same_load.refuse(found)
    for report, file in zip((a, b), files, strict=True):
        _require_samples(report, file)
    pairs, only_a, only_b = matched(tracks(a), tracks(b), arms)
    is_paired = not found
    all_rows = tuple(row for pair in pairs for row in rows(*pair, is_paired, tolerances))
    is_answered = all(track.samples for pair in pairs for track in pair)
    # Of a run without answers there are no times: that is no slip of the pen.
    if is_answered and (unused := tolerances.unused({row.metric for row in all_rows})):
        raise ConfigError(_unknown(unused, all_rows))
    compared, different = answers(pairs) if is_paired else (0, 0)
    return Comparison(
        a=_side(a, names[0], files[0]),
        b=_side(b, names[1], files[1]),
        is_paired=is_paired,
        differences=found,
        only_in_a=only_a,
        only_in_b=only_b,
        left_out={pair[0].name: num for pair in pairs if (num := left_out(*pair, is_paired))},
        answers_compared=compared,
        answers_different=different,
        rows=all_rows,
        warnings=tuple(warnings(a, b, names, pairs)),
        rule=RULE,
    )


def _require_samples(report: Report, file: str) -> None:
    if any(arm.counts.completed for arm in report.arms) and not report.samples:
        raise ConfigError(
            f"{file or report.title}: holds no samples, and an interval needs them; "
            "write it with --json FILE and without --no-samples"
        )


def _unknown(unused: Sequence[str], all_rows: Iterable[Row]) -> str:
    known = sorted({row.metric for row in all_rows if "_turn_" not in row.metric})
    return (
        f"--metric {unused[0]}: there is no such metric here; there are "
        f"{', '.join(known)} (and ttft_mean_turn_1, ...); * and ? stand for any letters"
    )


def _side(report: Report, name: str, file: str) -> Side:
    return Side(
        name=name,
        file=file,
        server=report.server.name,
        model=report.server.model,
        url=report.server.url,
        version=report.version,
        hardware=report.hardware,
        started_at=report.started_at,
        is_cut_short=report.is_cut_short,
        num_failures=len(report.failures),
    )
