"""Runs in a pod: pages into and out of a SharedCache, as a node moves them.

`python -c "$(cat page_client.py)" BACKEND CONFIG`, with `${POD_IP}` in CONFIG. An order is a line
of standard input: `put N` or `read KEY ...`; its answer is a line of JSON, the keys that were
stored, or that are there with the right bytes.
"""

import json
import os
import secrets
import sys

from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.guard import GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape

SHAPE = PageShape(num_layers=4, page_size=16, num_kv_heads=8, head_size=64, itemsize=4)
NAMESPACE = b"n" * 32
OPEN_S = 60.0


class Pages:
    """Each page holds its key."""

    def __init__(self, backend: str, config: dict[str, object]) -> None:
        self._pool = HostPool(SHAPE, 2)
        slots = self._pool.alloc(2)
        assert slots is not None
        self._source, self._target = slots
        opener = backend_opener(backend, config, self._pool, NAMESPACE)
        self._guard = GuardedBackend(opener, self._pool, name=backend, namespace=NAMESPACE)
        self._guard.wait_attached(OPEN_S)

    def put(self, num_pages: str) -> list[str]:
        keys = [secrets.token_bytes(32) for _ in range(int(num_pages))]
        return [key.hex() for key in keys if self._put(key)]

    def read(self, *keys: str) -> list[str]:
        return [key for key in keys if self._is_there(bytes.fromhex(key))]

    def _put(self, key: bytes) -> bool:
        self._pool.view(self._source)[:] = key * (SHAPE.slot_bytes // 32)
        return self._guard.set([key], [self._source]) == [True]

    def _is_there(self, key: bytes) -> bool:
        self._pool.view(self._target)[:] = bytes(SHAPE.slot_bytes)
        if self._guard.get([key], [self._target]) != [True]:
            return False
        return bytes(self._pool.view(self._target)) == key * (SHAPE.slot_bytes // 32)


def main() -> None:
    config = json.loads(sys.argv[2].replace("${POD_IP}", os.environ["POD_IP"]))
    pages = Pages(sys.argv[1], config)
    print("ready", flush=True)
    for line in sys.stdin:
        name, *words = line.split()
        print(json.dumps(getattr(pages, name)(*words)), flush=True)
    os._exit(0)  # a dead master would be waited for


main()
