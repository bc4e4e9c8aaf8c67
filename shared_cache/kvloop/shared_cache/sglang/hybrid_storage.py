"""SGLang's v2 interface: hybrid models, whose prefix needs pages of side pools beside the KV's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from kvloop.shared_cache.sglang import installed
from kvloop.shared_cache.sglang.hybrid import PoolHits, restorable_lengths
from kvloop.shared_cache.sglang.identity import KV
from kvloop.shared_cache.sglang.registered_pool import RegisteredPool

_ALL, _TRAILING = "all_pages", "trailing_pages"
_NEVER_GATES = "block_groups"
"""Pages in a second form: a prefix is whole without them. Not looked for: no verdict on them."""


class HybridStorage(ABC):
    """Each side pool has a namespace of its own in the store, under the same keys."""

    _pools: dict[str, RegisteredPool]

    def register_mem_host_pool_v2(self, host_pool: Any, host_pool_name: Any) -> None:
        """Store a side pool's pages; raises ConfigError where that cannot be."""
        name = _name(host_pool_name)
        if name != KV:  # SGLang registers the KV's pool both ways
            self._register(name, host_pool)

    def batch_exists_v2(
        self, keys: Sequence[str], pool_transfers: Any = None, extra_info: Any = None
    ) -> Any:
        """SGLang's PoolTransferResult: how much of the prefix can be restored with all pools."""
        kv_pages = self._pools[KV].leading_run(keys)
        hits: dict[Any, int] = {KV: kv_pages} if kv_pages else {}
        restorable = list(range(1, kv_pages + 1))
        for transfer in pool_transfers or []:
            if _name(transfer.hit_policy) == _NEVER_GATES:
                continue
            lengths = self._lengths(keys[:kv_pages], transfer)
            if lengths:
                hits[transfer.name] = lengths[-1]
            restorable = sorted(set(restorable) & set(lengths))
        return installed.pool_transfer_result(restorable[-1] if restorable else 0, hits, restorable)

    def batch_get_v2(
        self, transfers: Sequence[Any], extra_info: Any = None
    ) -> dict[Any, list[bool]]:
        """Read each transfer's pages into its pool: by its name, an answer for each key."""
        return self._each(transfers, RegisteredPool.read)

    def batch_set_v2(
        self, transfers: Sequence[Any], extra_info: Any = None
    ) -> dict[Any, list[bool]]:
        """Store each transfer's pages: by its name, an answer for each key."""
        return self._each(transfers, RegisteredPool.write)

    @abstractmethod
    def _register(self, name: str, host_pool: Any) -> None:
        """Store this pool's pages from now on, under this name."""

    def _lengths(self, keys: Sequence[str], transfer: Any) -> list[int]:
        pool = self._pools.get(_name(transfer.name))
        policy = _name(transfer.hit_policy)
        if pool is None or not keys or policy not in (_ALL, _TRAILING):
            return []
        trailing = len(transfer.keys or ()) if policy == _TRAILING else None
        return restorable_lengths(PoolHits(pool.exists(keys), trailing), len(keys))

    def _each(
        self,
        transfers: Sequence[Any],
        move: Callable[[RegisteredPool, Sequence[str], Any], list[bool]],
    ) -> dict[Any, list[bool]]:
        answers: dict[Any, list[bool]] = {}
        for transfer in transfers:
            keys = list(transfer.keys or ())
            pool = self._pools.get(_name(transfer.name))
            found = move(pool, keys, transfer.host_indices) if pool else [False] * len(keys)
            answers[transfer.name] = found
        return answers


def _name(name: Any) -> str:
    """Of SGLang's string enumerations: the value."""
    return str(getattr(name, "value", name))
