"""What a client sees when a request fails, in OpenAI's shape.

ApiError
├── BadRequest     4xx: the request is wrong and names the field
└── UpstreamDied   502: the node went away in mid-answer
"""

from __future__ import annotations

from typing import Any

from kvloop.shared_cache.errors import KVLoopError

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
}


class ApiError(KVLoopError):
    """A failure with its HTTP status; `param` names the field at fault."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        kind = _TYPES.get(self.status, "server_error")
        fields = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": fields}

    def headers(self) -> dict[str, str]:
        """Extra response headers."""
        if self.retry_after_s is None:
            return {}
        return {"Retry-After": str(max(1, round(self.retry_after_s)))}


class BadRequest(ApiError):
    """The client's request is wrong; repeating it is useless."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(400, message, param=param, code=code)


class UpstreamDied(ApiError):
    """The decode node went away after it had begun to answer."""

    def __init__(self, message: str) -> None:
        super().__init__(502, message, code="upstream_died")
