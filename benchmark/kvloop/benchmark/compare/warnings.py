"""What a reader must know before believing a comparison. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kvloop.benchmark.compare.pairs import have_one_goal
from kvloop.benchmark.compare.tracks import Track
from kvloop.benchmark.results.document import Report


def warnings(
    a: Report, b: Report, names: tuple[str, str], pairs: Iterable[tuple[Track, Track]]
) -> Iterator[str]:
    for report, name in ((a, names[0]), (b, names[1])):
        if report.is_cut_short:
            yield f"{name} was cut short: what is left of it may not be typical"
        if report.driver is not None and report.driver.is_bottleneck:
            yield f"{name}: the driver was the bottleneck: {report.driver.words}"
        yield from (f"{name}: {warning}" for warning in report.warnings)
    for what, ours, theirs in (
        ("models", a.server.model, b.server.model),
        ("hardware", a.hardware, b.hardware),
    ):
        if ours != theirs:
            yield f"different {what}: {ours} and {theirs}"
    for track, other in pairs:
        if not have_one_goal(track, other):
            yield f"{track.name}: goodput is left out: the objectives are not the same"
        silent = [name for name, one in zip(names, (track, other), strict=True) if _hides_hits(one)]
        if len(silent) == 1:
            yield (
                f"{track.name}: hit rates are left out: {silent[0]} does not report cached tokens "
                "of every answer"
            )


def _hides_hits(track: Track) -> bool:
    """Whether there is an answer of which nobody knows what it hit."""
    return any(s.cached_tokens is None for each in track.samples.values() for s in each)
