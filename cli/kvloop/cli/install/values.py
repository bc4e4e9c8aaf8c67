"""Values of the chart from files and --set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvloop.cli.install.helm import library
from kvloop.shared_cache.errors import ConfigError


def merged(files: Sequence[Path], sets: Sequence[str]) -> dict[str, Any]:
    """Later files win over earlier ones, --set over files; maps are merged, lists replaced."""
    values: dict[str, Any] = {}
    for path in files:
        values = over(values, _of_file(path))
    return over(values, _of_sets(sets))


def over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`; a null stays, and removes the chart's own default."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = over(old, value) if both else value  # type: ignore[arg-type]
    return result


def _of_file(path: Path) -> dict[str, Any]:
    helm = library()
    try:
        found: dict[str, Any] | None = helm.values_from_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, helm.HelmError) as error:
        raise ConfigError(f"--values {path}: {error}") from error
    return found or {}


def _of_sets(sets: Sequence[str]) -> dict[str, Any]:
    helm = library()
    for one in sets:
        if "=" not in one:
            raise ConfigError(f"--set must be KEY=VALUE, got {one!r}")
    try:
        found: dict[str, Any] = helm.parse_set_string(",".join(sets))
    except helm.HelmError as error:
        raise ConfigError(f"--set: {error}") from error
    return found
