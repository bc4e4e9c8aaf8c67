"""The whole loop on a CUDA device: KV crosses between two GPU pools, answers are transformers'."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loop import Loop, check_exact
from reference import load_reference
from running import Cluster
from served_models import save_served

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
PROMPTS = [[(7 * i + n) % 900 + 50 for i in range(n)] for n in (1, 15, 16, 17, 64, 300, 1200)]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_the_loop_on_cuda_answers_as_transformers_does(kind: str, tmp_path: Path) -> None:
    model = save_served(kind, tmp_path / "model", vocab_size=1000)
    flags = ("--dtype", "float32", "--page-size", "16", "--device", "cuda")
    with Cluster(tmp_path, model, *flags) as cluster:
        ways = Loop(cluster).every_way(PROMPTS)
    check_exact(ways, load_reference(model, torch.float32))
