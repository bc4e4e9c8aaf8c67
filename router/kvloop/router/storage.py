"""Which store the router's records lie in: named at launch, exchanged while it serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from kvloop.router.config import RouterConfig
from kvloop.router.errors import ApiError, BadRequest
from kvloop.router.history_recall import ChatMemory
from kvloop.router.history_store import SharedRecords, WriteResult
from kvloop.router.metrics import RouterMetrics
from kvloop.shared_cache.config_digest import config_digest
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.pod_variables import expanded
from kvloop.shared_cache.storage_change import EXTRA_CONFIG, StorageChange
from kvloop.shared_cache.store_tools.address import StoreAddress

_SETTLE_S = 3.0
_LOOK_S = 0.05
_DETACHED: dict[str, Any] = {
    "state": "detached",
    "last_error": None,
    "namespace": "",
    "stats": {},
}


class RouterStorage:
    """For the event loop; one action at a time."""

    def __init__(self, config: RouterConfig, metrics: RouterMetrics) -> None:
        """Raise ConfigError for a store that cannot be; connects to nothing yet."""
        self._config, self._metrics = config, metrics
        self._change = StorageChange(
            backend=config.hicache_storage_backend,
            extra_config=dict(config.hicache_storage_backend_extra_config),
        )
        self._running: str | None = None
        self.records = self._records_of(self._change)

    def status(self) -> dict[str, Any]:
        """The answer to GET; never blocks, shows no secret."""
        change, records = self._change, self.records
        known = records.storage_status() if records is not None else _DETACHED
        digest = config_digest(self._config.admin_api_key, change.backend, change.extra_config)
        return {"backend": change.backend or "none", **known, "config_digest": digest}

    async def attach(self, change: StorageChange, chats: ChatMemory) -> dict[str, Any]:
        """Have the chats' records in this store from now on; the status once it is known whether
        it opens, or after some seconds. Raises ApiError, and then nothing has changed."""
        with_records = self._checked(change)
        return await self._alone("attach", lambda: self._exchange(change, with_records, chats))

    async def detach(self, timeout_s: float, chats: ChatMemory) -> dict[str, Any]:
        """Share no records from now on; what waits to be written is, for so long."""
        return await self._alone(
            "detach", lambda: self._exchange(StorageChange(), None, chats, timeout_s)
        )

    async def _alone(self, name: str, work: Callable[[], Any]) -> dict[str, Any]:
        if self._running is not None:
            raise ApiError(409, f"{self._running} is still running; ask again")
        self._running = name
        try:
            await work()
        finally:
            self._running = None
        return self.status()

    async def _exchange(
        self,
        change: StorageChange,
        records: SharedRecords | None,
        chats: ChatMemory,
        timeout_s: float = _SETTLE_S,
    ) -> None:
        before, self._change, self.records = self.records, change, records
        chats.use(records)
        closing = asyncio.create_task(_close(before))
        await asyncio.wait([closing], timeout=timeout_s)  # it goes on where it takes longer
        if records is not None:
            await _settled(records)

    def _checked(self, change: StorageChange) -> SharedRecords | None:
        try:
            return self._records_of(change)
        except ConfigError as error:
            raise BadRequest(f"{EXTRA_CONFIG}: {error}", param=EXTRA_CONFIG) from None

    def _records_of(self, change: StorageChange) -> SharedRecords | None:
        if change.backend is None:
            return None
        address = StoreAddress(
            backend=change.backend,
            config=expanded(change.extra_config),
            dynamic_modules=self._config.hicache_dynamic_modules,
        )
        return SharedRecords(address, self._count, self._config.history_read_s)

    def _count(self, result: WriteResult) -> None:
        self._metrics.history_records.labels(result).inc()


async def _close(records: SharedRecords | None) -> None:
    if records is not None:
        await asyncio.to_thread(records.close)


async def _settled(records: SharedRecords) -> None:
    """Until it is known whether the store opens; without a namespace there is nothing to open."""
    for _ in range(int(_SETTLE_S / _LOOK_S)):
        if not records.namespace or records.storage_status()["state"] != "attaching":
            return
        await asyncio.sleep(_LOOK_S)
