"""Asks a running node's admin API of the shared cache."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

from running import ADMIN, Running

PATH = "/hicache/storage-backend"


def ask(
    node: Running, method: str, path: str = PATH, body: Any = None, key: str | None = ADMIN
) -> tuple[int, Any]:
    """(status, parsed JSON)."""
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{node.url}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def attach(node: Running, backend: str, **config: Any) -> dict[str, Any]:
    """The status after a PUT that was taken."""
    body = {
        "hicache_storage_backend": backend,
        "hicache_storage_backend_extra_config_json": config,
    }
    status, answer = ask(node, "PUT", body=body)
    assert status == 200, answer
    return dict(answer)


def detach(node: Running) -> dict[str, Any]:
    """The status after a DELETE."""
    status, answer = ask(node, "DELETE")
    assert status == 200, answer
    return dict(answer)


def storage(node: Running) -> dict[str, Any]:
    """The answer to GET."""
    status, answer = ask(node, "GET")
    assert status == 200, answer
    return dict(answer)
