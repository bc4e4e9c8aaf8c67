"""Rules of the types as `x-kubernetes-validations`."""

from __future__ import annotations

from typing import Any

from kvloop.operator.types.base import Model


def validations(model: type[Model]) -> list[dict[str, Any]]:
    """Those that CEL can say; API servers older than CEL ignore them."""
    return [{"rule": rule.cel, "message": rule.message} for rule in model.RULES if rule.cel]
