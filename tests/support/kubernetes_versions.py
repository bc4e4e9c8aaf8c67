"""Versions of Kubernetes whose schemas manifests are checked against."""

from __future__ import annotations

from examples import IS_FULL

VERSIONS = [f"1.{minor}" for minor in (range(27, 38) if IS_FULL else (27, 32, 37))]
"""All that are supported in a full run; the oldest, the newest and one between otherwise."""
