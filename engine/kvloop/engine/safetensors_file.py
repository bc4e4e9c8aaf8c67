"""Safetensors files by mmap, so that processes on one machine share the pages; and writing them.

A file of our own keeps matrices that are used together side by side (the library sorts by name),
so that their fused view needs no copy.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kvloop.shared_cache.errors import ConfigError

_DTYPES = {"BF16": torch.bfloat16, "F32": torch.float32, "F16": torch.float16}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_ALIGNMENT = 64


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors as views of one mapped file (copy-on-write, never written back)."""
    try:
        with path.open("rb") as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        (length,) = struct.unpack_from("<Q", memory)
        header = json.loads(memory[8 : 8 + length])
        header.pop("__metadata__", None)
        data = torch.frombuffer(memory, dtype=torch.uint8)[8 + length :]
        return {name: _view(data, entry) for name, entry in header.items()}
    except FileNotFoundError:
        raise ConfigError(f"weight file {path} does not exist") from None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, struct.error) as error:
        raise ConfigError(f"{path} is not a whole safetensors file: {error!r}") from error


def _view(data: torch.Tensor, entry: Mapping[str, Any]) -> torch.Tensor:
    name, (low, high) = entry["dtype"], entry["data_offsets"]
    if name not in _DTYPES:
        raise ValueError(f"dtype {name} is not supported; supported: {', '.join(_DTYPES)}")
    dtype = _DTYPES[name]
    raw = data[low:high]
    if raw.numel() != high - low:
        raise ValueError("it ends within a tensor")
    if raw.storage_offset() % dtype.itemsize:
        raw = raw.clone()
    return raw.view(dtype).view(entry["shape"])


def write_safetensors(
    path: Path,
    shapes: Sequence[tuple[str, Sequence[int]]],
    dtype: torch.dtype,
    tensors: Iterable[torch.Tensor],
) -> None:
    """Write tensors in the order given, one at a time; `shapes` names them in that order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes:
        size = int(torch.Size(shape).numel()) * dtype.itemsize
        spec = {
            "dtype": _NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        header[name] = spec
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for (_, shape), tensor in zip(shapes, tensors, strict=True):
            assert tensor.shape == torch.Size(shape) and tensor.dtype == dtype
            file.write(tensor.contiguous().view(torch.uint8).numpy().data)
