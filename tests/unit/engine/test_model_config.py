"""Reading config.json: what is taken from it, and what is refused by name."""

from __future__ import annotations

import json

import pytest

from kvloop.engine.model_config import ModelConfig, Rope
from kvloop.shared_cache.errors import ConfigError

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 100,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
    "rope_theta": 50000.0,
}


def test_llama_fields_are_read_and_head_size_follows_from_hidden():
    config = ModelConfig.from_dict(LLAMA)
    assert (config.architecture, config.heads, config.kv_heads, config.head_size) == (
        "llama",
        8,
        2,
        8,
    )
    assert config.rope == Rope(theta=50000.0)
    assert not (config.qkv_bias or config.o_bias or config.qk_norm or config.tie_embeddings)


def test_qwen2_has_biases_on_q_k_v_only_and_qwen3_normalizes_heads():
    qwen2 = ModelConfig.from_dict(LLAMA | {"architectures": ["Qwen2ForCausalLM"]})
    qwen3 = ModelConfig.from_dict(LLAMA | {"architectures": ["Qwen3ForCausalLM"], "head_dim": 32})
    assert qwen2.qkv_bias and not qwen2.o_bias and not qwen2.qk_norm
    assert qwen3.qk_norm and not qwen3.qkv_bias and qwen3.head_size == 32


def test_old_and_new_rope_fields_mean_the_same():
    scaling = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    }
    old = LLAMA | {"rope_scaling": {"type": "llama3", **scaling}}
    new = {k: v for k, v in LLAMA.items() if k != "rope_theta"} | {
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 50000.0, **scaling}
    }
    assert ModelConfig.from_dict(old).rope == ModelConfig.from_dict(new).rope
    assert ModelConfig.from_dict(old).rope.original_max_position == 256


def test_end_tokens_come_from_both_files_once(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | {"eos_token_id": 2}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 2]}))
    assert ModelConfig.from_dir(tmp_path).eos_token_ids == (2, 7)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architectures": ["MixtralForCausalLM"]}, "MixtralForCausalLM"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "layer_types"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"num_experts": 8}, "num_experts"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"vocab_size": -1}, "vocab_size"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"head_dim": 7}, "head_dim"),
        ({"rope_scaling": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rot"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(change, named):
    with pytest.raises(ConfigError, match=named):
        ModelConfig.from_dict(LLAMA | change)


def test_missing_and_malformed_files_are_refused_in_words(tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.json in"):
        ModelConfig.from_dir(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read as JSON"):
        ModelConfig.from_dir(tmp_path)


def test_identity_changes_with_what_changes_kv_and_with_nothing_else():
    identity = ModelConfig.from_dict(LLAMA).identity()
    unchanged = LLAMA | {"max_position_embeddings": 9, "eos_token_id": 4, "dtype": "float32"}
    assert ModelConfig.from_dict(unchanged, eos_token_ids=(4,)).identity() == identity
    for change in ({"rope_theta": 1e6}, {"rms_norm_eps": 1e-6}, {"num_hidden_layers": 3}):
        assert ModelConfig.from_dict(LLAMA | change).identity() != identity
    json.dumps(identity)
