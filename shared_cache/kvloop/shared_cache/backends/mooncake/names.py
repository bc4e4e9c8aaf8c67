"""What objects are called in the store: pages by their object's name, records by a digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from kvloop.shared_cache.backend import StoredObject
from kvloop.shared_cache.page_object import object_name, parse_object_name

_SMALL = re.compile(r"kvl1-([0-9a-f]{64})-small-[0-9a-f]{64}-0", re.ASCII)


class Names:
    """The names in one namespace."""

    def __init__(self, namespace: bytes, head_groups: int) -> None:
        self._prefix = f"kvl1-{namespace.hex()}-"
        self._suffixes = [f"-{group}" for group in range(head_groups)]
        probe = bytes(32)
        assert self.of_pages([probe])[0] == object_name(namespace, probe, 0)

    @property
    def pattern(self) -> str:
        """A regular expression of all names in the namespace."""
        return f"^{self._prefix}.*"

    def of_pages(self, keys: Sequence[bytes]) -> list[str]:
        """Of the pages' objects, all groups of one page after the other."""
        prefix = self._prefix
        return [f"{prefix}{key.hex()}{suffix}" for key in keys for suffix in self._suffixes]

    def of_record(self, name: str) -> tuple[str, str]:
        """Of the two objects that hold a small record; the first is always there."""
        stored = f"{self._prefix}small-{hashlib.sha256(name.encode()).hexdigest()}"
        return f"{stored}-0", f"{stored}-1"


def stored_object(name: str, num_bytes: int) -> StoredObject | None:
    """As a listing shows the object; None for what is not kvloop's, or is shown already."""
    page = parse_object_name(name)
    if page is not None:
        return StoredObject(page.namespace, page.key, page.group, num_bytes, None)
    record = _SMALL.fullmatch(name)
    if record is not None:
        return StoredObject(bytes.fromhex(record[1]), None, 0, num_bytes, None)
    return None
