"""Kubernetes quantities as numbers."""

from __future__ import annotations

from decimal import Decimal

from kvloop.operator.types.base import Quantity

_BINARY = {f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGTPE", 1)}
_DECIMAL = {letter: Decimal(1000) ** power for power, letter in enumerate("kMGTPE", 1)}
_FACTORS = {**_BINARY, **_DECIMAL, "m": Decimal("0.001")}


def number(quantity: Quantity) -> Decimal:
    """16Gi is 17179869184, 500m is 0.5. The quantity is well-formed."""
    digits = quantity.rstrip("mkMGTPEKi")
    return Decimal(digits) * _FACTORS.get(quantity[len(digits) :], Decimal(1))


def num_bytes(quantity: Quantity) -> int:
    """Whole bytes, rounded down."""
    return int(number(quantity))
