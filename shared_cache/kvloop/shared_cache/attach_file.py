"""`--hicache-storage-attach-file`: what a node or router attaches when it starts."""

from __future__ import annotations

from pathlib import Path

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.pod_variables import expanded
from kvloop.shared_cache.storage_change import Member, StorageChange, parse_attachment

FLAG = "--hicache-storage-attach-file"


def read_attach_file(path: str, member: Member) -> StorageChange:
    """What the file says, variables not yet put in; raises ConfigError naming flag and file."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{FLAG} {path}: {error.strerror}") from None
    try:
        change = parse_attachment(text, member)
        expanded(change.extra_config)
    except ConfigError as error:
        raise ConfigError(f"{FLAG} {path}: {error}") from None
    return change
