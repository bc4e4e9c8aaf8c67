"""A host pool that SGLang has registered, with SGLang's keys, indices and tensors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.sglang import installed
from kvloop.shared_cache.sglang.config import PluginConfig
from kvloop.shared_cache.sglang.host_pages import HostPages, Indices, Piece
from kvloop.shared_cache.sglang.identity import KV, Component, is_replicated, namespace_of
from kvloop.shared_cache.sglang.keys import page_key
from kvloop.shared_cache.sglang.pool_store import PoolStore, describe
from kvloop.shared_cache.sglang.rates import Rates
from kvloop.shared_cache.sglang.tensors import is_target, piece_of, to_host

log = logging.getLogger(__name__)


class RegisteredPool:
    """Answers have one entry for each key; whatever goes wrong is False, logged and counted."""

    def __init__(
        self, name: str, pool: Any, storage_config: Any, config: PluginConfig, rates: Rates
    ) -> None:
        """Raise ConfigError where the pool's pages cannot be stored, or told from others."""
        tokens = int(getattr(pool, "logical_page_size", None) or getattr(pool, "page_size", 1) or 1)
        component = Component(name, pool, HostPages(pool, installed.first_page(tokens)))
        self.name = name
        self.pages = component.pages
        self._rates = rates
        self._num_errors = 0
        self._writes = not is_replicated(storage_config, component) or bool(
            getattr(storage_config, "is_storage_writer", True)
        )
        self.store = _open_store(component, storage_config, config)

    @property
    def is_logical(self) -> bool:
        """Whether pages have no bytes here: side pools hold all of them."""
        return self.store is None

    def leading_run(self, keys: Sequence[str]) -> int:
        """How many of the first pages are stored."""
        if self.store is None:
            return len(keys)
        return self.store.leading_run([page_key(key) for key in keys])

    def exists(self, keys: Sequence[str]) -> list[bool]:
        """Which pages are stored."""
        if self.store is None:
            return [True] * len(keys)
        return self.store.exists([page_key(key) for key in keys])

    def read(self, keys: Sequence[str], host_indices: Indices | None) -> list[bool]:
        """Read pages to the places of the pool that the indices name."""
        return self._guarded("read", keys, lambda: self._read(keys, self._at(keys, host_indices)))

    def write(self, keys: Sequence[str], host_indices: Indices | None) -> list[bool]:
        """Store pages from there; True at once where another rank writes the same bytes."""
        return self._guarded("write", keys, lambda: self._write(keys, self._at(keys, host_indices)))

    def read_tensors(self, keys: Sequence[str], targets: Sequence[Any]) -> list[bool]:
        """Read flat pages into tensors."""
        size = self.pages.page_bytes
        fits = [is_target(target, size) for target in targets]
        num_fitting = fits.index(False) if False in fits else len(fits)
        pieces = [[piece_of(target)] for target in targets[:num_fitting]]
        found = self._guarded("read", keys, lambda: self._read(keys[:num_fitting], pieces))
        return (found + [False] * len(keys))[: len(keys)]

    def write_tensors(self, keys: Sequence[str], values: Sequence[Any]) -> list[bool]:
        """Store flat pages from tensors; none of them where one is not of a page's size."""
        return self._guarded("write", keys, lambda: self._write_values(keys, values))

    def stats(self) -> dict[str, float]:
        """Counters since the start."""
        numbers = self.store.stats() if self.store is not None else {}
        return numbers | {"errors": float(self._num_errors)}

    def _at(self, keys: Sequence[str], host_indices: Indices | None) -> list[list[Piece]]:
        if host_indices is None:
            raise ValueError("no host indices")
        return self.pages.pieces(host_indices, len(keys))

    def _read(self, keys: Sequence[str], pages: list[list[Piece]]) -> list[bool]:
        if self.store is None:
            return [True] * len(keys)
        with self._rates.timed("prefetch", len(keys), self.pages.page_bytes):
            return self.store.read([page_key(key) for key in keys], pages)

    def _write(self, keys: Sequence[str], pages: list[list[Piece]]) -> list[bool]:
        if self.store is None or not self._writes:
            return [True] * len(keys)
        with self._rates.timed("backup", len(keys), self.pages.page_bytes):
            return self.store.write([page_key(key) for key in keys], pages)

    def _write_values(self, keys: Sequence[str], values: Sequence[Any]) -> list[bool]:
        held = [to_host(value, self.pages.page_bytes) for value in values]
        if any(tensor is None for tensor in held):
            raise ValueError(f"each page must be a tensor of {self.pages.page_bytes} bytes")
        return self._write(keys, [[piece_of(tensor)] for tensor in held])

    def _guarded(
        self, what: str, keys: Sequence[str], work: Callable[[], list[bool]]
    ) -> list[bool]:
        try:
            return work()
        except Exception as error:  # no fault of the cache may reach SGLang's threads
            self._count_error(f"{what} of {len(keys)} pages of {self.name} failed: {error!r}")
            return [False] * len(keys)

    def _count_error(self, message: str) -> None:
        self._num_errors += 1
        log.error("kvloop: %s", message)


def _open_store(
    component: Component, storage_config: Any, config: PluginConfig
) -> PoolStore | None:
    pages = component.pages
    if not pages.page_bytes:
        return None
    kv_dtype = config.kv_dtype or _kv_dtype(component)
    namespace = namespace_of(storage_config, component, kv_dtype, config.release_tag)
    name = storage_config.model_name or ""
    manifest = describe(
        namespace,
        pages,
        model=name.rpartition("/")[2],  # never a path
        kv_dtype=kv_dtype,
        release_tag=config.release_tag,
    )
    return PoolStore(pages, config, namespace=namespace, manifest=manifest)


def _kv_dtype(component: Component) -> str:
    """What the bytes mean: two fp8 formats are both uint8 in the pool, and must never meet.

    Of side pools some hold KV too (sliding windows), others have bytes of their own (an index).
    """
    dtype = component.pages.dtype
    if dtype != "uint8":
        return dtype
    configured = installed.configured_kv_dtype()
    if configured is None and component.name != KV:
        return dtype
    if configured is None:
        raise ConfigError(
            "SGLang's pool holds its KV as uint8, which does not tell one fp8 format from another: "
            "set kv_dtype in the extra config, to fp8_e4m3 or fp8_e5m2, or start SGLang with "
            "--kv-cache-dtype"
        )
    return configured
