"""Kubernetes quantities as numbers."""

from __future__ import annotations

from decimal import Decimal

import pytest

from kvloop.operator.quantity import num_bytes, number


@pytest.mark.parametrize(
    ("quantity", "value"),
    [
        ("2", "2"),
        ("500m", "0.5"),
        ("1.5", "1.5"),
        ("3k", "3000"),
        ("2M", "2000000"),
        ("1E", "1000000000000000000"),
        ("1Ki", "1024"),
        ("0.5Gi", "536870912"),
        ("1Ei", "1152921504606846976"),
    ],
)
def test_a_quantity_has_the_value_that_kubernetes_gives_it(quantity: str, value: str) -> None:
    assert number(quantity) == Decimal(value)


def test_bytes_are_whole() -> None:
    assert num_bytes("1500m") == 1
    assert num_bytes("16Gi") == 16 << 30
