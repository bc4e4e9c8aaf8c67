"""Names of stored things where a store has one flat space of names: objects and records."""

from __future__ import annotations

import hashlib
import re

from kvloop.shared_cache.backend import StoredObject
from kvloop.shared_cache.page_object import parse_object_name

TOP = "kvl1-"
_RECORD = re.compile(r"kvl1-([0-9a-f]{64})-small-[0-9a-f]{64}", re.ASCII)


def namespace_prefix(namespace: bytes) -> str:
    """What the names of all pages and records of a namespace start with."""
    return f"{TOP}{namespace.hex()}-"


def record_name(namespace: bytes, name: str) -> str:
    """A record's name among all namespaces', whatever `name` holds."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{namespace_prefix(namespace)}small-{digest}"


def stored_object(name: str, num_bytes: int, used_at: float | None) -> StoredObject | None:
    """What a listing says of this name; None for a name that is none of ours."""
    parts = parse_object_name(name)
    if parts is not None:
        return StoredObject(*parts, num_bytes, used_at)
    record = _RECORD.fullmatch(name)
    if record is not None:
        return StoredObject(bytes.fromhex(record[1]), None, 0, num_bytes, used_at)
    return None
