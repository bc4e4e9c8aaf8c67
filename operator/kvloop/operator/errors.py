"""What can go wrong in the operator.

OperatorError
├── ApiError          the API server refused or did not answer; tried again
├── InvalidResource   a resource breaks its schema or a rule; told in a condition
├── ConnectError      a SharedCache cannot be connected; told in a condition
└── NodeError         a node or router did not answer as it should; told in a condition
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class OperatorError(Exception):
    """Base of the operator's errors."""


class ApiError(OperatorError):
    """The API server refused a call or did not answer in time."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; None: no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with a resource."""

    field: str
    """Its path, such as spec.mooncake.masters.replicas."""
    message: str
    """What is wrong, and what would be right."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class InvalidResource(OperatorError):
    """A resource cannot be what it says; trying again is useless until it is changed."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))


class ConnectError(OperatorError):
    """A SharedCache cannot be connected as it is written."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        """Relative to its spec."""


class NodeError(OperatorError):
    """A node or router did not answer, or answered otherwise than it should."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; None: no answer."""
