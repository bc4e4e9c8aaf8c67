"""What of a model decides its costs: sizes, by name or from a Hugging Face `config.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from kvloop.shared_cache.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A dense decoder with grouped-query attention and a gated feed-forward layer."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocab: int
    is_tied: bool = False
    """Whether the output layer is the embedding."""

    @property
    def layer_params(self) -> int:
        """Weights that every token is multiplied with: all but embedding and output layer."""
        attention = 2 * self.hidden * self.head_size * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def params(self) -> int:
        """All weights in memory."""
        return self.layer_params + self.vocab * self.hidden * (1 if self.is_tied else 2)

    @property
    def step_params(self) -> int:
        """Weights that one step reads: the embedding's rows are few."""
        return self.layer_params + self.vocab * self.hidden

    @property
    def kv_values_per_token(self) -> int:
        """K and V of all layers."""
        return 2 * self.layers * self.kv_heads * self.head_size

    @property
    def attention_flop(self) -> int:
        """Of one token with one token of its context: scores and values, in all layers."""
        return 4 * self.layers * self.heads * self.head_size


def _shape(name: str, sizes: tuple[int, ...], *, is_tied: bool = False) -> ModelShape:
    layers, hidden, heads, kv_heads, head_size, intermediate, vocab = sizes
    return ModelShape(
        name=name,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        intermediate=intermediate,
        vocab=vocab,
        is_tied=is_tied,
    )


MODELS = {
    shape.name: shape
    for shape in (
        _shape("llama-3.1-8b", (32, 4096, 32, 8, 128, 14336, 128256)),
        _shape("llama-3.1-70b", (80, 8192, 64, 8, 128, 28672, 128256)),
        _shape("qwen2.5-7b", (28, 3584, 28, 4, 128, 18944, 152064)),
        _shape("qwen2.5-32b", (64, 5120, 40, 8, 128, 27648, 152064)),
        _shape("smollm2-135m", (30, 576, 9, 3, 64, 1536, 49152), is_tied=True),
    )
}


class _Config(msgspec.Struct):
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    intermediate_size: int
    vocab_size: int
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    tie_word_embeddings: bool = False


def read_model(name: str) -> ModelShape:
    """A known name, a `config.json`, or a directory with one; raises ConfigError."""
    if name in MODELS:
        return MODELS[name]
    path = Path(name)
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        known = ", ".join(MODELS)
        raise ConfigError(f"--model {name}: neither a file nor one of {known}")
    try:
        config = msgspec.json.decode(path.read_bytes(), type=_Config)
    except (msgspec.DecodeError, OSError) as error:
        raise ConfigError(f"--model {path}: no config.json of a dense decoder: {error}") from None
    return ModelShape(
        name=path.parent.name or path.stem,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads or config.num_attention_heads,
        head_size=config.head_dim or config.hidden_size // config.num_attention_heads,
        intermediate=config.intermediate_size,
        vocab=config.vocab_size,
        is_tied=config.tie_word_embeddings,
    )
