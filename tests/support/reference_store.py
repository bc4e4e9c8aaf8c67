"""A storage backend in this process's memory, as plain as the contract allows: the reference."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kvloop.shared_cache.backend import StorageBackend, StoredObject
from kvloop.shared_cache.conformance import BackendSpec
from kvloop.shared_cache.host_pool import HostPool

MODULE = "reference_store"


def reference_spec(store: str, class_name: str = "ReferenceBackend", **fields: Any) -> BackendSpec:
    """Names one store of this process; `fields` are the class's."""
    return broken_spec(MODULE, class_name, store=store, **fields)


def broken_spec(module: str, class_name: str, **fields: Any) -> BackendSpec:
    own = {"backend_name": class_name, "module_path": module, "class_name": class_name}
    return BackendSpec(
        name="dynamic", extra_config=own | fields, dynamic_modules=(module,), can_share=False
    )


class Store:
    """What outlives the openings."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.pages: OrderedDict[tuple[bytes, bytes], list[bytes]] = OrderedDict()
        """Namespace and key to the groups' objects, the least recently used first."""
        self.records: dict[tuple[bytes, str], bytes] = {}

    @property
    def num_bytes(self) -> int:
        return sum(len(one) for page in self.pages.values() for one in page)


STORES: defaultdict[str, Store] = defaultdict(Store)


class ReferenceBackend(StorageBackend):
    """Field `store` names the store, `num_bytes` bounds it."""

    def __init__(self, config: Mapping[str, Any], pool: HostPool, namespace: bytes) -> None:
        self.store = STORES[config["store"]]
        self.bound: float = config.get("num_bytes", float("inf"))
        self.pool, self.namespace = pool, namespace
        self.counts = {"gets": 0.0, "sets": 0.0, "misfits": 0.0}

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        with self.store.lock:
            return [self.page(key) is not None for key in keys]

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        return [self.get_one(key, slot) for key, slot in zip(keys, slots, strict=True)]

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        return [self.set_one(key, slot) for key, slot in zip(keys, slots, strict=True)]

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        with self.store.lock:
            return [self.store.pages.pop(self.name(key), None) is not None for key in keys]

    def put_small(self, name: str, value: bytes) -> bool:
        self.store.records[self.namespace, name] = value
        return True

    def get_small(self, name: str) -> bytes | None:
        return self.store.records.get((self.namespace, name))

    def stats(self) -> dict[str, float]:
        return dict(self.counts)

    def clear(self) -> None:
        with self.store.lock:
            for table in (self.store.pages, self.store.records):
                for name in [name for name in table if name[0] == self.namespace]:
                    del table[name]  # type: ignore[attr-defined]

    def close(self) -> None:
        """Nothing is held."""

    def objects(self) -> Iterator[StoredObject]:
        with self.store.lock:
            found = [
                StoredObject(namespace, key, group, len(data), None)
                for (namespace, key), page in self.store.pages.items()
                for group, data in enumerate(page)
            ]
            records = self.store.records.items()
            found += [StoredObject(ns, None, 0, len(value), None) for (ns, _), value in records]
        return iter(found)

    # --- one page -------------------------------------------------------------------------------

    def name(self, key: bytes) -> tuple[bytes, bytes]:
        return self.namespace, key

    def page(self, key: bytes) -> list[bytes] | None:
        """None where there is none of this shape."""
        page = self.store.pages.get(self.name(key))
        is_whole = page and all(len(data) == self.pool.shape.object_bytes for data in page)
        return page if is_whole else None

    def get_one(self, key: bytes, slot: int) -> bool:
        with self.store.lock:
            page = self.page(key)
            if page is None:
                self.counts["misfits"] += self.name(key) in self.store.pages
                return False
            self.store.pages.move_to_end(self.name(key))
        self.counts["gets"] += 1
        for group, data in enumerate(page):
            self.pool.group_view(slot, group)[:] = data
        return True

    def set_one(self, key: bytes, slot: int) -> bool:
        groups = range(self.pool.shape.head_groups)
        page = [bytes(self.pool.group_view(slot, group)) for group in groups]
        with self.store.lock:
            if self.page(key) is None:
                self.store.pages[self.name(key)] = page
                self.counts["sets"] += 1
                self.make_room()
            return True

    def make_room(self) -> None:
        while self.store.num_bytes > self.bound:
            self.store.pages.popitem(last=False)
