"""Stores the last partial page of a finished turn, and names it for the next: docs/tails.md."""

from __future__ import annotations

from functools import partial

from kvloop.decode.offload import Extra
from kvloop.decode.request import OwnedRequest
from kvloop.engine.parts import NodeParts
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.tail import Tail, record_name, tail_key, with_newest


class Tails:
    """Makes the extra page of a request's offload; counts what becomes of it."""

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts
        self._page_size = parts.config.page_size

    def of(self, owner: OwnedRequest, num_storable: int | None) -> Extra | None:
        """The loop's, when a request has ended, of which so many tokens deserve storing (None:
        all); None where there is no partial page, or tails are off."""
        end = owner.num_kv if num_storable is None else min(owner.num_kv, num_storable)
        index, num_tokens = divmod(end, self._page_size)
        if not self._parts.config.tail_objects or not num_tokens:
            return None
        owner.grow_keys()
        parent = owner.keys[index - 1] if index else owner.seed
        tokens = (owner.request.prompt + owner.output)[end - num_tokens : end]
        tail = Tail(num_tokens, tail_key(parent, tokens))
        if self._parts.shape.codec != "none" and index == owner.num_kv // self._page_size:
            # A codec's scales are of whole pages: what earlier requests left must not count.
            self._parts.kv.tensor[:, :, owner.pages[index], num_tokens:] = 0
        return Extra(
            key=tail.key,
            index=index,
            prepare=partial(clear_behind, self._parts.pool, num_tokens),
            done=partial(self._done, parent, tail),
        )

    def _done(self, parent: bytes | None, tail: Tail, is_stored: bool) -> None:
        is_named = is_stored and self._name(parent, tail)
        self._parts.metrics.tail_tokens.labels("stored" if is_named else "failed").inc(
            tail.num_tokens
        )

    def _name(self, parent: bytes | None, tail: Tail) -> bool:
        """Read and written back: of two nodes that do so at once one may lose its tail's name."""
        store, name = self._parts.store, record_name(parent)
        return store.put_small(name, with_newest(store.get_small(name), tail))


def clear_behind(pool: HostPool, num_tokens: int, slot: int) -> None:
    """Zero the tokens of a host page behind its first ones: they are KV of other requests."""
    for group in range(pool.shape.head_groups):
        pool.payload(group)[slot, :, :, num_tokens:] = 0
