from dataclasses import replace
from typing import Any

import pytest

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.namespace import NamespaceSpec

SPEC = NamespaceSpec(
    model_config={"layers": 2, "rope": {"theta": 1e4}},
    weights_fingerprint="abc",
    kv_dtype="bfloat16",
    page_size=64,
)


def test_the_digest_does_not_depend_on_the_order_of_fields() -> None:
    config = {"rope": {"theta": 1e4}, "layers": 2}
    assert replace(SPEC, model_config=config).digest() == SPEC.digest()


@pytest.mark.parametrize(
    "change",
    [
        {"model_config": {"layers": 3, "rope": {"theta": 1e4}}},
        {"weights_fingerprint": "abd"},
        {"kv_dtype": "float32"},
        {"page_size": 16},
        {"head_groups": 2},
        {"codec": "fp8"},
        {"release_tag": "blue"},
    ],
)
def test_every_field_parts_namespaces(change: dict[str, Any]) -> None:
    assert replace(SPEC, **change).digest() != SPEC.digest()


def test_the_digest_is_stable_over_releases() -> None:
    assert SPEC.hex == SPEC.digest().hex()
    assert SPEC.hex == "632d6bd53545bf935c7ebdffbe1b65a44890aa7f6807ba4ced8d2e19c38a443a"


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), object()])
def test_a_config_that_is_not_json_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="model_config must be JSON-like"):
        replace(SPEC, model_config={"x": value}).digest()
