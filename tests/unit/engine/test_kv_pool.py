"""The device pool's layout and addresses."""

from __future__ import annotations

import mmap

import pytest
import torch

from kvloop.engine.kv_pool import KVPool
from kvloop.engine.model_config import ModelConfig
from kvloop.shared_cache.errors import ConfigError

CONFIG = ModelConfig.from_dict(
    {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "intermediate_size": 8,
        "vocab_size": 8,
    }
)


def filled(dtype: torch.dtype) -> KVPool:
    pool = KVPool(CONFIG, 10, 4, dtype)
    pool.tensor.copy_(torch.randn(pool.tensor.shape, generator=torch.Generator().manual_seed(1)))
    return pool


def test_a_token_is_found_at_its_slot_in_every_layer():
    pool = KVPool(CONFIG, 10, 4, torch.float32)
    kv = torch.randn(2, 3, 4, 8)
    pool.write(1, kv, torch.tensor([5, 38, 0]))
    assert torch.equal(pool.tensor[1, 0, 1, 1], kv[0, 0])
    assert torch.equal(pool.tensor[1, 1, 9, 2], kv[1, 1])
    assert torch.equal(pool.tensor[1, 0, 0, 0], kv[0, 2])
    assert not pool.tensor[0].any() and not pool.tensor[2].any()


def test_addresses_are_page_aligned_and_strides_reach_every_block():
    pool = filled(torch.bfloat16)
    raw = pool.tensor.view(torch.uint8).flatten()
    at = 2 * pool.layer_stride + pool.kv_stride + 7 * pool.page_bytes
    block = raw[at : at + pool.page_bytes].view(torch.bfloat16)
    assert pool.address % mmap.PAGESIZE == 0
    assert raw.numel() == pool.num_bytes
    assert torch.equal(block, pool.tensor[2, 1, 7].flatten())


def test_gathered_pages_equal_a_view_of_the_same_tokens():
    pool = filled(torch.float32)
    viewed = pool.heads_view(1, 8, 10)
    gathered = pool.heads_gather(1, torch.tensor([2, 3, 4]), 10)
    for a, b in zip(viewed, gathered, strict=True):
        assert a.shape == b.shape == (1, 4, 10, 8)
        assert torch.equal(a, b)


def test_a_pool_that_memory_cannot_hold_names_the_flag():
    with pytest.raises(ConfigError, match="--max-total-tokens"):
        KVPool(CONFIG, 1 << 42, 4, torch.float32)
