"""One store under test, with a pool of slots: opens backends on it and cleans up behind them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.conformance.deadline import DeadlineBackend
from kvloop.shared_cache.conformance.pages import SMALL, object_view, page_image
from kvloop.shared_cache.conformance.spec import BackendSpec, Capability
from kvloop.shared_cache.guard import GuardConfig, GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.page_store import PageStore

_ATTACH_S = 30.0
_BLANK = 0xAA
Wrapper = Callable[[StorageBackend], StorageBackend]


class Place:
    """A namespace of its own in the store, and slots for pages of one shape."""

    def __init__(
        self,
        spec: BackendSpec,
        *,
        shape: PageShape = SMALL,
        num_slots: int = 40,
        namespace: bytes | None = None,
    ) -> None:
        self.spec = spec
        self.shape = shape
        self.namespace = namespace or secrets.token_bytes(32)
        self.pool = HostPool(shape, num_slots)
        self._opened: list[tuple[bytes, DeadlineBackend]] = []
        self._stores: list[PageStore] = []
        self._others: list[Place] = []
        self._used = {self.namespace}

    # --- backends -------------------------------------------------------------------------------

    def open(self, namespace: bytes | None = None) -> StorageBackend:
        """Closed at the end, and the namespace cleared; `shut` closes it now."""
        namespace = namespace or self.namespace
        self._used.add(namespace)
        backend = DeadlineBackend(
            lambda: self.spec.open(self.pool, namespace), self.spec.call_deadline_s
        )
        self._opened.append((namespace, backend))
        return backend

    def shut(self, backend: StorageBackend) -> None:
        """Close a backend that `open` gave."""
        self._opened = [entry for entry in self._opened if entry[1] is not backend]
        backend.close()

    def page_store(
        self, wrapped: Wrapper = lambda backend: backend, config: GuardConfig | None = None
    ) -> PageStore:
        """As a node has it: guarded, attached, and each page checked."""
        guard = GuardedBackend(
            lambda: wrapped(self.spec.open(self.pool, self.namespace)),
            self.pool,
            name=self.spec.name,
            namespace=self.namespace,
            config=config,
        )
        store = PageStore(guard, self.pool, namespace=self.namespace, writer="prefill")
        self._stores.append(store)
        assert guard.wait_attached(_ATTACH_S), guard.status()
        return store

    def reshaped(self, shape: PageShape, num_slots: int = 8) -> Place:
        """The same store and namespace, for pages of another shape."""
        other = Place(self.spec, shape=shape, num_slots=num_slots, namespace=self.namespace)
        self._others.append(other)
        return other

    def require(self, *capabilities: Capability) -> None:
        """Skip the test where the store is said to lack one."""
        for name in capabilities:
            if not getattr(self.spec, name):
                pytest.skip(f"the spec of {self.spec.name} says {name}=False")

    def close(self) -> None:
        """Clear what was written, and close all; what fails here has failed elsewhere before."""
        for other in self._others:
            other.close()
        for store in self._stores:
            store.close()
        if self.spec.can_delete:
            self._clear()
        with ThreadPoolExecutor(8) as threads:  # some stores take a second to leave
            list(threads.map(_close, [backend for _, backend in self._opened]))

    def _clear(self) -> None:
        for namespace in self._used - {namespace for namespace, _ in self._opened}:
            with suppress(Exception):
                self.open(namespace)
        for backend in dict(self._opened).values():
            with suppress(Exception):
                backend.clear()

    # --- pages ----------------------------------------------------------------------------------

    def new_keys(self, n: int) -> list[bytes]:
        """Keys that nobody has used."""
        return [secrets.token_bytes(32) for _ in range(n)]

    def filled(
        self, keys: Sequence[bytes], version: int = 0, namespace: bytes | None = None
    ) -> list[int]:
        """Slots that hold these pages, sealed."""
        slots = self._alloc(len(keys))
        for key, slot in zip(keys, slots, strict=True):
            self.pool.view(slot)[:] = self.image(key, version, namespace)
        return slots

    def blank(self, n: int) -> list[int]:
        """Slots that hold no page."""
        slots = self._alloc(n)
        for slot in slots:
            self.wipe(slot)
        return slots

    def wipe(self, slot: int) -> None:
        """Overwrite the slot, so that nothing read before can be taken for read now."""
        self.pool.view(slot)[:] = bytes([_BLANK]) * self.shape.slot_bytes

    def image(self, key: bytes, version: int = 0, namespace: bytes | None = None) -> bytes:
        """The bytes of a page."""
        return page_image(self.shape, namespace or self.namespace, key, version)

    def holds(self, slot: int, key: bytes, versions: Sequence[int] = (0,)) -> bool:
        """Whether each object in the slot is, bit for bit, that of one of these versions.

        Writers of different content under one key may win a group each: the first set of an
        object wins, and in service all contents of a key are equal.
        """
        images = [memoryview(self.image(key, version)) for version in versions]
        return all(
            self.pool.group_view(slot, group)
            in [object_view(self.shape, image, group) for image in images]
            for group in range(self.shape.head_groups)
        )

    def read_back(
        self, backend: StorageBackend, keys: Sequence[bytes], versions: Sequence[int] = (0,)
    ) -> list[bool]:
        """For each key whether it was found; fails where what was found is not the page."""
        slots = self.blank(len(keys))
        found = backend.get(keys, slots)
        assert len(found) == len(keys), "one answer for each key"
        for key, slot, is_found in zip(keys, slots, found, strict=True):
            if is_found:
                assert self.holds(slot, key, versions), "a page came back with other bytes"
        self.pool.free(slots)
        return found

    def _alloc(self, n: int) -> list[int]:
        slots = self.pool.alloc(n)
        assert slots is not None, "the test needs a larger pool"
        return slots


def _close(backend: StorageBackend) -> None:
    with suppress(Exception):
        backend.close()
