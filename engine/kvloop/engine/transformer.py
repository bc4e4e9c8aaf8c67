"""A dense Llama, Qwen2 or Qwen3 over paged KV, on CPU and CUDA from the same code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from kvloop.engine.attention import Attention, Span, plan_spans
from kvloop.engine.batch import Batch
from kvloop.engine.kv_pool import KVPool
from kvloop.engine.linear import Linear, activation_dtype, make_linear
from kvloop.engine.model_config import ModelConfig
from kvloop.engine.rope import Rotary
from kvloop.engine.row_workers import Meeting, RowWorkers
from kvloop.engine.weights import Tensors, stacked

OnLayer = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One block's weights, ready to use; matrices applied together are one."""

    input_norm: torch.Tensor
    qkv: Linear
    qk_norm: torch.Tensor | None
    """`[heads + kv heads, head size]`."""
    output: Linear
    post_norm: torch.Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class Step:
    """What every layer of one forward pass needs."""

    slots: torch.Tensor
    spans: list[Span]
    cos: torch.Tensor
    sin: torch.Tensor
    is_decode: bool
    """One token of each sequence."""


def _nothing(layer: int) -> None:
    return None


class Transformer:
    """The model; stateless between calls: all KV is in the pool given to `forward`."""

    def __init__(
        self,
        config: ModelConfig,
        tensors: Tensors,
        device: torch.device | str = "cpu",
        threads: int = 1,
    ) -> None:
        """`threads`: how many CPU threads share a prefill."""
        self.config = config
        self.device = torch.device(device)
        self.dtype = tensors["model.embed_tokens.weight"].dtype
        self.activation = activation_dtype(self.dtype, self.device)
        build = LayerBuilder(config, tensors, self.device, self.activation)
        self._embedding = tensors["model.embed_tokens.weight"].to(self.device)
        self._layers = [build.layer(i) for i in range(config.layers)]
        self._final = build.norm("model.norm")
        self._head = build.head()
        self._eps = torch.tensor(config.rms_eps)
        self._rotary = Rotary(config, self.device)
        self._workers = RowWorkers(threads) if threads > 1 and self.device.type == "cpu" else None
        self._attention = Attention(config.heads, config.kv_heads, config.head_size)

    def forward(
        self,
        batch: Batch,
        pool: KVPool,
        on_layer: OnLayer | None = None,
        before_layer: OnLayer | None = None,
    ) -> torch.Tensor:
        """fp32 logits `[segments that want logits, vocab]`, in the order of the segments.

        `before_layer(l)` is called before layer l reads the pool, by each thread that will, and
        returns once the KV that this batch builds on is there. `on_layer(l)` is called as soon as
        layer l's K and V of this batch are in the pool; on another thread than the caller's, at
        times, but never twice at once.
        """
        ready, written = before_layer or _nothing, on_layer or _nothing
        parts = self._workers.parts(batch) if self._workers else [batch]
        if self._workers is None or len(parts) == 1:
            return self._compute(batch, pool, written, ready)
        meeting = Meeting(len(parts), written)
        tasks = [partial(self._compute, part, pool, meeting.wait, ready) for part in parts]
        return torch.cat(self._workers.run(tasks, meeting))

    @torch.inference_mode()
    def _compute(
        self, batch: Batch, pool: KVPool, written: OnLayer, ready: OnLayer
    ) -> torch.Tensor:
        """The logits of one part; `written(l)` returns when all parts have written layer l."""
        rows = batch.logit_rows()
        step = self._step(batch)
        x = F.embedding(batch.token_ids, self._embedding).to(self.activation)
        last = self.config.layers - 1
        for i, layer in enumerate(self._layers):
            q = self._write_kv(x, i, layer, pool, step)
            ready(i)
            written(i)
            if i == last and not rows:
                return x.new_empty((0, self.config.vocab), dtype=torch.float32)
            attended = self._attention.attend(q, i, pool, step.spans, self.activation)
            if i == last and len(rows) < batch.num_tokens:
                chosen = torch.tensor(rows, device=self.device)
                x, attended = x[chosen], attended[chosen]
            x = self._mix(x, attended, layer)
        return self._head(self._norm(x, self._final)).float()

    def _step(self, batch: Batch) -> Step:
        cos, sin = self._rotary.angles(batch.positions)
        is_decode = len(batch.segments) == batch.num_tokens
        return Step(batch.slots, plan_spans(batch, self.activation), cos, sin, is_decode)

    def _write_kv(
        self, x: torch.Tensor, index: int, layer: Layer, pool: KVPool, step: Step
    ) -> torch.Tensor:
        """Project, rotate, store K and V; returns the queries `[tokens, heads, head size]`."""
        c = self.config
        qkv = layer.qkv(self._norm(x, layer.input_norm))
        heads = qkv.view(-1, c.heads + 2 * c.kv_heads, c.head_size)
        qk = heads[:, : c.heads + c.kv_heads]
        if layer.qk_norm is None:
            self._rotary.rotate(qk, step.cos, step.sin, qk)
        else:
            normed = F.rms_norm(qk, (c.head_size,), None, c.rms_eps) * layer.qk_norm
            self._rotary.rotate(normed, step.cos, step.sin, qk)
        # One conversion for q, k and v: decode's queries are wanted in the pool's dtype too.
        stored = heads.to(pool.dtype)
        kv = stored[:, c.heads :].view(-1, 2, c.kv_heads, c.head_size)
        pool.write(index, kv.transpose(0, 1), step.slots)
        return (stored if step.is_decode else heads)[:, : c.heads]

    def _mix(self, x: torch.Tensor, attended: torch.Tensor, layer: Layer) -> torch.Tensor:
        """Output projection and MLP, each with its residual."""
        x = x + layer.output(attended)
        gate, up = layer.gate_up(self._norm(x, layer.post_norm)).chunk(2, -1)
        return x + layer.down(F.silu(gate).mul_(up))

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """RMSNorm in fp32, as `F.rms_norm`; on the CPU in half its calls."""
        if x.dtype != torch.float32 or x.is_cuda:
            return F.rms_norm(x, (self.config.hidden,), weight, self.config.rms_eps)
        length = torch.linalg.vector_norm(x, 2, -1, keepdim=True)
        scale = torch.addcmul(self._eps, length, length, value=1 / self.config.hidden).rsqrt_()
        return torch.mul(x, scale).mul_(weight)


