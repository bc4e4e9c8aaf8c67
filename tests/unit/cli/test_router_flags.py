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


def test_the_store_of_shared_history_is_named_by_flags(monkeypatch: Any) -> None:
    run: list[RouterConfig] = []
    monkeypatch.setattr("kvloop.router.app.run_router", run.append)
    flags = [
        *("--hicache-storage-backend", "file"),
        *("--hicache-storage-backend-extra-config", '{"root": "/l3"}'),
        *("--hicache-dynamic-modules", "mine"),
        *("--history-read-s", "0.2"),
    ]
    assert main(["router", *flags]) == 0 and main(["router"]) == 0
    named, unnamed = run
    assert named.hicache_storage_backend == "file"
    assert named.hicache_storage_backend_extra_config == {"root": "/l3"}
    assert named.hicache_dynamic_modules == ("mine",)
    assert (named.history_read_s, unnamed.history_read_s) == (0.2, 0.1)
    assert unnamed.hicache_storage_backend is None
