"""Names from outside that become paths: they stay under their root, or are refused."""

from __future__ import annotations

import os
from pathlib import Path

from kvloop.shared_cache.errors import ConfigError

_MAX_PART = 255  # bytes; the usual limit of file systems
_MAX_PATH = 4000


def checked_root(field: str, path: str) -> Path:
    """The absolute path of a directory that a configuration names; ConfigError names `field`.

    Symlinks in it are followed: who may name a root may name where they lead.
    """
    _refuse_unusable(field, path)
    if ".." in Path(path).parts:
        raise ConfigError(f"{field}: {_shown(path)} must not contain '..'; write the path out")
    return Path(path).absolute()


def path_under(root: Path, field: str, name: str) -> Path:
    """Where the relative `name` lies under `root`; it need not exist.

    Raises ConfigError naming `field` where it is empty, absolute, too long, has a NUL or '..', or
    where a symlink on the way leads out of the root.
    """
    _refuse_unusable(field, name)
    relative = Path(name)
    if relative.is_absolute():
        raise ConfigError(f"{field}: {_shown(name)} must be relative, to stay under {root}")
    if ".." in relative.parts:
        raise ConfigError(f"{field}: {_shown(name)} must not contain '..', to stay under {root}")
    path = root / relative
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise ConfigError(f"{field}: {_shown(name)} leads out of {root} by a symlink")
    return path


def _refuse_unusable(field: str, name: str) -> None:
    if not name:
        raise ConfigError(f"{field}: must not be empty")
    if "\x00" in name:
        raise ConfigError(f"{field}: {_shown(name)} must not contain a NUL character")
    parts = [len(os.fsencode(part)) for part in name.split("/")]
    if max(parts) > _MAX_PART or sum(parts) > _MAX_PATH:
        raise ConfigError(
            f"{field}: {_shown(name)} is too long: {len(name)} characters; at most {_MAX_PART} "
            f"bytes a part and {_MAX_PATH} in all"
        )


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:77] + "...")
