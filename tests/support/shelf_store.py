"""A store in this process's memory for tests of tools: tells uses, lists, fails when it is told."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kvloop.shared_cache.backend import StorageBackend, StoredObject
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.manifest import RECORD, Manifest, encode_manifest
from kvloop.shared_cache.page_object import PageShape, seal
from kvloop.shared_cache.storage_errors import StorageUnavailable
from kvloop.shared_cache.store_tools.address import StoreAddress
from kvloop.shared_cache.wire import Role

MODULE = "shelf_store"
SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=2, head_size=8, itemsize=2, head_groups=2)
NS, OTHER = b"\x11" * 32, b"\x22" * 32
KEYS = [bytes([i]) * 32 for i in range(8)]


class Shelf:
    """What one store holds."""

    def __init__(self) -> None:
        self.objects: dict[tuple[bytes, bytes, int], bytes] = {}
        self.records: dict[tuple[bytes, str], bytes] = {}
        self.used: dict[bytes, float] = {}
        """By key; a page without one is of unknown use."""
        self.room: int | None = None
        """Pages that are still taken; None: any number."""
        self.can_list = True
        self.keeps_records = True
        self.fails: set[str] = set()
        """Calls that raise."""
        self.stalls: dict[str, threading.Event] = {}
        """Calls that hang until the event."""
        self.opened_as: list[bytes] = []
        """Namespaces that it was opened for."""
        self.num_gets = 0
        self.num_closed = 0

    def __getitem__(self, place: tuple[bytes, bytes]) -> list[bytes]:
        """A page's objects."""
        return [data for (ns, key, _), data in sorted(self.objects.items()) if (ns, key) == place]

    def plant(
        self,
        namespace: bytes,
        shape: PageShape,
        key: bytes,
        *,
        writer: Role = "prefill",
        used_at: float | None = None,
        groups: Sequence[int] | None = None,
    ) -> None:
        """A page that checks; `groups`: these objects of it alone."""
        for group in range(shape.head_groups) if groups is None else groups:
            data = bytearray((key * (shape.object_bytes // 32 + 1))[: shape.object_bytes])
            seal(memoryview(data), shape, key, namespace, group, writer)
            self.objects[namespace, key, group] = bytes(data)
        if used_at is not None:
            self.used[key] = used_at

    def flip(self, namespace: bytes, key: bytes, group: int = 0, place: int = 0) -> None:
        """Damage one byte."""
        data = bytearray(self.objects[namespace, key, group])
        data[place] ^= 1
        self.objects[namespace, key, group] = bytes(data)


def keys_left(shelf: Shelf, namespace: bytes = NS) -> set[bytes]:
    """Of the pages that have any object."""
    return {key for ns, key, _ in shelf.objects if ns == namespace}


def describe(shelf: Shelf, namespace: bytes = NS, **fields: Any) -> None:
    """Give it a manifest."""
    own = {"namespace": namespace.hex(), "shape": SHAPE, "model": "smollm2"}
    manifest = Manifest(**{**own, "kv_dtype": "bfloat16", **fields})
    shelf.records[namespace, RECORD] = encode_manifest(manifest)


SHELVES: defaultdict[str, Shelf] = defaultdict(Shelf)


def config(store: str) -> dict[str, Any]:
    """Of backend `dynamic`."""
    own = {"backend_name": "shelf", "module_path": MODULE, "class_name": "ShelfBackend"}
    return {**own, "store": store}


def address(store: str) -> StoreAddress:
    """How a tool opens the store of this name."""
    return StoreAddress(backend="dynamic", config=config(store), dynamic_modules=(MODULE,))


class ShelfBackend(StorageBackend):
    """Field `store` names the shelf."""

    def __init__(self, fields: Mapping[str, Any], pool: HostPool, namespace: bytes) -> None:
        self.shelf, self.pool, self.namespace = SHELVES[fields["store"]], pool, namespace
        self._begin("open")
        self.shelf.opened_as.append(namespace)

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        self._begin("exists")
        return [self._page(key) is not None for key in keys]

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        self._begin("get")
        self.shelf.num_gets += len(keys)
        return [self._read(key, slot) for key, slot in zip(keys, slots, strict=True)]

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        self._begin("set")
        return [self._write(key, slot) for key, slot in zip(keys, slots, strict=True)]

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        self._begin("delete")
        groups = range(self.pool.shape.head_groups)
        return [any([self._drop(key, group) for group in groups]) for key in keys]

    def put_small(self, name: str, value: bytes) -> bool:
        if self.shelf.keeps_records:
            self.shelf.records[self.namespace, name] = value
        return self.shelf.keeps_records

    def get_small(self, name: str) -> bytes | None:
        self._begin("get_small")
        return self.shelf.records.get((self.namespace, name))

    def stats(self) -> dict[str, float]:
        return {"gets": float(self.shelf.num_gets)}

    def clear(self) -> None:
        self._begin("clear")
        for table in (self.shelf.objects, self.shelf.records):
            for name in [name for name in table if name[0] == self.namespace]:
                del table[name]  # type: ignore[arg-type]

    def close(self) -> None:
        self._begin("close")
        self.shelf.num_closed += 1

    def objects(self) -> Iterator[StoredObject]:
        if not self.shelf.can_list:
            yield from super().objects()
        self._begin("objects")
        for (namespace, key, group), data in list(self.shelf.objects.items()):
            yield StoredObject(namespace, key, group, len(data), self.shelf.used.get(key))
        for (namespace, _), value in list(self.shelf.records.items()):
            yield StoredObject(namespace, None, 0, len(value), None)

    def _begin(self, call: str) -> None:
        if call in self.shelf.stalls:
            assert self.shelf.stalls[call].wait(30)
        if call in self.shelf.fails:
            raise StorageUnavailable(f"{call} fails")

    def _page(self, key: bytes) -> list[bytes] | None:
        page = self.shelf[self.namespace, key]
        shape = self.pool.shape
        is_whole = len(page) >= shape.head_groups
        return page if is_whole and all(len(d) == shape.object_bytes for d in page) else None

    def _read(self, key: bytes, slot: int) -> bool:
        page = self._page(key)
        for group, data in enumerate(page or []):
            self.pool.group_view(slot, group)[:] = data
        return page is not None

    def _write(self, key: bytes, slot: int) -> bool:
        if self._page(key) is not None:
            return True
        if self.shelf.room == 0:
            return False
        if self.shelf.room is not None:
            self.shelf.room -= 1
        for group in range(self.pool.shape.head_groups):
            data = bytes(self.pool.group_view(slot, group))
            self.shelf.objects[self.namespace, key, group] = data
        return True

    def _drop(self, key: bytes, group: int) -> bool:
        return self.shelf.objects.pop((self.namespace, key, group), None) is not None
