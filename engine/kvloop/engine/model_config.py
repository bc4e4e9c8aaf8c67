"""What a `config.json` says of a model, checked once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from kvloop.shared_cache.errors import ConfigError

RopeKind = Literal["default", "linear", "llama3"]
ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """Rotary embedding; the last four fields are used by `llama3` (factor by `linear` too)."""

    theta: float
    kind: RopeKind = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A dense decoder-only transformer with rotary positions and grouped KV heads."""

    architecture: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocab: int
    rms_eps: float
    rope: Rope
    tie_embeddings: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool
    max_position_embeddings: int
    eos_token_ids: tuple[int, ...]
    dtype: str | None
    """What the file says its weights are; None where it does not say."""

    @classmethod
    def from_dir(cls, path: Path) -> ModelConfig:
        """Read `config.json` and `generation_config.json`; raises ConfigError naming the field."""
        raw = _read_json(path / "config.json")
        generation = path / "generation_config.json"
        eos = _ids(raw.get("eos_token_id"))
        if generation.is_file():
            eos += _ids(_read_json(generation).get("eos_token_id"))
        return cls.from_dict(raw, eos_token_ids=tuple(dict.fromkeys(eos)))

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], eos_token_ids: tuple[int, ...] = ()) -> ModelConfig:
        """Check the fields of a `config.json`; raises ConfigError naming the field."""
        architecture = _architecture(raw)
        _refuse_unsupported(raw)
        heads = _positive(raw, "num_attention_heads")
        hidden = _positive(raw, "hidden_size")
        bias = bool(raw.get("attention_bias", False))
        config = cls(
            architecture=architecture,
            hidden=hidden,
            layers=_positive(raw, "num_hidden_layers"),
            heads=heads,
            kv_heads=_positive(raw, "num_key_value_heads", heads),
            head_size=_positive(raw, "head_dim", hidden // heads),
            intermediate=_positive(raw, "intermediate_size"),
            vocab=_positive(raw, "vocab_size"),
            rms_eps=float(raw.get("rms_norm_eps", 1e-6)),
            rope=_rope(raw),
            tie_embeddings=bool(raw.get("tie_word_embeddings", False)),
            qkv_bias=bias or architecture == "qwen2",
            o_bias=bias and architecture != "qwen2",
            mlp_bias=bool(raw.get("mlp_bias", False)) and architecture == "llama",
            qk_norm=architecture == "qwen3",
            max_position_embeddings=_positive(raw, "max_position_embeddings", 2048),
            eos_token_ids=eos_token_ids,
            dtype=raw.get("dtype") or raw.get("torch_dtype"),
        )
        if config.heads % config.kv_heads:
            raise ConfigError(
                f"config.json: num_attention_heads {config.heads} is not a multiple of "
                f"num_key_value_heads {config.kv_heads}"
            )
        if config.head_size % 2:
            raise ConfigError(f"config.json: head_dim {config.head_size} must be even")
        return config

    def identity(self) -> dict[str, Any]:
        """All that changes a token's KV, for the cache namespace; no limits or end tokens."""
        fields = asdict(self)
        for name in ("max_position_embeddings", "eos_token_ids", "dtype"):
            del fields[name]
        return fields


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no {path.name} in {path.parent}: not a model directory") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold a JSON object, not a {type(raw).__name__}")
    return raw


def _architecture(raw: Mapping[str, Any]) -> str:
    names = raw.get("architectures") or []
    known = [ARCHITECTURES[name] for name in names if name in ARCHITECTURES]
    if known:
        return known[0]
    if not names and raw.get("model_type") in ARCHITECTURES.values():
        return str(raw["model_type"])
    raise ConfigError(
        f"config.json: architectures {names or raw.get('model_type')!r} is not supported; "
        f"supported: {', '.join(ARCHITECTURES)}"
    )


def _refuse_unsupported(raw: Mapping[str, Any]) -> None:
    """Name the first field that asks for something this engine does not compute."""
    if raw.get("hidden_act", "silu") != "silu":
        raise ConfigError(
            f"config.json: hidden_act {raw['hidden_act']!r} is not supported; use silu"
        )
    if raw.get("quantization_config"):
        raise ConfigError("config.json: quantization_config is not supported; use bf16 or fp32")
    kinds = set(raw.get("layer_types") or []) - {"full_attention"}
    if raw.get("use_sliding_window") or kinds:
        raise ConfigError(
            "config.json: use_sliding_window/layer_types ask for sliding-window attention, "
            "which is not supported; only full attention is"
        )
    for name in ("num_experts", "num_local_experts"):
        if raw.get(name):
            raise ConfigError(f"config.json: {name} (mixture of experts) is not supported")


def _rope(raw: Mapping[str, Any]) -> Rope:
    """From `rope_parameters` (transformers 5) or `rope_theta` + `rope_scaling` (before)."""
    spec = {**(raw.get("rope_scaling") or {}), **(raw.get("rope_parameters") or {})}
    kind: Any = spec.get("rope_type") or spec.get("type") or "default"
    if kind not in ("default", "linear", "llama3"):
        raise ConfigError(
            f"config.json: rope_scaling type {kind!r} is not supported; "
            "supported: default, linear, llama3"
        )
    partial = spec.get("partial_rotary_factor", raw.get("partial_rotary_factor", 1.0))
    if partial != 1.0:
        raise ConfigError(f"config.json: partial_rotary_factor {partial} is not supported; only 1")
    default = Rope(theta=float(spec.get("rope_theta") or raw.get("rope_theta") or 10000.0))
    return Rope(
        theta=default.theta,
        kind=kind,
        factor=float(spec.get("factor", default.factor)),
        low_freq_factor=float(spec.get("low_freq_factor", default.low_freq_factor)),
        high_freq_factor=float(spec.get("high_freq_factor", default.high_freq_factor)),
        original_max_position=int(
            spec.get("original_max_position_embeddings", default.original_max_position)
        ),
    )


def _positive(raw: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = raw.get(name)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ConfigError(f"config.json: {name} must be a positive integer, got {value!r}")
    return value


def _ids(value: Any) -> list[int]:
    if value is None:
        return []
    ids = value if isinstance(value, list) else [value]
    if not all(isinstance(token, int) for token in ids):
        raise ConfigError(f"eos_token_id must be a token id or a list of them, got {value!r}")
    return ids
