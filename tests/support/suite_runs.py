"""Runs the conformance suite, or some of its tests, on one backend within a test."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import broken_backends
import pytest
from reference_store import STORES, broken_spec

from kvloop.shared_cache.conformance import BackendSpec

_TESTS = """
import json
from dataclasses import replace
import pytest
from kvloop.shared_cache.conformance import BackendConformance, BackendSpec

FIELDS = json.loads({fields!r})

class TestIt(BackendConformance):
    @pytest.fixture
    def spec(self):
        fields = dict(FIELDS, dynamic_modules=tuple(FIELDS["dynamic_modules"]))
        return BackendSpec(**fields)

    @pytest.fixture
    def bounded(self, spec):
        bound = lambda n: {{**spec.extra_config, "store": "bounded", "num_bytes": n}}
        return lambda n: replace(spec, extra_config=bound(n))
"""

NEED_PROCESSES = ("Leaks", "WritesInPlace", "TornForOthers")
"""How the broken backends are called that are found by means of another process."""


def outcomes(pytester: pytest.Pytester, spec: BackendSpec, *arguments: str) -> dict[str, int]:
    """What became of the suite's tests on this backend."""
    STORES.clear()
    pytester.makepyfile(_TESTS.format(fields=json.dumps(asdict(spec))))
    run = pytester.inline_run("-q", "-p", "no:cacheprovider", *arguments)
    passed, skipped, failed = run.listoutcomes()
    return {"passed": len(passed), "skipped": len(skipped), "failed": len(failed)}


def broken(name: str, tmp_path: Path) -> BackendSpec:
    fields: dict[str, Any] = {"store": "broken", "root": str(tmp_path / "in-place")}
    spec = broken_spec(broken_backends.MODULE, name, **fields)
    can_share = name in ("WritesInPlace", "TornForOthers")
    deadline_s = 0.3 if name == "Hangs" else 30.0
    return BackendSpec(
        **asdict(spec) | {"can_share": can_share, "call_deadline_s": deadline_s}  # type: ignore[arg-type]
    )
