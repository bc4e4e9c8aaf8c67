"""From GGUF's names, layout and metadata to Hugging Face's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from kvloop.engine.gguf_file import GGUFFile
from kvloop.shared_cache.errors import ConfigError

_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def gguf_config(file: GGUFFile) -> dict[str, Any]:
    """The `config.json` this file's metadata stand for; ConfigError naming what is unsupported."""
    meta = file.metadata
    family = meta.get("general.architecture")
    if family not in _CLASSES:
        raise ConfigError(
            f"{file.path}: general.architecture {family!r} is not supported; "
            f"supported: {', '.join(_CLASSES)}"
        )
    if "rope_freqs.weight" in file.tensors:
        raise ConfigError(
            f"{file.path}: rope_freqs.weight (scaled rotary frequencies) is not read from GGUF; "
            "use the model's Hugging Face directory"
        )

    def field(name: str, default: Any = None) -> Any:
        value = meta.get(f"{family}.{name}", default)
        if value is None:
            raise ConfigError(f"{file.path}: metadata has no {family}.{name}")
        return value

    heads = field("attention.head_count")
    bias = family == "llama" and "blk.0.attn_q.bias" in file.tensors
    config: dict[str, Any] = {
        "architectures": [_CLASSES[family]],
        "model_type": family,
        "hidden_size": field("embedding_length"),
        "num_hidden_layers": field("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": field("attention.head_count_kv", heads),
        "head_dim": field("attention.key_length", field("embedding_length") // heads),
        "intermediate_size": field("feed_forward_length"),
        "vocab_size": file.tensors["token_embd.weight"].shape[0],
        "rms_norm_eps": field("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": field("context_length"),
        "hidden_act": "silu",
        "attention_bias": bias,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "rope_theta": field("rope.freq_base", 10000.0),
        "bos_token_id": meta.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": meta.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": meta.get("tokenizer.ggml.padding_token_id"),
    }
    scaling = meta.get(f"{family}.rope.scaling.type", "none")
    if scaling != "none":
        factor = meta.get(f"{family}.rope.scaling.factor", 1.0)
        config["rope_scaling"] = {"rope_type": scaling, "factor": factor}
    return config


def gguf_names(file: GGUFFile) -> dict[str, str]:
    """Hugging Face tensor name -> GGUF name; ConfigError for a tensor that has none."""
    return {_hf_name(file, name): name for name in file.tensors}


def _hf_name(file: GGUFFile, name: str) -> str:
    stem, _, leaf = name.rpartition(".")
    parts = stem.split(".", 2)
    if stem in _TOP:
        return f"{_TOP[stem]}.{leaf}"
    if len(parts) == 3 and parts[0] == "blk" and parts[2] in _BLOCK:
        return f"model.layers.{parts[1]}.{_BLOCK[parts[2]]}.{leaf}"
    raise ConfigError(f"{file.path}: tensor {name} has no place in a dense Llama, Qwen2 or Qwen3")


def gguf_tensor(file: GGUFFile, name: str, config: dict[str, Any]) -> npt.NDArray[np.float32]:
    """One tensor by its GGUF name, in Hugging Face's layout."""
    values = file.dequantize(name)
    if config["model_type"] != "llama":
        return values
    # llama.cpp stores Llama's q and k with each head's rotary halves interleaved.
    if ".attn_q." in name:
        return _halves(values, config["num_attention_heads"])
    if ".attn_k." in name:
        return _halves(values, config["num_key_value_heads"])
    return values


def _halves(values: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Undo the interleaving of rows within each head."""
    pairs = values.shape[0] // heads // 2
    return values.reshape(heads, pairs, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def ordered(names: dict[str, str], layers: int) -> Iterator[str]:
    """Hugging Face names so that q, k, v and gate, up lie side by side and load fused, uncopied."""
    order = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    order += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    side_by_side = [
        f"model.layers.{i}.{part}.{leaf}"
        for i in range(layers)
        for leaf in ("weight", "bias")
        for part in order
    ]
    listed = [name for name in side_by_side if name in names]
    yield from listed
    yield from (name for name in names if name not in set(listed))
