"""What the commands print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def show_release(release: Mapping[str, Any], *, as_manifests: bool) -> None:
    """What helm installed and what to do next, or the manifests alone."""
    if as_manifests:
        print(release["manifest"], flush=True)
        return
    print(release_line(release), flush=True)
    if notes := str(release.get("notes") or "").strip():
        print(f"\n{notes}", flush=True)


def release_line(release: Mapping[str, Any]) -> str:
    """The release on one line."""
    chart = f"{release['chart_name']}-{release['chart_version']}"
    return (
        f"release {release['name']} in namespace {release['namespace']}: {release['status']}, "
        f"revision {release['revision']}, chart {chart} (kvloop {release['app_version']})"
    )
