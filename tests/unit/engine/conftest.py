"""Tiny models, written once a session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import save_tiny

from kvloop.engine.loaded_model import LoadedModel, load_engine_model

TinyModel = Callable[..., tuple[LoadedModel, Any]]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny matrices gain nothing from more."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """`tiny_model(kind, dtype)`: the engine's model of a kind, and transformers'."""

    @cache
    def load(kind: str, dtype: str = "float32") -> tuple[LoadedModel, Any]:
        path: Path = tmp_path_factory.mktemp(kind)
        reference = save_tiny(kind, path, dtype)
        return load_engine_model(str(path), device="cpu"), reference

    return load
