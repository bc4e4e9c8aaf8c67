"""SGLang's host pool as pages of bytes: where each page's pieces lie in this process's memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from kvloop.shared_cache.errors import ConfigError

LOGICAL = "logical"


class Piece(NamedTuple):
    """A run of a page's bytes in memory."""

    address: int
    num_bytes: int


class Indices(Protocol):
    """A tensor of token indices."""

    def tolist(self) -> list[int]:
        """As whole numbers."""

    def __len__(self) -> int:
        """Number of tokens."""


class HostPages:
    """The pages of one SGLang host pool, in the byte order of its own flat data page.

    So a page has the same bytes whether SGLang hands over tensors (`get_data_page`) or indices.
    """

    def __init__(self, pool: Any, first_page: Indices) -> None:
        """Raise ConfigError where the pool does not tell where its pages lie."""
        self._pool = pool
        self.layout = str(pool.layout)
        self.dtype = str(pool.dtype).removeprefix("torch.")
        self.tokens_per_page = len(first_page)
        """Indices that SGLang passes for each page."""
        self._sizes, self._order = self._plan(first_page)

    @property
    def page_bytes(self) -> int:
        """0: a logical anchor, whose pages have no bytes of their own."""
        return sum(self._sizes)

    @property
    def byte_order(self) -> str:
        """Equal names mean equal bytes: these two layouts differ only between pages."""
        return "layer_first" if self.layout == "page_first_direct" else self.layout

    def pieces(self, host_indices: Indices, num_pages: int) -> list[list[Piece]]:
        """The pieces of each page; raises ValueError where the indices are not these pages'."""
        if len(host_indices) != num_pages * self.tokens_per_page:
            raise ValueError(
                f"{len(host_indices)} host indices for {num_pages} pages of "
                f"{self.tokens_per_page} tokens"
            )
        if not num_pages or not self._sizes:
            return [[] for _ in range(num_pages)]
        self._require_inside(host_indices.tolist())
        addresses = self._pool.get_page_buffer_meta(host_indices)[0]
        step = len(self._sizes)
        if len(addresses) != num_pages * step:
            raise ValueError(f"the pool has {len(addresses)} pieces for {num_pages} pages")
        return [
            [Piece(addresses[start + i], self._sizes[i]) for i in self._order]
            for start in range(0, len(addresses), step)
        ]

    def _plan(self, first_page: Indices) -> tuple[list[int], list[int]]:
        """Bytes of each piece of a page, as the pool lists them, and their order in an object."""
        try:
            meta = self._pool.get_page_buffer_meta(first_page)
        except Exception as error:  # of many pool classes, each with errors of its own
            raise ConfigError(
                f"SGLang's host pool {type(self._pool).__name__} with --hicache-mem-layout "
                f"{self.layout} does not say where its pages lie ({type(error).__name__}: {error});"
                " use page_first or page_first_direct"
            ) from error
        if meta is None:
            return [], []
        sizes = [meta[1]] * len(meta[0]) if isinstance(meta[1], int) else list(meta[1])
        return sizes, self._flat_order(len(sizes))

    def _flat_order(self, num_pieces: int) -> list[int]:
        """K before V: in layer_first the pool lists K and V of each layer in turn."""
        order = list(range(num_pieces))
        has_halves = self.layout == "layer_first" and hasattr(self._pool, "v_buffer")
        if has_halves and num_pieces == 2 * self._pool.layer_num:
            return order[0::2] + order[1::2]
        return order

    def _require_inside(self, indices: list[int]) -> None:
        """Addresses are computed from the indices: a wrong one would be a wild pointer."""
        size = int(getattr(self._pool, "logical_size", self._pool.size))
        for first in indices[:: self.tokens_per_page]:
            if not 0 <= first <= size - self.tokens_per_page:
                raise ValueError(f"host index {first} is outside of the pool's {size} tokens")


def gather(pieces: Sequence[Piece], address: int) -> None:
    """Copy a page's pieces, one after the other, to `address`; other threads run meanwhile."""
    for piece in pieces:
        ctypes.memmove(address, piece.address, piece.num_bytes)
        address += piece.num_bytes


def scatter(address: int, pieces: Sequence[Piece]) -> None:
    """Copy the bytes at `address` to a page's pieces."""
    for piece in pieces:
        ctypes.memmove(piece.address, address, piece.num_bytes)
        address += piece.num_bytes


def size_of(pieces: Sequence[Piece]) -> int:
    """Bytes of a whole page."""
    return sum(piece.num_bytes for piece in pieces)
