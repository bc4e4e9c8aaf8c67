"""A cheap fingerprint of a model's weights, whatever path they were read from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch

_SAMPLES = 4
_SAMPLE_BYTES = 2048


def weights_fingerprint(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 hex over names, dtypes, shapes and a few KiB spread over each tensor's bytes (CPU)."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        raw = tensor.detach().contiguous().view(-1).view(torch.uint8).numpy()
        last = max(0, raw.size - _SAMPLE_BYTES)
        for i in range(_SAMPLES):
            at = last * i // (_SAMPLES - 1)
            digest.update(raw[at : at + _SAMPLE_BYTES].tobytes())
    return digest.hexdigest()
