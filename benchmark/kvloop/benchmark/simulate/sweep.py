"""Several settings one after the other: every combination of what `--sweep` lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, get_args

from kvloop.benchmark.simulate.config import ClusterConfig
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.hicache_names import EvictionPolicy, PrefetchPolicy, WritePolicy

_CHOICES = {
    "write-policy": get_args(WritePolicy),
    "eviction-policy": get_args(EvictionPolicy),
    "prefetch-policy": get_args(PrefetchPolicy),
}
_WHOLE = ("prefill", "decode", "l1-pages", "l2-pages")
_NUMBERS = ("l1-gib", "l2-gib", "l3-gib", "network-gbps", "l3-gbps")
_TIME = "time-scale"
SWEPT = (*_WHOLE, *_NUMBERS, *_CHOICES, _TIME)
MOST = 200
"""Combinations: each replays the whole load."""
Value = int | float | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One combination."""

    values: dict[str, Value]
    """By flag."""

    @property
    def time_scale(self) -> float | None:
        """None: as without a sweep."""
        value = self.values.get(_TIME)
        return float(value) if isinstance(value, int | float) else None

    def apply(self, config: ClusterConfig) -> ClusterConfig:
        """The cluster with this setting; a size in one unit takes the place of the other's."""
        changes: dict[str, Any] = {}
        for flag, value in self.values.items():
            if flag == _TIME:
                continue
            tier, _, unit = flag.partition("-")
            if unit in ("pages", "gib") and tier in ("l1", "l2"):
                changes |= {f"{tier}_pages": None, f"{tier}_gib": None}
            changes[flag.replace("-", "_")] = value
        return replace(config, **changes)


def parse_sweep(texts: Sequence[str]) -> list[Setting]:
    """All combinations of `NAME=V1,V2,...`, the last varying fastest; raises ConfigError."""
    axes: dict[str, list[Value]] = {}
    for text in texts:
        name, equals, listed = text.partition("=")
        if not equals or name not in SWEPT:
            raise ConfigError(f"--sweep {text}: must be NAME=V1,V2 with one of {', '.join(SWEPT)}")
        if name in axes:
            raise ConfigError(f"--sweep {name} is given twice; list its values behind one")
        axes[name] = [_value(name, value) for value in listed.split(",")]
    settings = [Setting(values=values) for values in _combine(axes)]
    if len(settings) > MOST:
        raise ConfigError(f"--sweep: {len(settings)} combinations, at most {MOST} are tried")
    return settings


def _combine(axes: dict[str, list[Value]]) -> Iterator[dict[str, Value]]:
    for values in product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _value(name: str, text: str) -> Value:
    if name in _CHOICES:
        if text not in _CHOICES[name]:
            wanted = ", ".join(_CHOICES[name])
            raise ConfigError(f"--sweep {name}: {text!r} is none of {wanted}")
        return text
    if name == "l3-gib" and text == "unbounded":
        return None
    try:
        value = int(text) if name in _WHOLE else float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        kind = "whole number" if name in _WHOLE else "number"
        raise ConfigError(f"--sweep {name}: {text!r} is no {kind} above 0")
    return value
