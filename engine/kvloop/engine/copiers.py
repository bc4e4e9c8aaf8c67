"""The two I/O backends: copies of pages between a grid on the device and one in pinned memory."""

from __future__ import annotations

import logging
from dataclasses import replace
from importlib.util import find_spec
from typing import Protocol

import torch

from kvloop.engine.copy_batch import Copies, plan_copies
from kvloop.engine.cuda_driver import copy_batch
from kvloop.engine.cuda_sync import mark, new_stream
from kvloop.engine.node_config import IOBackend
from kvloop.engine.page_grid import Extent, Grid
from kvloop.engine.page_ids import PageIds
from kvloop.shared_cache.errors import ConfigError

log = logging.getLogger(__name__)

_SHORT_BYTES = 64 << 10
"""Copies to the device of less than this take the driver 7 us each: 3 GB/s with 24 KiB."""
_LANES = 8
"""Streams that hide what a copy engine needs between two short copies to the host: 75 % of the bus
with one, 91 % with four, 93 % with eight, in pieces of 128 KiB. Copies to the device need none."""


class Copier(Protocol):
    """One direction's copies."""

    def prepare(self, pages: PageIds, slots: PageIds) -> None:
        """Have on the device what copies of these need there; on the current stream."""
        ...

    def copy(
        self,
        device: Grid,
        pages: PageIds,
        host: Grid,
        slots: PageIds,
        extent: Extent,
        stream: torch.cuda.Stream,
    ) -> None:
        """Queue copies between device `pages` and host `slots` on `stream`, the current one."""
        ...


def make_copier(
    io_backend: IOBackend, device: torch.device, *, to_host: bool, has_long_pieces: bool = False
) -> Copier:
    """The backend that a flag names."""
    if io_backend == "direct":
        lanes = _LANES if to_host and not has_long_pieces else 1
        return DirectCopier(device, to_host=to_host, num_lanes=lanes)
    return KernelCopier(to_host=to_host)


def backend_for(io_backend: IOBackend, piece_bytes: int) -> IOBackend:
    """The I/O backend that serves a pool whose pages lie in pieces of so many bytes."""
    if io_backend == "direct" and piece_bytes < _SHORT_BYTES and find_spec("triton") is not None:
        log.warning(
            "--hicache-io-backend direct: this layout's pieces of %d bytes are too short for copy "
            "engines, using kernel; page_first_direct has longer ones",
            piece_bytes,
        )
        return "kernel"
    return io_backend


class KernelCopier:
    """The gather/scatter kernel."""

    def __init__(self, *, to_host: bool) -> None:
        try:
            from kvloop.engine.page_kernel import copy_rows  # Triton is not on every machine
        except ImportError as error:
            raise ConfigError(
                f"--hicache-io-backend kernel needs Triton ({error}); install it or use direct"
            ) from error
        self._copy_rows, self._to_host = copy_rows, to_host

    def prepare(self, pages: PageIds, slots: PageIds) -> None:
        """As `Copier` says."""
        assert len(pages.tensor) == len(slots.tensor)

    def copy(
        self,
        device: Grid,
        pages: PageIds,
        host: Grid,
        slots: PageIds,
        extent: Extent,
        stream: torch.cuda.Stream,
    ) -> None:
        """As `Copier` says."""
        if self._to_host:
            self._copy_rows(device, pages.tensor, host, slots.tensor, extent)
        else:
            self._copy_rows(host, slots.tensor, device, pages.tensor, extent)


class DirectCopier:
    """Batches of copies by the copy engines."""

    def __init__(self, device: torch.device, *, to_host: bool, num_lanes: int = 1) -> None:
        self._to_host = to_host
        self._lanes = [new_stream(device) for _ in range(num_lanes - 1)]

    def prepare(self, pages: PageIds, slots: PageIds) -> None:
        """Addresses stay on the host."""

    def copy(
        self,
        device: Grid,
        pages: PageIds,
        host: Grid,
        slots: PageIds,
        extent: Extent,
        stream: torch.cuda.Stream,
    ) -> None:
        """As `Copier` says; `pages` are those that go with `slots` whenever these come."""
        if not len(slots):
            return
        plan = self._plan(
            replace(device, address=0), pages, replace(host, address=0), slots, extent
        )
        sources, targets = plan.sources + device.address, plan.targets + host.address
        if not self._to_host:
            sources, targets = plan.sources + host.address, plan.targets + device.address
        lanes = [stream, *self._lanes][: len(sources)]
        begun = mark(stream) if len(lanes) > 1 else None
        for index, lane in enumerate(lanes):
            part = slice(index, None, len(lanes))
            if begun is not None and lane is not stream:
                lane.wait_event(begun)
            copy_batch(sources[part], targets[part], plan.sizes[part], lane.cuda_stream)
        for lane in lanes[1:]:
            stream.wait_event(mark(lane))

    def _plan(
        self, device: Grid, pages: PageIds, host: Grid, slots: PageIds, extent: Extent
    ) -> Copies:
        """Copies relative to both grids' beginnings: the same for every layer of a move."""
        key = device, host, extent
        found = slots.memo.get(key)
        if found is None:
            ends = (device, pages.host), (host, slots.host)
            (source, sources), (target, targets) = ends if self._to_host else ends[::-1]
            found = slots.memo[key] = plan_copies(source, sources, target, targets, extent)
        assert isinstance(found, Copies)
        return found
