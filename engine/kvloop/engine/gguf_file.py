"""Reading a GGUF file: header in one pass over the mapped bytes, tensors as fp32 on demand.

The `gguf` package's own reader builds an object for every token and merge, which takes seconds.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kvloop.shared_cache.errors import ConfigError

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """Where one tensor lies, and how it is quantized."""

    shape: tuple[int, ...]
    """Row-major, as torch has it."""
    kind: int
    offset: int
    """From the start of the file."""


class GGUFFile:
    """A mapped GGUF file; raises ConfigError where it is not one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read as GGUF: {error}") from error
        self._at = 0
        try:
            self.metadata, self.tensors = self._read_header()
        except (struct.error, UnicodeDecodeError, IndexError, KeyError, OverflowError) as error:
            raise ConfigError(f"{path} is not a whole GGUF file: {error!r}") from error

    def _read_header(self) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
        if self._bytes[:4] != b"GGUF":
            raise ConfigError(f"{self.path} is not a GGUF file: it does not start with 'GGUF'")
        self._at = 4
        version, num_tensors, num_fields = self._unpack("IQQ")
        if version not in (2, 3):
            raise ConfigError(f"{self.path} is GGUF version {version}; versions 2 and 3 are read")
        metadata = {}
        for _ in range(num_fields):
            name = self._string()
            metadata[name] = self._value(*self._unpack("I"))
        found = [self._tensor() for _ in range(num_tensors)]
        alignment = int(metadata.get("general.alignment", 32))
        start = -(-self._at // alignment) * alignment
        return metadata, {
            name: GGUFTensor(shape, kind, start + offset) for name, shape, kind, offset in found
        }

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._string()
        (dims,) = self._unpack("I")
        shape = self._unpack(f"{dims}Q")
        kind, offset = self._unpack("IQ")
        return name, tuple(reversed(shape)), kind, offset

    def _unpack(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + layout, self._bytes, self._at)
        self._at += struct.calcsize("<" + layout)
        return values

    def _string(self) -> str:
        (length,) = self._unpack("Q")
        text = self._bytes[self._at : self._at + length]
        if len(text) != length:
            raise IndexError("it ends within a string")
        self._at += length
        return text.decode("utf-8")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            of, count = self._unpack("IQ")
            if of in _SCALARS:
                return list(self._unpack(f"{count}{_SCALARS[of]}"))
            return [self._value(of) for _ in range(count)]
        return self._unpack(_SCALARS[kind])[0]

    def dequantize(self, name: str) -> npt.NDArray[np.float32]:
        """One tensor's values as fp32, in torch's shape; ConfigError if they cannot be read."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

        tensor = self.tensors[name]
        try:
            kind = GGMLQuantizationType(tensor.kind)
            block, block_bytes = GGML_QUANT_SIZES[kind]
            row = tensor.shape[-1] // block * block_bytes
            shape = (*tensor.shape[:-1], row)
            raw = np.frombuffer(self._bytes, np.uint8, int(np.prod(shape)), tensor.offset)
            typed = {"F32": np.float32, "F16": np.float16}.get(kind.name)
            data = raw.view(typed).reshape(tensor.shape) if typed else raw.reshape(shape)
            values: npt.NDArray[np.float32] = dequantize(data, kind)
        except (ValueError, NotImplementedError, KeyError) as error:
            raise ConfigError(
                f"{self.path}: tensor {name} cannot be dequantized: {error}"
            ) from error
        return values.reshape(tensor.shape)
