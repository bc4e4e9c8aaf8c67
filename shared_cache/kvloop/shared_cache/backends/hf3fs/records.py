"""Small records on 3FS: whole or not there, whatever its client remembers of files that are gone.

    magic, length of the value, xxh3 of the value; the value

A record that is put again is a new file under the old name. 3FS takes the old one's bytes away at
once, while other nodes go on opening it for `entry_timeout` (30 s): they find it short.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct

import xxhash

from kvloop.shared_cache.backends.directory.root import OpenRoot
from kvloop.shared_cache.backends.directory.small_files import SmallFiles
from kvloop.shared_cache.backends.hf3fs.settled_io import settle

_HEADER = struct.Struct("<4sIQ")
_MAGIC = b"KVR1"
_NUM_ATTEMPTS = 8


class Records(SmallFiles):
    """Of one namespace; thread-safe. Raises the file system's OSError."""

    def put(self, root: OpenRoot, name: str, value: bytes) -> None:
        """Write aside and rename, once its length is known to all."""
        content = _HEADER.pack(_MAGIC, len(value), xxhash.xxh3_64_intdigest(value)) + value
        file_name = self._layout.small_name(name)
        draft = self._drafts.begin(root, self._layout.small, file_name)
        try:
            done = 0
            while done < len(content):
                done += os.pwrite(draft.fd, memoryview(content)[done:], done)
            settle(draft.fd)
            self._drafts.replace(root, draft)
        finally:
            self._drafts.end(root, draft)

    def get(self, root: OpenRoot, name: str) -> bytes | None:
        """The record, or None."""
        for _ in range(_NUM_ATTEMPTS):
            content = super().get(root, name)
            value = None if content is None else _value(content)
            if content is None or value is not None:
                return value
            self._look_again(root, self._layout.small_name(name))
        raise OSError(errno.EIO, "a damaged record", name)

    def _look_again(self, root: OpenRoot, file_name: str) -> None:
        """Have the kernel ask what the name stands for now.

        Linking a name to itself fails, as it exists; but finding that out asks the file system.
        """
        with contextlib.suppress(OSError):
            folder = root.directory(self._layout.small)
            try:
                os.link(file_name, file_name, src_dir_fd=folder, dst_dir_fd=folder)
            finally:
                os.close(folder)


def _value(content: bytes) -> bytes | None:
    """None where it is no whole record."""
    if len(content) < _HEADER.size:
        return None
    magic, length, checksum = _HEADER.unpack_from(content)
    value = content[_HEADER.size :]
    is_whole = magic == _MAGIC and len(value) == length
    return value if is_whole and xxhash.xxh3_64_intdigest(value) == checksum else None
