"""Page moves where the device pool is host memory too: plain copies, load-back on a thread."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch

from kvloop.engine.codec import code_dtype, decode, encode
from kvloop.engine.kv_pool import KVPool
from kvloop.engine.page_mover import LayerMove, Move, PageMover, page_move_bytes
from kvloop.shared_cache.errors import TransferError
from kvloop.shared_cache.host_pool import HostPool

_DEADLINE_S = 60.0
_JOIN_S = 5.0


class Run(NamedTuple):
    """`length` pages and slots, each the one after the last: copied by one call."""

    page: int
    slot: int
    length: int


def runs(pages: Sequence[int], slots: Sequence[int]) -> list[Run]:
    """The pairs in order, joined where both go up by one."""
    joined: list[Run] = []
    for page, slot in zip(pages, slots, strict=True):
        last = joined[-1] if joined else None
        if last and (last.page + last.length, last.slot + last.length) == (page, slot):
            joined[-1] = last._replace(length=last.length + 1)
        else:
            joined.append(Run(page, slot, 1))
    return joined


class CpuMover(PageMover):
    """Backups are copied before `backup` returns; load-backs by one thread, in order."""

    def __init__(self, kv: KVPool, host: HostPool) -> None:
        assert kv.device.type == "cpu", kv.device
        self._host = host
        self._groups = [_Group(kv, host, group) for group in range(host.shape.head_groups)]
        self._lock = threading.Lock()
        self._is_closed = False
        self._queue: queue.SimpleQueue[_LoadBack | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True, name="load-back")
        self._thread.start()

    def backup(self, pages: Sequence[int], slots: Sequence[int]) -> Move:
        started = time.monotonic()
        for run in runs(pages, slots):
            for group in self._groups:
                group.backup(run)
        return _Done(page_move_bytes(self._host, len(pages)), time.monotonic() - started)

    def load_back(self, pages: Sequence[int], slots: Sequence[int]) -> LayerMove:
        num_layers = self._host.shape.num_layers if pages else 0
        move = _LoadBack(runs(pages, slots), num_layers, page_move_bytes(self._host, len(pages)))
        with self._lock:
            if self._is_closed:
                move.fail(TransferError("the node is stopping"))
            elif num_layers:
                self._queue.put(move)
        return move

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            self._queue.put(None)
        self._thread.join(_JOIN_S)

    def _serve(self) -> None:
        while (move := self._queue.get()) is not None:
            if self._is_closed:
                move.fail(TransferError("the node is stopping"))
            else:
                move.copy(self._groups)


class _Done(NamedTuple):
    """A move that was over when it was asked for."""

    num_bytes: int
    seconds: float
    is_done: bool = True

    def wait(self) -> None:
        """Nothing is under way."""

    def hold_device(self) -> None:
        """Nothing is under way."""


class _LoadBack:
    """Told of each layer by the mover's thread; see `LayerMove`."""

    def __init__(self, parts: Sequence[Run], num_layers: int, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self.seconds: float | None = None if num_layers else 0.0
        self._runs = parts
        self._num_layers = num_layers
        self._num_in = 0
        self._error: Exception | None = None
        self._change = threading.Condition()

    @property
    def is_done(self) -> bool:
        return self._num_in == self._num_layers or self._error is not None

    def wait(self) -> None:
        self.await_layer(self._num_layers - 1)

    def hold_device(self) -> None:
        """Load-backs follow one another anyhow, and whoever computes asks `before_layer`."""

    def before_layer(self, layer: int) -> None:
        self.await_layer(layer)

    def await_layer(self, layer: int) -> None:
        if layer < self._num_in or not self._num_layers:
            return
        with self._change:
            self._change.wait_for(lambda: layer < self._num_in or self._error, _DEADLINE_S)
        if layer >= self._num_in:
            reason = self._error or f"layer {layer} is not in after {_DEADLINE_S:.0f} s"
            raise TransferError(f"loading KV pages back failed: {reason}") from self._error

    def copy(self, groups: Sequence[_Group]) -> None:
        """On the mover's thread: copy all layers, or note the error for those who wait."""
        started = time.monotonic()
        try:
            for layer in range(self._num_layers):
                for run in self._runs:
                    for group in groups:
                        group.load_back(run, layer)
                with self._change:
                    self._num_in = layer + 1
                    self._change.notify_all()
            self.seconds = time.monotonic() - started
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Wake all who wait, and raise to them."""
        with self._change:
            self._error = error
            self._change.notify_all()


class _Group:
    """One head group's pages on both sides, as views that differ in strides only."""

    def __init__(self, kv: KVPool, host: HostPool, group: int) -> None:
        heads = host.shape.group_heads
        payload, scales = torch.from_numpy(host.payload(group)), host.scales(group)
        self._codec = host.shape.codec
        self._dtype = kv.dtype
        # [page, layer, k|v, token, head, size]
        self._device = kv.tensor.narrow(4, group * heads, heads).movedim(2, 0)
        self._host = payload.view(kv.dtype) if self._codec == "none" else payload
        self._scales = None if scales is None else torch.from_numpy(scales)
        assert self._host.shape[1:] == self._device.shape[1:], (payload.shape, kv.tensor.shape)

    def backup(self, run: Run) -> None:
        device, host = self._device[run.page :][: run.length], self._host[run.slot :][: run.length]
        if self._codec == "none":
            host.copy_(device)
            return
        assert self._scales is not None
        scales = self._scales[run.slot :][: run.length]
        for layer in range(device.shape[1]):  # one layer's block stays in the CPU's cache
            encoded = encode(device[:, layer], self._codec)
            host[:, layer].copy_(encoded.codes.view(torch.uint8))
            scales[:, layer].copy_(encoded.scales)

    def load_back(self, run: Run, layer: int) -> None:
        device = self._device[run.page :][: run.length, layer]
        host = self._host[run.slot :][: run.length, layer]
        if self._codec == "none":
            device.copy_(host)
            return
        assert self._scales is not None
        codes = host.view(code_dtype(self._codec))
        scales = self._scales[run.slot :][: run.length, layer]
        device.copy_(decode(codes, scales, self._dtype))
