#!/usr/bin/env python3
"""What a page costs 3FS's metadata service: as its own file, and as a piece of a large segment.

    python scripts/bench_hf3fs_layout.py [--pages 128] [--batch 32] [--json FILE]

Counts, on a mount of type fuse.hf3fs that behaves as 3FS's client does and counts what that would
ask (tests/support/hf3fs_mount; needs root): requests of the kernel, transactions of the metadata
service that read and that write, and files. No times: no 3FS runs here. Page files are the backend
`hf3fs` itself, with POSIX I/O. Segments are the least that could work: each writer appends pages to
a preallocated file and, for each batch, records to an index file whose length it makes known;
readers poll the index of every writer. Nothing of eviction, deletion or recovery is in that.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from hf3fs_mount import Hf3fsMount, can_mount

from kvloop.shared_cache.factory import open_backend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import ALIGNMENT, PageShape

SHAPE = PageShape(num_layers=8, page_size=16, num_kv_heads=8, head_size=128, itemsize=2)
"""512 KiB of KV: objects of 516 KiB."""


class Row(NamedTuple):
    """Of one step of one layout, for one page."""

    layout: str
    step: str
    requests: float
    """Of the kernel to the client."""
    meta_reads: float
    """Transactions of the metadata service that read;"""
    meta_writes: float
    """that write."""


class Segments:
    """One writer's segment and index, as a writer or as a reader of them."""

    def __init__(self, folder: Path, num_pages: int, is_writer: bool) -> None:
        folder.mkdir(exist_ok=True)
        flags = (os.O_RDWR | os.O_CREAT if is_writer else os.O_RDONLY) | os.O_DIRECT
        self._pages = os.open(folder / "segment", flags, 0o640)
        self._index = os.open(folder / "index", flags, 0o640)
        self._entries: dict[bytes, int] = {}
        self._index_end = 0
        self._block = mmap.mmap(-1, ALIGNMENT)
        if is_writer:
            os.ftruncate(self._pages, num_pages * SHAPE.object_bytes)

    def set(self, pool: HostPool, keys: Sequence[bytes], slots: Sequence[int]) -> None:
        """Write pages, then the records that make them visible, a block of 4 KiB for each batch."""
        for key, slot in zip(keys, slots, strict=True):
            number = len(self._entries)
            os.pwritev(self._pages, [pool.view(slot)], number * SHAPE.object_bytes)
            self._entries[key] = number
        records = b"".join(key + self._entries[key].to_bytes(8, "little") for key in keys)
        self._block[:] = records.ljust(ALIGNMENT, b"\0")
        os.pwritev(self._index, [self._block], self._index_end)
        self._index_end += ALIGNMENT
        os.close(os.dup(self._index))  # has the length made known

    def poll(self) -> None:
        """Learn what the writer has added."""
        while os.preadv(self._index, [self._block], self._index_end) == ALIGNMENT:
            self._index_end += ALIGNMENT
            records = bytes(self._block)
            for start in range(0, ALIGNMENT - 39, 40):
                if any(key := records[start : start + 32]):
                    number = int.from_bytes(records[start + 32 : start + 40], "little")
                    self._entries[key] = number

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        """From what is known here."""
        return [key in self._entries for key in keys]

    def get(self, pool: HostPool, keys: Sequence[bytes], slots: Sequence[int]) -> None:
        """Read pages."""
        for key, slot in zip(keys, slots, strict=True):
            offset = self._entries[key] * SHAPE.object_bytes
            assert os.preadv(self._pages, [pool.view(slot)], offset) == SHAPE.object_bytes

    def close(self) -> None:
        """Close the files."""
        os.close(self._pages)
        os.close(self._index)


