"""The shapes of a node's HTTP answers."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Response


def json_response(body: Any, status: int = 200) -> Response:
    """msgspec structs and plain data as JSON."""
    return raw_json(msgspec.json.encode(body), status)


def raw_json(body: bytes, status: int = 200) -> Response:
    """What is JSON already."""
    return Response(body, status, media_type="application/json")


def error_response(status: int, message: str) -> Response:
    """An error in words, in OpenAI's shape."""
    return json_response({"error": {"message": message, "code": status}}, status)
