"""SGLang's HiCacheStorage over any of kvloop's storage backends."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from kvloop.shared_cache.sglang import installed
from kvloop.shared_cache.sglang.config import parse_plugin_config
from kvloop.shared_cache.sglang.hybrid_storage import HybridStorage
from kvloop.shared_cache.sglang.identity import KV
from kvloop.shared_cache.sglang.rates import Rates
from kvloop.shared_cache.sglang.registered_pool import RegisteredPool

log = logging.getLogger(__name__)


class SharedCacheStorage(HybridStorage):
    """What SGLang calls; `KVLoopStorage` is this class and SGLang's HiCacheStorage in one.

    Only the construction and the registration of pools raise, at SGLang's start or attach. Later
    every fault of the store is a miss, is counted, and is logged by the guard before the store.
    """

    def __init__(self, storage_config: Any, _kwargs: object = None) -> None:
        """Raise ConfigError where the extra config is wrong."""
        self._storage_config = storage_config
        self._config = parse_plugin_config(storage_config.extra_config)
        self._rates = Rates(bool(storage_config.enable_storage_metrics))
        self._pools: dict[str, RegisteredPool] = {}

    # --- the pools ------------------------------------------------------------------------------

    def register_mem_pool_host(self, mem_pool_host: Any) -> None:
        """Store the pages of SGLang's KV pool; raises ConfigError where that cannot be."""
        self.mem_pool_host = mem_pool_host
        self._register(KV, mem_pool_host)

    def on_host_pools_registered(self) -> None:
        """Wait a while for the store; without it SGLang starts too."""
        for pool in self._pools.values():
            if pool.store is None or pool.store.wait_open(self._config.open_timeout_s):
                continue
            log.warning(
                "kvloop: storage backend %s is not there yet; SGLang goes on without it: %s",
                self._config.backend,
                pool.store.status()["last_error"],
            )

    def _register(self, name: str, host_pool: Any) -> None:
        registered = RegisteredPool(
            name, host_pool, self._storage_config, self._config, self._rates
        )
        if (former := self._pools.get(name)) and former.store is not None:
            former.store.close()
        self._pools[name] = registered

    @property
    def _kv(self) -> RegisteredPool:
        return self._pools[KV]

    # --- pages by their indices -----------------------------------------------------------------

    def batch_exists(self, keys: Sequence[str], extra_info: Any = None) -> int:
        """How many of the first pages are stored without a hole."""
        return 0 if self._kv.is_logical else self._kv.leading_run(keys)

    def batch_get_v1(
        self, keys: Sequence[str], host_indices: Any, extra_info: Any = None
    ) -> list[bool]:
        """Read pages into the pool; pages behind a hole may be False though they are stored."""
        return self._kv.read(keys, host_indices)

    def batch_set_v1(
        self, keys: Sequence[str], host_indices: Any, extra_info: Any = None
    ) -> list[bool]:
        """Store pages of the pool; True once a page can be read by all."""
        return self._kv.write(keys, host_indices)

    # --- pages as flat tensors ------------------------------------------------------------------

    def exists(self, key: str) -> bool:
        """Whether the page is stored."""
        return self.batch_exists([key]) == 1

    def get(self, key: str, target_location: Any = None, target_sizes: Any = None) -> Any:
        """The page, in `target_location` or in a new uint8 tensor; None where there is none."""
        return self.batch_get([key], [target_location])[0]

    def batch_get(
        self, keys: Sequence[str], target_locations: Any = None, target_sizes: Any = None
    ) -> list[Any]:
        """The pages, as `get` gives them; pages behind a hole may be None."""
        targets = list(target_locations or [None] * len(keys))
        size = self._kv.pages.page_bytes
        targets = [installed.byte_tensor(size) if target is None else target for target in targets]
        found = self._kv.read_tensors(keys, targets)
        return [target if ok else None for target, ok in zip(targets, found, strict=True)]

    def set(
        self, key: str, value: Any = None, target_location: Any = None, target_sizes: Any = None
    ) -> bool:
        """Store the page in `value` or, where that is None, in `target_location`."""
        return self.batch_set([key], [value], [target_location])

    def batch_set(
        self,
        keys: Sequence[str],
        values: Any = None,
        target_locations: Any = None,
        target_sizes: Any = None,
    ) -> bool:
        """Store pages; whether all of them are readable now."""
        nothing = [None] * len(keys)
        pairs = zip(values or nothing, target_locations or nothing, strict=True)
        tensors = [location if value is None else value for value, location in pairs]
        return all(self._kv.write_tensors(keys, tensors))

    # --- the whole ------------------------------------------------------------------------------

    def clear(self) -> None:
        """Remove the pages of this rank's namespaces, and no others."""
        for pool in self._pools.values():
            if pool.store is not None and (outcome := pool.store.clear()) != "cleared":
                log.warning("kvloop: pages of %s were not cleared: %s", pool.name, outcome)

    def get_stats(self) -> Any:
        """SGLang's StorageMetrics since the last call; None where it does not want them."""
        if not self._storage_config.enable_storage_metrics:
            return None
        metrics = installed.storage_metrics()
        self._rates.move_to(metrics)
        return metrics

    def stats(self) -> dict[str, dict[str, float]]:
        """kvloop's counters since the start, by pool: pages, bytes, faults, copies, errors."""
        return {name: pool.stats() for name, pool in self._pools.items()}

    def status(self) -> dict[str, dict[str, object]]:
        """By pool: is the store attached, why not, and its own counters."""
        stores = {name: pool.store for name, pool in self._pools.items()}
        return {name: store.status() for name, store in stores.items() if store is not None}

    def close(self) -> None:
        """Let go of the store; SGLang calls it when it detaches."""
        for pool in self._pools.values():
            if pool.store is not None and not pool.store.close():
                log.warning("kvloop: calls to the store of %s still hang", pool.name)