class Bench:
    """Two nodes' mounts of one store, and pages to move."""

    def __init__(self, mount: Hf3fsMount, num_pages: int, batch: int) -> None:
        self._mount = mount
        self._batch = batch
        self._pool = HostPool(SHAPE, 2 * batch)
        self.num_pages = num_pages
        self.rows: list[Row] = []

    def page_files(self, layout: str, prefix: bytes) -> int:
        """The backend; keys with one prefix share a directory. Returns the number of files."""
        namespace = secrets.token_bytes(32)
        configs = [{"mount": str(point), "io": "posix"} for point in self._mount.points]
        writer, reader = (
            open_backend("hf3fs", config, self._pool, namespace) for config in configs
        )
        keys = self._keys(prefix)
        if prefix:
            writer.set(self._keys(prefix)[:1], [0])  # makes the directory
        before = self._num_files()
        self._count(layout, "write", keys, lambda part, slots: writer.set(part, slots))
        num_files = self._num_files() - before
        self._count(layout, "exists, other node", keys, lambda part, _: reader.exists(part))
        self._count(layout, "read, other node", keys, lambda part, slots: reader.get(part, slots))
        self._count(layout, "delete", keys, lambda part, _: writer.delete(part))
        writer.clear()
        writer.close()
        reader.close()
        return num_files

    def segments(self, layout: str) -> int:
        """The prototype; returns the number of files."""
        folder = "segments"
        before = self._num_files()
        writer = Segments(self._mount.points[0] / folder, self.num_pages, is_writer=True)
        reader = Segments(self._mount.points[1] / folder, self.num_pages, is_writer=False)
        keys = self._keys(b"")
        self._count(layout, "write", keys, lambda part, slots: writer.set(self._pool, part, slots))
        with self._counted(layout, "poll, each writer, once"):
            reader.poll()
        assert all(reader.exists(keys))
        self._count(layout, "exists, other node", keys, lambda part, _: reader.exists(part))
        self._count(
            layout,
            "read, other node",
            keys,
            lambda part, slots: reader.get(self._pool, part, slots),
        )
        writer.close()
        reader.close()
        return self._num_files() - before

    def _keys(self, prefix: bytes) -> list[bytes]:
        return [prefix + secrets.token_bytes(32 - len(prefix)) for _ in range(self.num_pages)]

    def _num_files(self) -> int:
        return sum(path.is_file() for path in self._mount.backing.rglob("*"))

    def _count(
        self,
        layout: str,
        step: str,
        keys: Sequence[bytes],
        work: Callable[[Sequence[bytes], list[int]], object],
    ) -> None:
        with self._counted(layout, step, len(keys)):
            for start in range(0, len(keys), self._batch):
                part = keys[start : start + self._batch]
                work(part, list(range(len(part))))

    @contextmanager
    def _counted(self, layout: str, step: str, num_pages: int = 1) -> Iterator[None]:
        self._mount.reset()
        yield
        counts = self._mount.counts()
        reads, writes = counts.pop("meta_read", 0), counts.pop("meta_write", 0)
        requests = sum(counts.values())
        self.rows.append(
            Row(layout, step, requests / num_pages, reads / num_pages, writes / num_pages)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=128, help="pages of each run")
    parser.add_argument("--batch", type=int, default=32, help="pages of one call")
    parser.add_argument("--json", type=Path, help="write the rows there too")
    arguments = parser.parse_args()
    if not can_mount():
        parser.error("mounting a FUSE file system needs root and /dev/fuse")
    with tempfile.TemporaryDirectory() as folder:
        mount = Hf3fsMount(Path(folder, "store"), Path(folder, "a"), Path(folder, "b"))
        try:
            bench = Bench(mount, arguments.pages, arguments.batch)
            files = {
                "page files": bench.page_files("page files", b"\0\0"),
                "page files, new directories": bench.page_files("page files, new directories", b""),
                "segments": bench.segments("segments"),
            }
        finally:
            mount.close()
    show(bench, files, arguments.batch)
    if arguments.json:
        rows = [row._asdict() for row in bench.rows]
        arguments.json.write_text(json.dumps({"rows": rows, "files": files}, indent=1))


def show(bench: Bench, files: dict[str, int], batch: int) -> None:
    """Print the table."""
    print(
        f"{bench.num_pages} pages of {SHAPE.object_bytes >> 10} KiB, {batch} a call; for each page:"
    )
    print(f"{'layout':29}{'step':26}{'requests':>10}{'meta reads':>12}{'meta writes':>13}")
    for row in bench.rows:
        numbers = f"{row.requests:10.2f}{row.meta_reads:12.2f}{row.meta_writes:13.2f}"
        print(f"{row.layout:29}{row.step:26}{numbers}")
    for layout, number in files.items():
        print(f"{layout}: {number} files for {bench.num_pages} pages")


if __name__ == "__main__":
    main()
