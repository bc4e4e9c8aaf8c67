"""What a step and a page cost: of a device and a model by their sheets, or fitted to a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from kvloop.benchmark.simulate.device import Device
from kvloop.benchmark.simulate.model_shape import ModelShape
from kvloop.shared_cache.errors import ConfigError

SCHEMA = "kvloop.bench.device/1"
_SPLIT_SHARE = 0.9
"""Of the devices' sum, where several hold one model: they wait for each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One node's costs. Seconds, bytes and tokens."""

    schema: str = SCHEMA
    name: str
    model: str
    layers: int
    kv_bytes_per_token: float
    memory_bytes: float
    """For KV, on one node."""
    pcie_bytes_per_s: float
    prefill_floor_s: float = 0.0
    prefill_request_s: float = 0.0
    """Of each prompt, on top of its steps; the node computes nothing else meanwhile."""
    prefill_token_s: float = 0.0
    prefill_pair_s: float = 0.0
    """Of each token with each token of its context."""
    prefill_context_s: float = 0.0
    """Of each token of context, in each step."""
    decode_floor_s: float = 0.0
    decode_step_s: float = 0.0
    decode_sequence_s: float = 0.0
    decode_context_s: float = 0.0
    """Of each token of context, in each step."""
    fetch_latency_s: float = 0.001
    """Of one question to L3, and of each batch that is read."""
    fetch_token_s: float = 0.0
    """Of each token that comes from L3, on top of its bytes' way."""
    prefill_slowdown: float = 0.0
    """By how much longer a prefill step takes while decode computes; 0.5: half as long again."""
    decode_slowdown: float = 0.0
    chunk_tokens: int = 2048
    enough_tokens: int = 2048
    max_running: int = 256

    def prefill_s(self, num_tokens: int, num_before: int) -> float:
        """One prompt's share of a step: so many tokens, with so many before them."""
        pairs = num_tokens * (num_before + num_tokens / 2)
        return num_tokens * self.prefill_token_s + pairs * self.prefill_pair_s

    def prefill_step_s(self, parts: list[tuple[int, int]]) -> float:
        """A step over several prompts' `(tokens, tokens before)`."""
        computing = sum(self.prefill_s(tokens, before) for tokens, before in parts)
        context = sum(tokens + before for tokens, before in parts)
        return max(self.prefill_floor_s, computing) + context * self.prefill_context_s

    def decode_base_s(self, num_sequences: int) -> float:
        """A step's time, but for its context."""
        return max(self.decode_floor_s, self.decode_step_s + num_sequences * self.decode_sequence_s)


def profile_of(
    device: Device,
    shape: ModelShape,
    *,
    weight_bytes: float = 2.0,
    kv_bytes: float = 2.0,
    devices_per_node: int = 1,
) -> Profile:
    """The data sheet's costs; raises ConfigError where the weights do not fit."""
    num = devices_per_node
    scale = num if num == 1 else num * _SPLIT_SHARE
    flops = device.flops * device.flops_share * scale
    memory = device.memory_bytes_per_s * scale
    kv_token = shape.kv_values_per_token * kv_bytes
    room = device.memory_gib * 2**30 * device.usable_share * num - shape.params * weight_bytes
    if room <= 0:
        raise ConfigError(
            f"--model {shape.name} has {shape.params * weight_bytes / 2**30:.0f} GiB of weights, "
            f"{num} {device.name} have room for less: more --devices-per-node, or a smaller "
            "--weight-dtype"
        )
    weights_s = shape.step_params * weight_bytes / (memory * device.memory_share)
    return Profile(
        name=device.name if num == 1 else f"{num}x{device.name}",
        model=shape.name,
        layers=shape.layers,
        kv_bytes_per_token=kv_token,
        memory_bytes=room,
        pcie_bytes_per_s=device.pcie_bytes_per_s * device.pcie_share * num,
        prefill_floor_s=max(device.floor_s, weights_s),
        prefill_token_s=2 * shape.layer_params / flops,
        prefill_pair_s=shape.attention_flop / flops,
        prefill_context_s=kv_token / (memory * device.context_share),
        decode_floor_s=max(device.floor_s, weights_s),
        decode_sequence_s=2 * shape.step_params / flops,
        decode_context_s=kv_token / (memory * device.memory_share),
        prefill_slowdown=1.0 if device.is_shared else 0.0,
        decode_slowdown=1.0 if device.is_shared else 0.0,
        chunk_tokens=device.chunk_tokens,
        enough_tokens=device.enough_tokens or device.chunk_tokens,
        max_running=device.max_running,
    )


def read_profile(path: Path) -> Profile:
    """What `--profile-out` wrote; raises ConfigError."""
    try:
        profile = msgspec.json.decode(path.read_bytes(), type=Profile)
    except OSError as error:
        raise ConfigError(f"--device {path}: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"--device {path}: no calibrated device: {error}") from None
    if profile.schema != SCHEMA:
        raise ConfigError(f"--device {path}: its schema is {profile.schema!r}, not {SCHEMA!r}")
    return profile


def write_profile(profile: Profile, path: Path) -> None:
    """Raises ConfigError where it cannot be written."""
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(profile), indent=1) + b"\n")
    except OSError as error:
        raise ConfigError(f"--profile-out {path}: {error.strerror}") from None
