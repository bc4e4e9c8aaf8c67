"""A storage class with SGLang's HiCacheStorage interface as a storage backend."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from kvloop.shared_cache.backend import PROBE_KEY, StorageBackend
from kvloop.shared_cache.backends.dynamic.memory import PoolFacade, PoolMemory
from kvloop.shared_cache.backends.dynamic.movers import IndexMover, Mover, TensorMover
from kvloop.shared_cache.backends.dynamic.sglang_interface import StorageConfig
from kvloop.shared_cache.backends.fixed_record import (
    LONGEST_VALUE,
    RECORD_BYTES,
    decode_record,
    encode_record,
)
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import object_name
from kvloop.shared_cache.storage_errors import StorageUnavailable, StorageUnsupported

Result = TypeVar("Result")


class SGLangClassBackend(StorageBackend):
    """Each object under its name as the class's key; calls of one kind come one at a time.

    SGLang calls its classes from one thread for each of exists, get and set, and this does too.
    An object that the class fails on while it serves others is a miss; a class that fails on all,
    and on a look for a page, is unavailable.
    """

    def __init__(
        self,
        storage_class: Callable[[StorageConfig, dict[str, Any]], Any],
        fields: Mapping[str, Any],
        pool: HostPool,
        namespace: bytes,
        *,
        is_v1: bool,
        where: str,
    ) -> None:
        """Raise StorageUnavailable where the constructor fails, or does not take the pool."""
        self._namespace = namespace
        self._groups = pool.shape.head_groups
        self._where = where
        self._is_v1 = is_v1
        self._looks, self._reads, self._writes = (threading.Lock() for _ in range(3))
        self._lock = threading.Lock()
        names = ("reads", "writes", "failed_objects", "refused_writes", "refused_records")
        self._stats = dict.fromkeys(names, 0.0)
        self._memory = PoolMemory(pool)
        config = StorageConfig(extra_config=dict(fields), model_name="kvloop")
        self._store = self._call("its constructor", lambda: storage_class(config, {}))
        try:
            self._mover = self._make_mover(pool)
        except StorageUnavailable:
            self.close()
            raise

    def _make_mover(self, pool: HostPool) -> Mover:
        if not self._is_v1:
            return TensorMover(self._store, self._memory)
        facade = PoolFacade(self._memory, pool.shape.page_size)
        self._call("register_mem_pool_host", lambda: self._store.register_mem_pool_host(facade))
        finish = getattr(self._store, "on_host_pools_registered", None)
        if callable(finish):
            self._call("on_host_pools_registered", finish)
        return IndexMover(self._store, facade)

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        return self._by_key(self._found(self._names(keys)))

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        names, numbers = self._names(keys), self._numbers(slots)
        first = _firsts(names, numbers)
        with self._reads:
            read = self._each("get", self._mover.read, list(first), list(first.values()))
        self._count("reads", sum(read))
        found = dict(zip(first, read, strict=True))
        for name, number in zip(names, numbers, strict=True):
            if found[name] and number != first[name]:
                self._memory.copy(first[name], number)
        return self._by_key([found[name] for name in names])

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        names, numbers = self._names(keys), self._numbers(slots)
        with self._writes:
            is_there = self._found(names)  # the first set wins, and few classes see to it
            missing = [i for i, is_stored in enumerate(is_there) if not is_stored]
            new = _firsts([names[i] for i in missing], [numbers[i] for i in missing])
            stored = dict(zip(new, self._write(list(new), list(new.values())), strict=True))
        return self._by_key([stored.get(name, True) for name in names])

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        """SGLang's interface has no delete: False, unless the class has one all the same."""
        delete = getattr(self._store, "delete", None)
        if not callable(delete):
            return [False] * len(keys)
        names = self._names(keys)
        with self._writes:
            is_there = self._found(names)
            gone = [
                is_stored and self._call("delete", partial(delete, name)) is not False
                for name, is_stored in zip(names, is_there, strict=True)
            ]
        return [any(page) for page in self._grouped(gone)]

    def put_small(self, name: str, value: bytes) -> bool:
        """False where the class keeps no bytes of its caller's, or the first value for ever."""
        is_kept = len(value) <= LONGEST_VALUE and self._keep(name, value)
        self._count("refused_records", not is_kept)
        return is_kept

    def get_small(self, name: str) -> bytes | None:
        with self._reads:
            record = self._record(self._record_name(name))
        return None if record is None else decode_record(record)

    def stats(self) -> dict[str, float]:
        with self._lock:
            return dict(self._stats)

    def clear(self) -> None:
        """The class's own `clear` would remove what others store, so that it is not used."""
        raise StorageUnsupported(
            f"{self._where}: a class with SGLang's interface cannot remove one namespace's pages"
        )

    def close(self) -> None:
        close = getattr(self._store, "close", None)
        if callable(close):
            close()

    # --- objects ----------------------------------------------------------------------------------

    def _names(self, keys: Sequence[bytes]) -> list[str]:
        groups = range(self._groups)
        return [object_name(self._namespace, key, group) for key in keys for group in groups]

    def _numbers(self, slots: Sequence[int]) -> list[int]:
        return [slot * self._groups + group for slot in slots for group in range(self._groups)]

    def _grouped(self, found: Sequence[bool]) -> list[list[bool]]:
        objects = iter(found)
        return list(iter(lambda: list(islice(objects, self._groups)), []))

    def _by_key(self, found: Sequence[bool]) -> list[bool]:
        return [all(page) for page in self._grouped(found)]

    def _found(self, names: Sequence[str]) -> list[bool]:
        """Object by object. A class tells how many it has before the first that it lacks."""
        found: list[bool] = []
        with self._looks:
            if len(names) > 1 and callable(getattr(self._store, "batch_exists", None)):
                run = self._run(names)
                found = [True] * run + [False] * (run < len(names))
            return found + [self._has(name) for name in names[len(found) :]]

    def _has(self, name: str) -> bool:
        if self._is_v1:  # some v1 classes name what `exists` looks for otherwise
            return self._run([name]) == 1
        return bool(self._call("exists", lambda: self._store.exists(name)))

    def _run(self, names: Sequence[str]) -> int:
        run = self._call("batch_exists", lambda: self._store.batch_exists(list(names)))
        if isinstance(run, int) and 0 <= run <= len(names):
            return int(run)
        raise StorageUnavailable(
            f"{self._where}: batch_exists of {len(names)} keys answered {run!r}; it must be how "
            "many of the first keys exist"
        )

    def _write(self, names: Sequence[str], numbers: Sequence[int]) -> list[bool]:
        stored = self._each("set", self._mover.write, names, numbers)
        self._count("writes", sum(stored))
        self._count("refused_writes", stored.count(False))
        return stored

    def _each(
        self,
        call: str,
        move: Callable[[Sequence[str], Sequence[int]], list[bool]],
        names: Sequence[str],
        numbers: Sequence[int],
    ) -> list[bool]:
        """Move a batch; where that fails each object alone, so that one bad one harms no other."""
        if not names:
            return []
        if len(names) > 1:
            with suppress(Exception):
                return move(names, numbers)
        moved: list[bool] = []
        errors: list[Exception] = []
        for name, number in zip(names, numbers, strict=True):
            try:
                moved += move([name], [number])
            except Exception as error:
                errors.append(error)
                moved.append(False)
        self._count("failed_objects", len(errors))
        if len(errors) == len(names):
            self._require_service(call, errors[0])
        return moved

    def _require_service(self, call: str, error: Exception) -> None:
        """All failed: raise where the store is at fault, and not the objects."""
        if call == "get":
            self._found([object_name(self._namespace, PROBE_KEY, 0)])
            return
        raise StorageUnavailable(f"{self._where}: {call} failed: {_words(error)}") from error

    # --- records ----------------------------------------------------------------------------------

    def _keep(self, name: str, value: bytes) -> bool:
        """Store, and look: False where nothing changed, since the class keeps what was first."""
        key, record = self._record_name(name), self._tensor(encode_record(value))
        with self._writes, self._reads:
            before = self._record(key)
            is_set = self._record_call("set", lambda: self._store.set(key, record))
            return bool(is_set) and self._record(key) not in (None, before)

    def _record_name(self, name: str) -> str:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        return f"kvl1-{self._namespace.hex()}-small-{digest}"

    def _record(self, key: str) -> bytes | None:
        place = self._tensor(bytes(RECORD_BYTES))
        answer = self._record_call("get", lambda: self._store.get(key, place))
        if answer is None or answer is False:
            return None
        return bytes((place if answer is True else answer).contiguous().numpy().tobytes())

    def _tensor(self, data: bytes) -> Any:
        torch = self._memory.torch
        return torch.frombuffer(bytearray(data), dtype=torch.uint8)

    def _record_call(self, what: str, call: Callable[[], Result]) -> Result | None:
        """Classes of v1 need not have get and set: then there are no records."""
        if not self._is_v1:
            return self._call(what, call)
        with suppress(Exception):
            return call()
        return None

    # --- the class --------------------------------------------------------------------------------

    def _call(self, what: str, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except Exception as error:
            raise StorageUnavailable(f"{self._where}: {what} failed: {_words(error)}") from error

    def _count(self, name: str, n: int) -> None:
        with self._lock:
            self._stats[name] += n


def _firsts(names: Sequence[str], numbers: Sequence[int]) -> dict[str, int]:
    """The first number of each name: some classes mix up a batch that has a key twice."""
    first: dict[str, int] = {}
    for name, number in zip(names, numbers, strict=True):
        first.setdefault(name, number)
    return first


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else repr(error)
