from __future__ import annotations

from typing import Any

import pytest

from kvloop.shared_cache.backend_config import PrefetchLimits, split_prefetch_settings
from kvloop.shared_cache.errors import ConfigError


def test_settings_of_prefetch_are_parted_from_the_backends_own() -> None:
    extra = {
        "root": "/pages",
        "prefetch_threshold": 256,
        "prefetch_timeout_base": 1,
        "prefetch_timeout_per_ki_token": 0.25,
    }
    before = dict(extra)
    assert split_prefetch_settings(extra) == (PrefetchLimits(256, 1.0, 0.25), {"root": "/pages"})
    assert extra == before, "the caller's own is left as it is"


def test_what_is_not_given_is_none() -> None:
    assert split_prefetch_settings({"prefetch_timeout_base": 0, "prefetch_threshold": None}) == (
        PrefetchLimits(None, 0.0, None),
        {},
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prefetch_threshold", 1.5),
        ("prefetch_threshold", True),
        ("prefetch_threshold", -1),
        ("prefetch_threshold", "256"),
        ("prefetch_timeout_base", -0.1),
        ("prefetch_timeout_base", float("inf")),
        ("prefetch_timeout_base", float("nan")),
        ("prefetch_timeout_per_ki_token", [1]),
        ("prefetch_timeout_per_ki_token", False),
    ],
)
def test_a_setting_that_cannot_be_is_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be a "):
        split_prefetch_settings({name: value})
