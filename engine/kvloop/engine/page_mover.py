"""Moves of KV pages between the device pool (L1) and the host pool (L2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from kvloop.engine.kv_pool import KVPool
from kvloop.engine.node_config import IOBackend
from kvloop.shared_cache.host_pool import HostPool


class Move(Protocol):
    """Pages on their way; until it is done the caller keeps an owner of its pages and slots."""

    @property
    def num_bytes(self) -> int:
        """Bytes read from or written to the host pool."""

    @property
    def is_done(self) -> bool:
        """Whether nothing more is read or written: all is there, or it failed. Never blocks."""

    @property
    def seconds(self) -> float | None:
        """How long the copying took; None until that is known."""

    def wait(self) -> None:
        """Return when all is there; raises TransferError where it failed or did not end."""

    def hold_device(self) -> None:
        """Let device work that is submitted later on the current stream, and later load-backs,
        start after this move; the host does not wait."""


class LayerMove(Move, Protocol):
    """A move into the device pool, usable layer by layer; thread-safe."""

    def before_layer(self, layer: int) -> None:
        """Called by each thread that is about to compute a layer: its pages are in before that.

        On a CPU the caller waits, on a GPU its stream does. Raises as `wait`.
        """

    def await_layer(self, layer: int) -> None:
        """Return when the layer's pages are in; raises as `wait`."""


class PageMover(ABC):
    """Copies between one device pool and one host pool, through the host pool's codec."""

    @abstractmethod
    def backup(self, pages: Sequence[int], slots: Sequence[int]) -> Move:
        """Copy device pages into host slots, all layers."""

    @abstractmethod
    def load_back(self, pages: Sequence[int], slots: Sequence[int]) -> LayerMove:
        """Copy host slots into device pages, layer 0 first, behind the caller's back."""

    @abstractmethod
    def close(self) -> None:
        """Moves that have not begun fail."""


def page_move_bytes(host: HostPool, num_pages: int) -> int:
    """Host bytes that moving `num_pages` reads or writes."""
    shape = host.shape
    return num_pages * shape.head_groups * (shape.payload_bytes + shape.scales_bytes)


def make_mover(kv: KVPool, host: HostPool, io_backend: IOBackend) -> PageMover:
    """The mover for the device that `kv` is on; `io_backend` chooses among a GPU's two."""
    if kv.device.type == "cpu":
        from kvloop.engine.cpu_mover import CpuMover

        return CpuMover(kv, host)
    from kvloop.engine.cuda_mover import CudaMover

    return CudaMover(kv, host, io_backend)
