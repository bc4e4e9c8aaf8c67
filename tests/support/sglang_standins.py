"""Stand-ins for what SGLang imports and a machine without a GPU has not: kernels, and model code.

SGLang's host pools, controllers, storage factory and flags are its own; only these are not:
packages of CUDA kernels or of codecs (`_PACKAGES`), and its reading of model configurations
(`_MODULES`). A stand-in is seen by SGLang's modules alone, and gone once they are imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PACKAGES = {
    "triton",
    "tvm_ffi",
    "sgl_kernel",
    "compressed_tensors",
    "PIL",
    "pybase64",
    "orjson",
}
_MODULES = (
    "sglang.srt.utils.hf_transformers",
    "sglang.srt.utils.hf_transformers_utils",
    "sglang.srt.configs.model_config",
)
_CONFIGS = "sglang.srt.configs"


class _Anything:
    """Decorates, is called, subscripted and subclassed without an effect."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        is_decorator = len(args) == 1 and not options and callable(args[0])
        return args[0] if is_decorator else self

    def __getattr__(self, name: str) -> _Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()

    def __getitem__(self, index: object) -> _Anything:
        return self

    def __or__(self, other: object) -> _Anything:
        return self

    __ror__ = __or__

    def __mro_entries__(self, bases: object) -> tuple[type, ...]:
        return (object,)


class _StandIn(types.ModuleType):
    __path__: Sequence[str] = []

    def __getattr__(self, name: str) -> _Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()


class _Loader(importlib.abc.Loader):
    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class _Forced(importlib.abc.MetaPathFinder):
    """Asked first: takes the place of modules that are there."""

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        is_forced = any(name == module or name.startswith(f"{module}.") for module in _MODULES)
        return _spec(name) if is_forced else None


class _Missing(importlib.abc.MetaPathFinder):
    """Asked last: of packages that are not installed, and by SGLang's modules only."""

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        is_known = name.partition(".")[0] in _PACKAGES
        return _spec(name) if is_known and _importer().startswith("sglang") else None


@contextmanager
def stand_ins(sglang: Path) -> Iterator[None]:
    """Imports inside find stand-ins; afterwards only the modules imported meanwhile have them."""
    import torch._inductor.compile_fx  # it would find the stand-in for triton, and use it

    assert torch._inductor.compile_fx is not None
    finders = _Forced(), _Missing()
    sys.meta_path[:] = [finders[0], *sys.meta_path, finders[1]]
    sys.modules.setdefault(_CONFIGS, _package(_CONFIGS, sglang / "srt" / "configs"))
    try:
        yield
    finally:
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder not in finders]
        for name, module in list(sys.modules.items()):
            if isinstance(module, _StandIn) and name.partition(".")[0] in _PACKAGES:
                del sys.modules[name]


def _package(name: str, path: Path) -> _StandIn:
    """Its modules can be imported; what its `__init__` would gather is anything."""
    package = _StandIn(name)
    package.__path__ = [str(path)]
    return package


def _spec(name: str) -> importlib.machinery.ModuleSpec:
    return importlib.machinery.ModuleSpec(name, _Loader(), is_package=True)


def _importer() -> str:
    """Name of the module whose import statement is running."""
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None and "importlib" in frame.f_code.co_filename:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "")) if frame is not None else ""
