"""Backends that are wrong on purpose, one fault each: the conformance suite must find every one."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reference_store import ReferenceBackend, Store

from kvloop.shared_cache.backend import StoredObject
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable

MODULE = "broken_backends"


class FlipsABit(ReferenceBackend):
    def get_one(self, key: bytes, slot: int) -> bool:
        found = super().get_one(key, slot)
        self.pool.view(slot)[-1] ^= 1
        return found


class ReadsNothing(ReferenceBackend):
    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        return self.exists(keys)


class FirstGroupOnly(ReferenceBackend):
    def get_one(self, key: bytes, slot: int) -> bool:
        page = self.page(key)
        if page is not None:
            self.pool.group_view(slot, 0)[:] = page[0]
        return page is not None


class MixesTheSlotsUp(ReferenceBackend):
    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        return super().get(keys, slots[::-1])


class WritesNextDoor(ReferenceBackend):
    def get_one(self, key: bytes, slot: int) -> bool:
        self.pool.view((slot + 1) % self.pool.num_slots)[:8] = bytes(8)
        return super().get_one(key, slot)


class ScribblesWhenItSets(ReferenceBackend):
    def set_one(self, key: bytes, slot: int) -> bool:
        is_stored = super().set_one(key, slot)
        self.pool.view(slot)[:8] = bytes(8)
        return is_stored


class ClaimsAll(ReferenceBackend):
    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        return [True] * len(keys)


class AnswersHitsOnly(ReferenceBackend):
    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        return [found for found in super().get(keys, slots) if found]


class StopsAtTheFirstMiss(ReferenceBackend):
    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        found = super().get(keys, slots)
        return [all(found[: i + 1]) for i in range(len(found))]


class RaisesOnAMiss(ReferenceBackend):
    def get_one(self, key: bytes, slot: int) -> bool:
        if not super().get_one(key, slot):
            raise KeyError(key)
        return True


class LastSetWins(ReferenceBackend):
    def set_one(self, key: bytes, slot: int) -> bool:
        self.delete([key])
        return super().set_one(key, slot)


class RefusesWhatIsThere(ReferenceBackend):
    def set_one(self, key: bytes, slot: int) -> bool:
        return self.page(key) is None and super().set_one(key, slot)


class NeedsASlot(ReferenceBackend):
    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        self.pool.view(slots[0])
        return super().get(keys, slots)


class SmallBatches(ReferenceBackend):
    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        return super().set(keys[:64], slots[:64]) + [False] * (len(keys) - 64)


class KeepsWhatIsDeleted(ReferenceBackend):
    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        return self.exists(keys)


class DeletesAreAlwaysTrue(ReferenceBackend):
    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        super().delete(keys)
        return [True] * len(keys)


class ForgetsAtClose(ReferenceBackend):
    def close(self) -> None:
        self.store.pages.clear()


class IgnoresNamespaces(ReferenceBackend):
    def name(self, key: bytes) -> tuple[bytes, bytes]:
        return bytes(32), key


class ClearsEverything(ReferenceBackend):
    def clear(self) -> None:
        self.store.pages.clear()
        self.store.records.clear()


class ListsNothing(ReferenceBackend):
    def objects(self) -> Iterator[StoredObject]:
        return iter(())


class ListsItsOwnOnly(ReferenceBackend):
    def objects(self) -> Iterator[StoredObject]:
        return (found for found in super().objects() if found.namespace == self.namespace)


class MarksItsNamespace(ReferenceBackend):
    def __init__(self, config: Mapping[str, Any], pool: HostPool, namespace: bytes) -> None:
        super().__init__(config, pool, namespace)
        self.put_small("marker", b"opened")


class FirstRecordWins(ReferenceBackend):
    def put_small(self, name: str, value: bytes) -> bool:
        self.store.records.setdefault((self.namespace, name), value)
        return True


class CleansRecordNames(ReferenceBackend):
    def put_small(self, name: str, value: bytes) -> bool:
        return super().put_small(name.replace("/", "_"), value)

    def get_small(self, name: str) -> bytes | None:
        return super().get_small(name.replace("/", "_"))


class CutsRecords(ReferenceBackend):
    def put_small(self, name: str, value: bytes) -> bool:
        return super().put_small(name, value[:4096])


class NoEmptyRecords(ReferenceBackend):
    def get_small(self, name: str) -> bytes | None:
        return super().get_small(name) or None


class TornRecords(ReferenceBackend):
    def put_small(self, name: str, value: bytes) -> bool:
        super().put_small(name, value[: len(value) // 2])
        time.sleep(0.002)
        return super().put_small(name, value)


class TornPages(ReferenceBackend):
    def set_one(self, key: bytes, slot: int) -> bool:
        page = bytes(self.pool.view(slot))
        self.pool.view(slot)[len(page) // 2 :] = bytes(len(page) - len(page) // 2)
        super().set_one(key, slot)
        self.pool.view(slot)[:] = page
        time.sleep(0.005)
        self.store.pages.pop(self.name(key), None)
        return super().set_one(key, slot)


class OneBufferForAll(ReferenceBackend):
    """Not thread-safe: every read goes through the same memory."""

    page_bytes = b""

    def get_one(self, key: bytes, slot: int) -> bool:
        if (page := self.page(key)) is None:
            return False
        type(self).page_bytes = b"".join(page)
        time.sleep(0.001)
        self.pool.view(slot)[:] = type(self).page_bytes
        return True


class KeepsForeignPages(ReferenceBackend):
    """A page of another length is neither served nor ever replaced."""

    def set_one(self, key: bytes, slot: int) -> bool:
        return self.name(key) in self.store.pages or super().set_one(key, slot)

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        return [self.page(key) is not None and super().delete([key])[0] for key in keys]


class TakesMisfitsForMisses(ReferenceBackend):
    def stats(self) -> dict[str, float]:
        return {name: count for name, count in super().stats().items() if name != "misfits"}


class ServesForeignPages(ReferenceBackend):
    """What is longer than an object runs over, and raises."""

    def page(self, key: bytes) -> list[bytes] | None:
        return self.store.pages.get(self.name(key))


class Unbounded(ReferenceBackend):
    def make_room(self) -> None:
        """None is made."""


class EvictsTheOldest(ReferenceBackend):
    def get_one(self, key: bytes, slot: int) -> bool:
        page = self.page(key)
        if page is not None:
            self.pool.view(slot)[:] = b"".join(page)
        return page is not None


class RaisesWhenFull(ReferenceBackend):
    def make_room(self) -> None:
        if self.store.num_bytes > self.bound:
            self.store.pages.popitem()
            raise StorageUnavailable("full")


class EmptiesItselfWhenFull(ReferenceBackend):
    def make_room(self) -> None:
        if self.store.num_bytes > self.bound:
            self.store.pages.clear()


class WordsInStats(ReferenceBackend):
    def stats(self) -> Any:
        return {"state": "fine"}


class IdleStats(ReferenceBackend):
    def stats(self) -> dict[str, float]:
        return {"gets": 0.0}


class Hangs(ReferenceBackend):
    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        threading.Event().wait(5)
        return super().exists(keys)


class LeaksDescriptors(ReferenceBackend):
    def __init__(self, config: Mapping[str, Any], pool: HostPool, namespace: bytes) -> None:
        super().__init__(config, pool, namespace)
        os.open("/dev/null", os.O_RDONLY)


class LeaksThreads(ReferenceBackend):
    def __init__(self, config: Mapping[str, Any], pool: HostPool, namespace: bytes) -> None:
        super().__init__(config, pool, namespace)
        threading.Thread(target=threading.Event().wait, args=(60,), daemon=True).start()


class LeaksMemory(ReferenceBackend):
    def __init__(self, config: Mapping[str, Any], pool: HostPool, namespace: bytes) -> None:
        super().__init__(config, pool, namespace)
        _KEPT.append(bytes(pool.num_bytes - 1) + b"x")


class LeaksUntilCollected(ReferenceBackend):
    """A cycle: what is held goes when the garbage collector comes."""

    def __init__(self, config: Mapping[str, Any], pool: HostPool, namespace: bytes) -> None:
        super().__init__(config, pool, namespace)
        self.held = bytes(pool.num_bytes - 1) + b"x"
        self.look = self.exists


class LeaksRegistrations(ReferenceBackend):
    """The pool stays locked."""

    def __init__(self, config: Mapping[str, Any], pool: HostPool, namespace: bytes) -> None:
        super().__init__(config, pool, namespace)
        address, size = ctypes.c_void_p(pool.base_address), ctypes.c_size_t(pool.num_bytes)
        assert ctypes.CDLL(None).mlock(address, size) == 0


class LeaksMappings(ReferenceBackend):
    def __init__(self, config: Mapping[str, Any], pool: HostPool, namespace: bytes) -> None:
        super().__init__(config, pool, namespace)
        for protection in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE):
            _KEPT.append(mmap.mmap(-1, 4096, mmap.MAP_SHARED, protection))


class WritesInPlace(ReferenceBackend):
    """Files of a directory, which others see while they grow."""

    def __init__(self, config: Mapping[str, Any], pool: HostPool, namespace: bytes) -> None:
        self.pool, self.namespace, self.store = pool, namespace, Store()
        self.root = Path(config["root"], namespace.hex())
        self.root.mkdir(parents=True, exist_ok=True)

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        return [(self.root / key.hex()).exists() for key in keys]

    def get_one(self, key: bytes, slot: int) -> bool:
        if not self.exists([key])[0]:
            return False
        data = (self.root / key.hex()).read_bytes()
        self.pool.view(slot)[: len(data)] = data
        return True

    def set_one(self, key: bytes, slot: int) -> bool:
        view = self.pool.view(slot)
        with (self.root / key.hex()).open("wb", buffering=0) as file:
            for start in range(0, view.nbytes, 65536):
                file.write(view[start : start + 65536])
                time.sleep(0.001)
        return True


class TornForOthers(WritesInPlace):
    """A lock hides from this process what others see."""

    lock = threading.Lock()

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        with self.lock:
            return super().get(keys, slots)

    def set_one(self, key: bytes, slot: int) -> bool:
        with self.lock:
            return self.exists([key])[0] or super().set_one(key, slot)


_KEPT: list[Any] = []
