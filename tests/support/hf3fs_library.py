"""The stand-in of 3FS's client library, found as the library itself would be."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

STAND_IN = Path(__file__).parent / "hf3fs_stand_in"
_MODULES = ("hf3fs_fuse", "hf3fs_fuse.io", "hf3fs_py_usrbio")


def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put it on the path of this process and of those it starts; returns its native module."""
    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN), prepend=":")
    native = importlib.import_module("hf3fs_py_usrbio")
    monkeypatch.setattr(native.faults, "choose", lambda _: None)
    # What another test made may be given back late: it counts there.
    monkeypatch.setattr(native, "live", native.Live())
    return native


def hide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have none, whatever was imported before."""
    for name in _MODULES:
        monkeypatch.setitem(sys.modules, name, None)


def make_mount(folder: Path) -> Path:
    """A plain directory that the stand-in takes for a mount of 3FS's."""
    (folder / "3fs-virt" / "iovs").mkdir(parents=True)
    return folder
