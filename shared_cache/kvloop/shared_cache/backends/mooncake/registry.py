"""Where masters in HA register which of them leads: etcd, asked over HTTP.

The library can do that too, but closing a client of its that does holds Python's lock for 30 s, and
opening one while there is no leader for 4 s: a node would stand still.
"""

from __future__ import annotations

import base64
import http.client
import json

from kvloop.shared_cache.storage_errors import StorageUnavailable

_DEFAULT_CLUSTER = "mooncake_cluster"
_TIMEOUT_S = 2.0


def leader_of(endpoints: list[tuple[str, int]], cluster_id: str) -> tuple[str, int]:
    """host and port of the leader's RPC; raises StorageUnavailable where none is registered."""
    key = f"mooncake-store/{cluster_id or _DEFAULT_CLUSTER}/master_view"
    errors = []
    for host, port in endpoints:
        try:
            found = _read(host, port, key)
        except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
            errors.append(f"{host}:{port}: {error}")
            continue
        if found is None:
            raise StorageUnavailable(
                f"storage backend 'mooncake': no leader is registered in etcd at {host}:{port} for "
                f"cluster_id {cluster_id or _DEFAULT_CLUSTER!r}"
            )
        return found
    raise StorageUnavailable(f"storage backend 'mooncake': no etcd answers: {'; '.join(errors)}")


def _read(host: str, port: int, key: str) -> tuple[str, int] | None:
    connection = http.client.HTTPConnection(host.strip("[]"), port, timeout=_TIMEOUT_S)
    try:
        question = json.dumps({"key": base64.b64encode(key.encode()).decode()})
        connection.request("POST", "/v3/kv/range", question)
        reply = connection.getresponse()
        body = reply.read()
    finally:
        connection.close()
    if reply.status != http.client.OK:
        raise OSError(f"status {reply.status} for /v3/kv/range")
    entries = json.loads(body).get("kvs")
    if not entries:
        return None
    leader, _, leader_port = base64.b64decode(entries[0]["value"]).decode().rpartition(":")
    return leader, int(leader_port)
