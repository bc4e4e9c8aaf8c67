"""The chart that comes with kvloop."""

from __future__ import annotations

from pathlib import Path

from kvloop.shared_cache.errors import ConfigError

_IN_WHEEL = Path(__file__).parents[1] / "chart"
_IN_REPOSITORY = Path(__file__).parents[4] / "charts" / "kvloop"


def bundled_chart() -> Path:
    """Its folder: in the installed package, or in the repository that runs from its sources."""
    for folder in (_IN_WHEEL, _IN_REPOSITORY):
        if (folder / "Chart.yaml").is_file():
            return folder
    raise ConfigError("the chart did not come with this installation of kvloop: name it by --chart")
