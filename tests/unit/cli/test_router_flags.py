"""Flags of `kvloop router` arrive in its config."""

from __future__ import annotations

from typing import Any

import pytest

from kvloop.cli.main import main
from kvloop.router.config import RouterConfig


@pytest.mark.parametrize(("flags", "seconds"), [((), 900.0), (("--session-horizon-s", "7"), 7.0)])
def test_the_horizon_of_sessions_is_a_flag(
    monkeypatch: Any, flags: tuple[str, ...], seconds: float
) -> None:
    run: list[RouterConfig] = []
    monkeypatch.setattr("kvloop.router.app.run_router", run.append)
    assert main(["router", *flags]) == 0
    assert run[0].session_horizon_s == seconds
