"""Small parts of every JSON answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from kvloop.router.errors import ApiError
from kvloop.router.openai_types import StreamOptions


def json_reply(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response."""
    return Response(
        msgspec.json.encode(body), status, headers=headers, media_type="application/json"
    )


def error_reply(error: ApiError) -> Response:
    """A failure in OpenAI's shape."""
    return json_reply(error.body(), error.status, error.headers())


def usage_wanted(options: StreamOptions | None) -> bool:
    """Whether a stream ends with its usage."""
    return options is not None and bool(options.include_usage)
