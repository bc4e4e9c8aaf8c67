"""From a model's reference to a model that can compute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from kvloop.engine.fingerprint import weights_fingerprint
from kvloop.engine.hardware import choose_device
from kvloop.engine.linear import computes_wide
from kvloop.engine.model_config import ModelConfig
from kvloop.engine.model_files import DTYPES, DtypeName, ModelFiles, resolve_model
from kvloop.engine.threads import num_threads
from kvloop.engine.transformer import Transformer
from kvloop.engine.weights import dummy_tensors, load_tensors

LoadFormat = Literal["auto", "dummy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model and all that identifies it."""

    model: Transformer
    config: ModelConfig
    files: ModelFiles
    fingerprint: str
    dtype: torch.dtype
    """Of weights and KV."""
    device: torch.device


def choose_dtype(ref: str, dtype: DtypeName | Literal["auto"]) -> DtypeName:
    """`auto` is bfloat16 unless the directory's config.json says float32."""
    if dtype != "auto":
        return dtype
    path = Path(ref).expanduser()
    if path.is_dir() and ModelConfig.from_dir(path).dtype == "float32":
        return "float32"
    return "bfloat16"


def load_engine_model(
    ref: str,
    dtype: DtypeName | Literal["auto"] = "auto",
    load_format: LoadFormat = "auto",
    device: str = "auto",
    seed: int = 0,
    cache_dir: Path | None = None,
) -> LoadedModel:
    """Resolve, read (or draw, for `dummy`) and prepare a model; raises ConfigError in words."""
    place = choose_device(device)
    name = choose_dtype(ref, dtype)
    files = resolve_model(ref, name, cache_dir)
    config = ModelConfig.from_dir(files.directory)
    kind = DTYPES[name]
    if load_format == "dummy":
        tensors = dummy_tensors(config, kind, seed)
    else:
        tensors = load_tensors(files.weights, config, kind)
    if computes_wide(kind, place):
        # Rows are shared among threads by RowWorkers; waking others inside calls costs more.
        torch.set_num_threads(1)
    return LoadedModel(
        model=Transformer(config, tensors, place, num_threads()),
        config=config,
        files=files,
        fingerprint=weights_fingerprint(tensors),
        dtype=kind,
        device=place,
    )
