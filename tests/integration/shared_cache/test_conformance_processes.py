"""The faults that the conformance suite finds by means of another process."""

from __future__ import annotations

import inspect
from pathlib import Path

import broken_backends
import pytest
from suite_runs import NEED_PROCESSES, broken, outcomes

pytestmark = pytest.mark.integration
pytest_plugins = ("pytester",)

_FOUND_BY = {
    "LeaksDescriptors": "openings_leak",
    "LeaksThreads": "openings_leak",
    "LeaksMemory": "openings_leak",
    "LeaksMappings": "openings_leak",
    "LeaksUntilCollected": "openings_leak",
    "LeaksRegistrations": "openings_leak",
    "TornForOthers": "another_processs_writes",
    "WritesInPlace": "killed_writer and 1.5",
}


@pytest.mark.parametrize("name", _FOUND_BY)
def test_a_broken_backend_fails_the_test_of_what_is_broken(
    name: str, pytester: pytest.Pytester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the suite needs none
    assert outcomes(pytester, broken(name, tmp_path), "-k", _FOUND_BY[name])["failed"] > 0


def test_every_broken_backend_of_this_kind_is_put_to_the_test() -> None:
    names = {name for name, _ in inspect.getmembers(broken_backends, inspect.isclass)}
    assert {name for name in names if name.startswith(NEED_PROCESSES)} == set(_FOUND_BY)
