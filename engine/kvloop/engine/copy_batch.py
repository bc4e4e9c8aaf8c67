"""The copies that move pages between two grids, in as few pieces as adjacent blocks allow."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kvloop.engine.page_grid import Extent, Grid, Ids, addresses, fused


class Copies(NamedTuple):
    """int64 `[copies]` each: addresses, and sizes in bytes."""

    sources: Ids
    targets: Ids
    sizes: Ids


def plan_copies(
    source: Grid, source_ids: Ids, target: Grid, target_ids: Ids, extent: Extent
) -> Copies:
    """Copies of pages between two grids, as few as adjacent blocks allow."""
    extent = fused(source, target, extent)
    # Blocks of neighbouring pages touch in grids that keep a layer's pages together.
    is_page_last = source.page == target.page == extent.row and extent.tokens == 1
    sources = addresses(source, source_ids, extent, is_page_last)
    targets = addresses(target, target_ids, extent, is_page_last)
    return _merged(sources, targets, extent.row)


def _merged(sources: Ids, targets: Ids, size: int) -> Copies:
    """Join each run of blocks that continues both in the source and in the target."""
    is_start = np.ones(len(sources), bool)
    is_start[1:] = (np.diff(sources) != size) | (np.diff(targets) != size)
    starts = np.flatnonzero(is_start)
    sizes = np.diff(starts, append=len(sources)) * size
    return Copies(
        np.ascontiguousarray(sources[starts]), np.ascontiguousarray(targets[starts]), sizes
    )
