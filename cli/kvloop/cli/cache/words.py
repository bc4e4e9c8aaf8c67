"""Sizes, times and counts as people read them."""

from __future__ import annotations

_AGES = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"))


def bytes_words(num_bytes: float) -> str:
    """Such as 12.3 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"


def age_words(used_at: float | None, now: float) -> str:
    """How long ago, in one unit; a dash where it is not known."""
    if used_at is None:
        return "-"
    seconds = max(0.0, now - used_at)
    for length, unit in _AGES:
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"


def pages_words(num_pages: int) -> str:
    """Such as 1 page, or 12,345 pages."""
    return f"{num_pages:,} page{'' if num_pages == 1 else 's'}"


def counts_words(counts: dict[str, int]) -> str:
    """Such as `payload 3, key 1`, the most first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count:,}" for name, count in ordered)
