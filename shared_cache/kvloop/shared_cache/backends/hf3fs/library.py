"""3FS's client library, imported only when it is asked for."""

from __future__ import annotations

import importlib
from typing import Any

from kvloop.shared_cache.errors import ConfigError

_MODULE = "hf3fs_fuse.io"
_CALLS = ("deregister_fd", "make_ioring", "make_iovec", "register_fd")
_HELP = (
    "install the wheel hf3fs_py_usrbio that is built from the 3FS sources of your cluster "
    "(`python3 setup.py bdist_wheel`; it is in no package index), or set io to 'posix'"
)


def load_usrbio() -> Any:
    """The module `hf3fs_fuse.io`; ConfigError says what to install where it cannot be used."""
    try:
        module = importlib.import_module(_MODULE)
    except ImportError as error:
        raise ConfigError(
            f"storage backend 'hf3fs': io is 'usrbio', but {_MODULE} cannot be imported ({error}): "
            f"{_HELP}"
        ) from error
    if missing := [name for name in _CALLS if not hasattr(module, name)]:
        raise ConfigError(f"storage backend 'hf3fs': {_MODULE} lacks {', '.join(missing)}: {_HELP}")
    return module


def find_usrbio() -> Any | None:
    """The module where it can be used."""
    try:
        return load_usrbio()
    except ConfigError:
        return None
