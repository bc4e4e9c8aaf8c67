"""Page moves between a CUDA device's pool and pinned host memory, on streams of their own.

Nothing here waits for the device. What must come before what is said by events: a move begins after
all that the caller's current stream was given, and after earlier moves of the same pages or slots.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch

from kvloop.engine.cuda_move import CudaLayerMove, CudaMove
from kvloop.engine.cuda_sync import mark, new_stream
from kvloop.engine.kv_pool import KVPool
from kvloop.engine.node_config import IOBackend
from kvloop.engine.page_ids import PageIds
from kvloop.engine.page_mover import LayerMove, Move, PageMover, page_move_bytes
from kvloop.engine.page_path import PagePath, Span, make_path
from kvloop.engine.pinned import pin
from kvloop.shared_cache.host_pool import HostPool

Moving = TypeVar("Moving", bound=CudaMove)


class CudaMover(PageMover):
    """Backups on one stream, load-backs on another, so that the bus works both ways at once."""

    def __init__(self, kv: KVPool, host: HostPool, io_backend: IOBackend) -> None:
        """Pins the host pool for as long as the mover is open; raises ConfigError where it cannot.

        Compiles what moves will need, so that none of them waits for a compiler.
        """
        assert kv.device.type == "cuda", kv.device
        self._host, self._device = host, kv.device
        self._lock = threading.Lock()
        self._pinned = pin(host, kv.device)
        try:
            # The first layers are awaited: their kernels go before those of a busy device.
            load_backs = new_stream(kv.device, priority=-1)
            self._in = make_path(kv, host, io_backend, load_backs, to_host=False)
            self._out = make_path(kv, host, io_backend, new_stream(kv.device), to_host=True)
            self._warm_up()
        except BaseException:
            self._pinned.close()
            raise
        self._backups: list[CudaMove] = []
        self._load_backs: list[CudaLayerMove] = []

    def backup(self, pages: Sequence[int], slots: Sequence[int]) -> Move:
        with self._lock, torch.cuda.device(self._device):
            self._load_backs = _under_way(self._load_backs)
            self._order(self._out, self._load_backs, pages, slots)
            passage = self._out.copy([self._all], *self._ids(pages, slots))
            move = CudaMove(
                device=self._device,
                num_bytes=page_move_bytes(self._host, len(pages)),
                began=passage.began,
                ended=mark(self._out.last, has_time=True),
                pages=frozenset(pages),
                slots=frozenset(slots),
            )
            self._backups = [*_under_way(self._backups), move]
        return move

    def load_back(self, pages: Sequence[int], slots: Sequence[int]) -> LayerMove:
        with self._lock, torch.cuda.device(self._device):
            self._backups = _under_way(self._backups)
            self._order(self._in, self._backups, pages, slots)
            layer_bytes = page_move_bytes(self._host, len(pages)) // self._all.num_layers
            spans = self._in.spans(self._all.num_layers, layer_bytes)
            passage = self._in.copy(spans, *self._ids(pages, slots))
            move = CudaLayerMove(
                device=self._device,
                num_bytes=page_move_bytes(self._host, len(pages)),
                began=passage.began,
                ended=mark(self._in.last, has_time=True),
                pages=frozenset(pages),
                slots=frozenset(slots),
                first_layers=[span.first for span in spans],
                arrivals=passage.arrivals,
            )
            self._load_backs = [*_under_way(self._load_backs), move]
        return move

    def close(self) -> None:
        """Waits for the moves under way, then unpins the host pool."""
        with self._lock:
            try:
                for move in (*self._backups, *self._load_backs):
                    move.wait()
            finally:
                self._backups, self._load_backs = [], []
                self._pinned.close()

    @property
    def _all(self) -> Span:
        return Span(0, self._host.shape.num_layers)

    def _order(
        self,
        path: PagePath,
        others: Iterable[CudaMove],
        pages: Sequence[int],
        slots: Sequence[int],
    ) -> None:
        """Let the path wait for what its pages and slots wait for."""
        assert len(pages) == len(slots), (len(pages), len(slots))
        path.first.wait_stream(torch.cuda.current_stream())
        mine = frozenset(pages), frozenset(slots)
        for other in others:
            if other.touches(*mine):
                path.first.wait_event(other.ended)

    def _ids(self, *ids: Sequence[int]) -> list[PageIds]:
        return [PageIds.of(some, self._device) for some in ids]

    def _warm_up(self) -> None:
        """Moves of nothing compile the kernels and load them."""
        with torch.cuda.device(self._device):
            for path in (self._in, self._out):
                path.copy([self._all], *self._ids([], []))
            torch.cuda.synchronize()


def _under_way(moves: list[Moving]) -> list[Moving]:
    return [move for move in moves if not move.is_done]
