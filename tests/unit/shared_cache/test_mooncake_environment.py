"""Settings that are environment variables hold for a whole process, or are refused."""

from __future__ import annotations

import os

import pytest

from kvloop.shared_cache.backends.mooncake import environment
from kvloop.shared_cache.backends.mooncake.environment import require_environment
from kvloop.shared_cache.errors import ConfigError


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_is_read", False)
    for name in ("MC_GID_INDEX", "MC_IB_TC"):
        monkeypatch.setenv(name, "put back at the end")
        monkeypatch.delenv(name)


def test_a_setting_is_there_when_the_library_looks() -> None:
    require_environment({"MC_GID_INDEX": "3"})
    assert os.environ["MC_GID_INDEX"] == "3"


def test_two_backends_may_agree() -> None:
    require_environment({"MC_GID_INDEX": "3"})
    environment.environment_is_read()
    require_environment({"MC_GID_INDEX": "3"})


def test_another_value_in_the_same_process_is_refused_and_nothing_is_set() -> None:
    require_environment({"MC_GID_INDEX": "3"})
    with pytest.raises(ConfigError, match="MC_GID_INDEX should be '5' but is '3' for this whole"):
        require_environment({"MC_IB_TC": "1", "MC_GID_INDEX": "5"})
    assert "MC_IB_TC" not in os.environ


def test_a_setting_that_comes_after_the_library_looked_is_refused() -> None:
    environment.environment_is_read()
    with pytest.raises(ConfigError, match="MC_GID_INDEX should be '3' but is unset"):
        require_environment({"MC_GID_INDEX": "3"})
