"""The few calls of the CUDA driver that torch does not offer, by ctypes: no build, no package.

Driver calls need the device's context on the calling thread; any CUDA call of torch makes it so.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

_PORTABLE_AND_MAPPED = 3
_ALREADY_REGISTERED = 712
_STREAM_ORDER = 1
_BATCH = 8192
"""Copies in one call."""

Words = npt.NDArray[np.int64]


class CudaError(RuntimeError):
    """A call of the driver failed: says which, and how."""


class _Location(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int), ("id", ctypes.c_int))


class _CopyAttributes(ctypes.Structure):
    _fields_ = (
        ("source_order", ctypes.c_int),
        ("source_hint", _Location),
        ("target_hint", _Location),
        ("flags", ctypes.c_uint),
    )


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _check(code: int, call: str) -> None:
    if code:
        name = ctypes.c_char_p()
        _library().cuGetErrorName(code, ctypes.byref(name))
        raise CudaError(f"{call} failed: {(name.value or b'unknown error').decode()} ({code})")


def register_host(address: int, num_bytes: int) -> bool:
    """Pin host memory and map it for every device; False where it is pinned already."""
    call = _library().cuMemHostRegister_v2
    code = call(
        ctypes.c_void_p(address), ctypes.c_size_t(num_bytes), ctypes.c_uint(_PORTABLE_AND_MAPPED)
    )
    if code == _ALREADY_REGISTERED:
        return False
    _check(code, "cuMemHostRegister")
    return True


def unregister_host(address: int) -> None:
    """Undo `register_host`; no copy of the memory may be under way."""
    _check(_library().cuMemHostUnregister(ctypes.c_void_p(address)), "cuMemHostUnregister")


def copy_batch(sources: Words, targets: Words, sizes: Words, stream: int) -> None:
    """Queue copies of `sizes` bytes between addresses, in no order among themselves.

    One call of the driver for thousands of copies where it has that (CUDA 12.8), else one each.
    """
    call = _batch_call() or copy_each
    for at in range(0, len(sizes), _BATCH):
        part = slice(at, at + _BATCH)
        source, target, size = (np.ascontiguousarray(c[part]) for c in (sources, targets, sizes))
        call(source, target, size, stream)


@cache
def _batch_call() -> Callable[[Words, Words, Words, int], None] | None:
    library = _library()
    call: Any = getattr(library, "cuMemcpyBatchAsync_v2", None)
    old: Any = getattr(library, "cuMemcpyBatchAsync", None)
    if call is None and old is None:
        return None
    attributes = _CopyAttributes(source_order=_STREAM_ORDER)
    first = ctypes.c_size_t(0)

    def copy(sources: Words, targets: Words, sizes: Words, stream: int) -> None:
        failed = ctypes.c_size_t(0)
        arguments = [
            *(ctypes.c_void_p(_address(array)) for array in (targets, sources, sizes)),
            ctypes.c_size_t(len(sizes)),
            ctypes.byref(attributes),
            ctypes.byref(first),
            ctypes.c_size_t(1),
        ]
        if call is None:
            arguments.append(ctypes.byref(failed))
        _check((call or old)(*arguments, ctypes.c_void_p(stream)), "cuMemcpyBatchAsync")

    return copy


def _address(array: Words) -> int:
    return int(array.__array_interface__["data"][0])


def copy_each(sources: Words, targets: Words, sizes: Words, stream: int) -> None:
    """`copy_batch` with a call for each copy."""
    call = _library().cuMemcpyAsync
    for source, target, size in zip(
        sources.tolist(), targets.tolist(), sizes.tolist(), strict=True
    ):
        code = call(
            ctypes.c_uint64(target),
            ctypes.c_uint64(source),
            ctypes.c_size_t(size),
            ctypes.c_void_p(stream),
        )
        _check(code, "cuMemcpyAsync")
