"""Removing what was not used for longest."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from kvloop.shared_cache.backends.directory.account import ObjectId
from kvloop.shared_cache.backends.directory.index import Row
from kvloop.shared_cache.backends.directory.layout import Layout
from kvloop.shared_cache.backends.directory.root import OpenRoot


def up_to(num_bytes: int, rows: Iterable[Row]) -> Iterator[Row]:
    """The first rows that are so large together, or all."""
    for row in rows:
        if num_bytes <= 0:
            return
        num_bytes -= row.num_bytes
        yield row


def remove_object(root: OpenRoot, item: ObjectId) -> bool:
    """Whether the object's file is gone; a reader that has it open reads on."""
    layout = Layout(item.namespace)
    try:
        shard = root.directory(layout.shard(item.key))
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        os.unlink(layout.name(item.key, item.group), dir_fd=shard)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    finally:
        os.close(shard)
    return True


def object_size(root: OpenRoot, item: ObjectId) -> int | None:
    """Bytes of the object's file; None where there is none."""
    try:
        return root.size(Layout(item.namespace).path(item.key, item.group))
    except OSError:
        return None
