"""Where prompt tokens came from, by turn and tier."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.page import looks, units
from kvloop.benchmark.page.figure import Figure, Frame, KeyEntry, area_entry, empty, line_entry
from kvloop.benchmark.page.scale import Scale
from kvloop.benchmark.page.svg import element, group, join, line, titled
from kvloop.benchmark.results.document import ArmResult, Report, Summary, TurnSummary

NOT_REPORTED = "The server does not report how many prompt tokens it had cached."
_HITS = "Parts of the prompt tokens of each turn. "
_POSSIBLE = "The line across each is the most that a turn's own conversation allows to reuse."


def hit_rate_by_turn(report: Report, arm: Arm) -> Figure:
    """Of one arm, stacked by tier; of servers that name none, cached and computed."""
    name, title = f"hit-rate-{arm}", f"Where prompt tokens came from ({looks.NAMES[arm]})"
    result = next((a for a in report.arms if a.arm == arm), None)
    if result is None or not result.all.requests:
        return empty(name, title, f"No request of the arm “{looks.NAMES[arm]}” was answered.")
    turns = [t for t in result.turns if t.summary.requests and tier_shares(t.summary)]
    if not turns:
        return empty(name, title, NOT_REPORTED)
    return Figure(
        name=name,
        title=title,
        explanation=_HITS + _POSSIBLE,
        key=_key(result),
        picture=_draw(Frame(), title, turns),
    )


def tier_shares(summary: Summary) -> dict[str, float]:
    """Shares of the prompt tokens by the tiers' classes; empty where the server tells none."""
    counts = _tier_counts(summary)
    total = max(summary.prompt_tokens, sum(counts.values()))
    return {tier: count / total for tier, count in counts.items() if count} if total else {}


def _tier_counts(summary: Summary) -> dict[str, int]:
    s = summary.sources
    if s is not None:
        return {
            "kept": s.transfer_skipped,
            "device": s.device,
            "host": s.host,
            "by-prefill": s.storage_by_prefill,
            "by-decode": s.storage_by_decode,
            "storage": max(0, s.storage - s.storage_by_prefill - s.storage_by_decode),
            "computed": s.computed,
        }
    if summary.cached_tokens is None:
        return {}
    cached = summary.cached_tokens
    return {"cached": cached, "computed": summary.prompt_tokens - cached}


def _key(arm: ArmResult) -> list[KeyEntry]:
    seen = {class_ for turn in arm.turns for class_ in tier_shares(turn.summary)}
    areas = [area_entry(t.class_, t.name) for t in looks.TIERS if t.class_ in seen]
    return [*areas, line_entry("possible", "possible to reuse")]


def _draw(frame: Frame, title: str, turns: Sequence[TurnSummary]) -> Markup:
    y = Scale(low=0, high=100, start=frame.bottom_at, end=frame.top)
    slot = (frame.right_at - frame.left) / len(turns)
    middles = [frame.left + (i + 0.5) * slot for i in range(len(turns))]
    width = min(56.0, 0.74 * slot)
    columns = (_column(t, x, width, y) for t, x in zip(turns, middles, strict=True))
    limits = (_limit(t, x, min(slot, width + 10), y) for t, x in zip(turns, middles, strict=True))
    ticks = [(x, str(t.turn)) for t, x in zip(turns, middles, strict=True)]
    return frame.draw(
        title,
        frame.y_axis(y, "share of prompt tokens (%)", units.tick),
        frame.x_axis(ticks, "turn of the conversation", is_numeric=False),
        *columns,
        *limits,
    )


def _column(turn: TurnSummary, x: float, width: float, y: Scale) -> Markup:
    shares, below, boxes = tier_shares(turn.summary), 0.0, []
    for tier in looks.TIERS:
        if not (part := shares.get(tier.class_, 0.0)):
            continue
        upper, lower = y.at(100 * (below + part)), y.at(100 * below)
        box = element(
            "rect",
            x=x - width / 2,
            y=upper,
            width=width,
            height=lower - upper,
            class_=f"area {tier.class_}",
        )
        boxes.append(titled(f"turn {turn.turn}, {tier.name}: {units.share(part)}", box))
        below += part
    return group(join(boxes))


def _limit(turn: TurnSummary, x: float, width: float, y: Scale) -> Markup:
    rate = turn.summary.reusable_rate
    at = y.at(100 * rate)
    stroke = line((x - width / 2, at), (x + width / 2, at), "possible")
    return titled(f"turn {turn.turn}: {units.share(rate)} possible to reuse", stroke)
