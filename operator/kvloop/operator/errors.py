"""What can go wrong in the operator.

OperatorError
├── ApiError          the API server refused or did not answer; tried again
├── ConnectError      a SharedCache cannot be connected; told in a condition
└── NodeError         a node or router did not answer as it should; told in a condition
"""

from __future__ import annotations


class OperatorError(Exception):
    """Base of the operator's errors."""


class ApiError(OperatorError):
    """The API server refused a call or did not answer in time."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; None: no answer."""


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
