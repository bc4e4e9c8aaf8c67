"""NIXL is imported only when it is asked for, and its absence is explained."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys

import pytest

from kvloop.shared_cache.backends import nixl
from kvloop.shared_cache.backends.nixl.library import load_nixl, quiet_nixl
from kvloop.shared_cache.errors import ConfigError

_MODULES = [f"{nixl.__name__}.{module.name}" for module in pkgutil.iter_modules(nixl.__path__)]


def test_importing_the_backend_loads_neither_nixl_nor_torch() -> None:
    code = f"import sys, {', '.join(_MODULES)}; print(sorted(sys.modules))"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "nixl.server" in modules
    for library in ("'nixl'", "'nixl_cu12'", "'nixl_cu13'", "'torch'"):
        assert library not in modules


def test_without_the_wheel_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nixl", "nixl_cu12", "nixl_cu13"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match="install nixl-cu12 or nixl-cu13"):
        load_nixl()


def test_what_the_environment_says_of_logs_and_retries_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NIXL_LOG_LEVEL", "DEBUG")
    monkeypatch.delenv("AWS_MAX_ATTEMPTS", raising=False)
    monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
    quiet_nixl()
    assert os.environ["NIXL_LOG_LEVEL"] == "DEBUG" and os.environ["AWS_RETRY_MODE"] == "adaptive"
    assert os.environ["AWS_MAX_ATTEMPTS"] == "2"