class LayerBuilder:
    """Fuses named tensors into a layer's matrices."""

    def __init__(
        self,
        config: ModelConfig,
        tensors: Tensors,
        device: torch.device,
        activation: torch.dtype,
    ) -> None:
        self._config = config
        self._tensors = tensors
        self._device = device
        self._activation = activation

    def layer(self, index: int) -> Layer:
        """The block at `index`."""
        at = f"model.layers.{index}"
        attn = f"{at}.self_attn"
        return Layer(
            input_norm=self.norm(f"{at}.input_layernorm"),
            qkv=self._linear(f"{attn}.q_proj", f"{attn}.k_proj", f"{attn}.v_proj"),
            qk_norm=self._qk_norm(attn) if self._config.qk_norm else None,
            output=self._linear(f"{attn}.o_proj"),
            post_norm=self.norm(f"{at}.post_attention_layernorm"),
            gate_up=self._linear(f"{at}.mlp.gate_proj", f"{at}.mlp.up_proj"),
            down=self._linear(f"{at}.mlp.down_proj"),
        )

    def norm(self, name: str) -> torch.Tensor:
        """A norm's scale, where activations are."""
        return self._tensors[f"{name}.weight"].to(self._device, self._activation)

    def head(self) -> Linear:
        """Hidden state to logits; the embedding's own matrix where the two are tied."""
        tied = self._config.tie_embeddings
        return self._linear("model.embed_tokens" if tied else "lm_head")

    def _linear(self, *names: str) -> Linear:
        weight = stacked([self._tensors[f"{name}.weight"] for name in names])
        biases = [self._tensors.get(f"{name}.bias") for name in names]
        present = [bias for bias in biases if bias is not None]
        bias = stacked(present) if len(present) == len(names) else None
        return make_linear(weight, bias, self._device)

    def _qk_norm(self, attn: str) -> torch.Tensor:
        c = self._config
        q = self.norm(f"{attn}.q_norm").expand(c.heads, -1)
        k = self.norm(f"{attn}.k_norm").expand(c.kv_heads, -1)
        return torch.cat((q, k))
