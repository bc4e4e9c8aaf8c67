"""What is wrong in the configuration of `zones` is said when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from two_stores import NAMESPACE, Slots

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.factory import backend_opener

INNER = {"backend": "file", "config": {"root": "r"}}


@pytest.fixture
def slots() -> Slots:
    return Slots()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"zone": ""}, "`$.zone`"),
        ({"zone": "../up"}, "`$.zone`"),
        ({"zone": "a" * 64}, "`$.zone`"),
        ({"central": INNER}, "local and central are the same store"),
        ({"central": {"backend": "tape"}}, "central: unknown storage backend 'tape'"),
        ({"local": {"backend": "file"}}, "local: storage backend 'file'"),
        ({"outbox_pages": 0}, "outbox_pages"),
        ({"staging_pages": 0}, "staging_pages"),
        ({"keep_queue_pages": 0}, "keep_queue_pages"),
        ({"lease_s": 0}, "lease_s"),
        ({"local_deadline_s": 0}, "local_deadline_s"),
        ({"central_deadline_s": -1}, "central_deadline_s"),
        ({"keep": "yes"}, "keep"),
        ({"moon": {}}, "unknown field 'moon'"),
    ],
)
def test_a_wrong_configuration_is_refused_at_once_and_named(
    fields: dict[str, Any], words: str, slots: Slots, tmp_path: Path
) -> None:
    other = {"backend": "file", "config": {"root": str(tmp_path)}}
    good = {"zone": "edge-a", "local": INNER, "central": other}
    with pytest.raises(ConfigError) as caught:
        backend_opener("zones", good | fields, slots.pool, NAMESPACE)
    assert words in str(caught.value)
