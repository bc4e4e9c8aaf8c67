"""Where the objects of one namespace lie under the root:

    kvl1/<namespace>/<key[0]>/<key[1]>/<object name>
    kvl1/<namespace>/small/<sha256 of the record's name>
    kvl1/<namespace>/tmp/<being written>
    kvl1/index.sqlite3    sizes and last uses of all namespaces' objects, on local file systems
    kvl1/walk.json        the sum of them, on others

`key[0]` and `key[1]` are the first two hexadecimal digits of a page's key.
"""

from __future__ import annotations

import hashlib

from kvloop.shared_cache.page_object import object_name

TOP = "kvl1"
SHARD_BYTES = 1
"""Of a key: its shard is told by the two digits. 256 shards hold millions of pages with ease, and
with more of them nearly every page of a young store would wait for a directory to be made."""
SMALL = "small"
TMP = "tmp"
INDEX = f"{TOP}/index.sqlite3"
WALK = f"{TOP}/walk.json"


class Layout:
    """Of one namespace; paths are relative to the root."""

    def __init__(self, namespace: bytes) -> None:
        self.namespace = namespace
        self.home = f"{TOP}/{namespace.hex()}"
        self.small = f"{self.home}/{SMALL}"
        self.tmp = f"{self.home}/{TMP}"

    def shard(self, key: bytes) -> str:
        """The directory of a page's objects."""
        digits = key[:SHARD_BYTES].hex()
        return f"{self.home}/{digits[0]}/{digits[1]}"

    def name(self, key: bytes, group: int) -> str:
        """An object's name in its shard."""
        return object_name(self.namespace, key, group)

    def path(self, key: bytes, group: int) -> str:
        """An object's path."""
        return f"{self.shard(key)}/{self.name(key, group)}"

    def small_name(self, name: str) -> str:
        """The file of a record, whatever its name holds."""
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
