"""How AIBrix's folders and files are named, and what they hold.

    <root>/kvl1-<namespace>-<object bytes>_<its own suffix>/   blocks of pages
    <root>/kvl1-<namespace>-records_<its own suffix>/          blocks of small records
    <root>/kvl1-locks/                                         KeyLocks

A block of a page has the hash `<key>-<group>`; SHFS names its file by the hash's bytes in hex.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from kvloop.shared_cache.backend import StoredObject
from kvloop.shared_cache.backends.aibrix.config import BlockLayout

LOCKS = "kvl1-locks"
_FOLDER = re.compile(r"kvl1-([0-9a-f]{64})-([1-9][0-9]*|records)_\w+?(LCND|NCLD)([0-9]+)\w*", re.I)
_PAGE = re.compile(r"([0-9a-f]{64})-(0|[1-9][0-9]{0,4})")


class Folder(NamedTuple):
    """One store of blocks on disk."""

    path: Path
    name: str
    """AIBrix's namespace."""
    namespace: bytes
    block_bytes: int | None
    """Of a page's object; None: records."""
    layout: BlockLayout
    num_tokens: int


def pages_name(namespace: bytes, object_bytes: int) -> str:
    """AIBrix's namespace for pages."""
    return f"kvl1-{namespace.hex()}-{object_bytes}"


def records_name(namespace: bytes) -> str:
    """AIBrix's namespace for records."""
    return f"kvl1-{namespace.hex()}-records"


def folders(root: Path) -> list[Folder]:
    """All of the store's, other namespaces' too, and none behind a symlink; raises OSError."""
    return [
        found
        for entry in os.scandir(root)
        if not entry.is_symlink() and (found := _folder(Path(entry.path)))
    ]


def has_folder(root: Path, name: str) -> bool:
    """Whether AIBrix has made one for this name; raises OSError, of a symlink in its place too."""
    found = [entry for entry in os.scandir(root) if entry.name.startswith(f"{name}_")]
    for entry in found:
        require_no_link(entry.path)
    return bool(found)


def require_no_link(path: str | Path) -> None:
    """Raise OSError where a symlink lies: it may lead out of the store."""
    if os.path.islink(path):
        raise OSError(errno.ELOOP, "is a symbolic link, which is not followed", str(path))


def block_hashes(key: bytes, head_groups: int) -> list[str]:
    """Of one page's objects."""
    return [f"{key.hex()}-{group}" for group in range(head_groups)]


def stored_object(
    folder: Folder, block: str, num_bytes: int, used_at: float | None
) -> StoredObject:
    """What a block's hash says, as a listing shows it."""
    page = _PAGE.fullmatch(block)
    if page is None or folder.block_bytes is None:
        return StoredObject(folder.namespace, None, 0, num_bytes, used_at)
    key = bytes.fromhex(page[1])
    return StoredObject(folder.namespace, key, int(page[2]), num_bytes, used_at)


def files(folder: Folder) -> Iterator[Path]:
    """Of blocks in an SHFS folder, and of writes that a killed writer left (`.tmp`)."""
    for parent, _, names in os.walk(folder.path):
        yield from (Path(parent, name) for name in names)


def block_of_file(path: Path) -> str | None:
    """The hash of the block in an SHFS file; None for what is none."""
    try:
        return bytes.fromhex(path.name).decode()
    except ValueError:
        return None


def _folder(path: Path) -> Folder | None:
    parts = _FOLDER.fullmatch(path.name)
    if parts is None:
        return None
    size = None if parts[2] == "records" else int(parts[2])
    name = path.name.partition("_")[0]
    layout: BlockLayout = "LCND" if parts[3].upper() == "LCND" else "NCLD"
    return Folder(path, name, bytes.fromhex(parts[1]), size, layout, int(parts[4]))
