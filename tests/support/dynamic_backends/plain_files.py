"""The least that SGLang's interface asks for: get, set and exists, over files of one directory."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import torch


class PlainFiles:
    """The last set of a key wins; there is no delete."""

    def __init__(self, storage_config: Any, kwargs: dict[str, Any]) -> None:
        assert kwargs == {}
        self._root = Path(storage_config.extra_config["directory"])
        self._root.mkdir(parents=True, exist_ok=True)

    def exists(self, key: str) -> bool:
        return self._path(key).exists()

    def get(self, key: str, target_location: Any = None, target_sizes: Any = None) -> Any:
        """The bytes, in a tensor of its own."""
        try:
            return torch.frombuffer(bytearray(self._path(key).read_bytes()), dtype=torch.uint8)
        except FileNotFoundError:
            return None

    def set(self, key: str, value: Any = None) -> bool:
        half = self._root / f".{secrets.token_hex(8)}"
        half.write_bytes(value.contiguous().view(torch.uint8).numpy().tobytes())
        os.replace(half, self._path(key))
        return True

    def _path(self, key: str) -> Path:
        return self._root / key
