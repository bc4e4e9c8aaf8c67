"""SGLang's own host pools over small device pools in host memory."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from sglang_wheel import sglang_runtime

LAYERS, HEADS, DIM, TOKENS = 3, 2, 8, 256


def mha_pool(
    layout: str,
    page_size: int,
    dtype: torch.dtype = torch.bfloat16,
    *,
    v_dim: int = DIM,
    tokens: int = TOKENS,
) -> Any:
    """MHATokenToKVPoolHost, or the one for K and V of different widths."""
    info = sglang_runtime("sglang.srt.mem_cache.device_pool_info")
    module = sglang_runtime("sglang.srt.mem_cache.pool_host.mha")
    k = tuple(torch.zeros(tokens, HEADS, DIM, dtype=dtype) for _ in range(LAYERS))
    v = tuple(torch.zeros(tokens, HEADS, v_dim, dtype=dtype) for _ in range(LAYERS))
    buffers = info.KVBuffers(
        k=k, v=v, k_data_ptrs=_pointers(k), v_data_ptrs=_pointers(v), layout=info.KVBufferLayout.NHD
    )
    buffer_info = info.MHABufferInfo(
        buffers=buffers,
        page_size=page_size,
        head_num=HEADS,
        head_dim=DIM,
        v_head_dim=v_dim,
        dtype=dtype,
        device=torch.device("cpu"),
    )
    return module.get_mha_host_pool_cls(buffer_info)(
        buffer_info, 2.0, 0, page_size, layout, **_places(tokens)
    )


def mla_pool(
    layout: str, page_size: int, dtype: torch.dtype = torch.bfloat16, *, tokens: int = TOKENS
) -> Any:
    """MLATokenToKVPoolHost."""
    info = sglang_runtime("sglang.srt.mem_cache.device_pool_info")
    module = sglang_runtime("sglang.srt.mem_cache.pool_host.mla")
    rows = tuple(torch.zeros(tokens, 1, 24, dtype=dtype) for _ in range(LAYERS))
    buffer_info = info.MLABufferInfo(
        buffers=rows,
        data_ptrs=_pointers(rows),
        layer_indices=tuple(range(LAYERS)),
        device_layer_num=LAYERS,
        page_size=page_size,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        kv_cache_dim=24,
        dtype=dtype,
        device=torch.device("cpu"),
    )
    return module.MLATokenToKVPoolHost(
        buffer_info, 2.0, 0, page_size, layout, target_layer_num=LAYERS, **_places(tokens)
    )


def fill(pool: Any) -> None:
    """Random bytes in all of the pool."""
    buffers = pool.kv_buffer if isinstance(pool.kv_buffer, tuple) else (pool.kv_buffer,)
    for buffer in buffers:
        raw = buffer.view(torch.uint8)
        raw.copy_(torch.randint(0, 256, raw.shape, dtype=torch.uint8))


def wipe(pool: Any) -> None:
    """Zeros in all of the pool."""
    for buffer in pool.kv_buffer if isinstance(pool.kv_buffer, tuple) else (pool.kv_buffer,):
        buffer.zero_()


def page_bytes(pool: Any, indices: torch.Tensor) -> list[bytes]:
    """Each page as SGLang's own flat data page."""
    starts = indices[:: pool.page_size].tolist()
    pages = [pool.get_data_page(start).contiguous() for start in starts]
    return [bytes(page.view(torch.uint8).numpy().tobytes()) for page in pages]


def _pointers(tensors: tuple[torch.Tensor, ...]) -> torch.Tensor:
    return torch.tensor([tensor.data_ptr() for tensor in tensors], dtype=torch.uint64)


def _places(tokens: int) -> dict[str, Any]:
    return {
        "pin_memory": False,
        "device_capacity_tokens": tokens,
        "start_layer": 0,
        "end_layer": LAYERS,
    }


def page_keys(num: int, seed: str = "") -> list[str]:
    """Hashes as SGLang names pages with."""
    return [hashlib.sha256(f"{seed}{i}".encode()).hexdigest() for i in range(num)]
