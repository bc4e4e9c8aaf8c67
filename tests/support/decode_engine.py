"""A decode engine's scheduler in this process, and a sender to its pool in another."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import torch
from tiny_models import VOCAB, random_prompt

from kvloop.decode.scheduler import DecodeScheduler
from kvloop.engine.messages import Answer, AskPrefill, HandOffEvent, Submit, ToFront
from kvloop.engine.node_config import NodeConfig
from kvloop.engine.page_blocks import layer_checksum
from kvloop.engine.parts import build_parts
from kvloop.engine.transfer import Transfer
from kvloop.shared_cache.wire import (
    GenerateRequest,
    KVTarget,
    PrefillCandidate,
    PrefillDone,
    PromptSources,
    Pushed,
    Sampling,
)

PAGE = 16
LAYERS = 3
Message = TypeVar("Message")


def save_config(path: Path) -> str:
    """A tiny model's config.json: its weights are drawn."""
    fields = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "eos_token_id": 3,
    }
    (path / "config.json").write_text(json.dumps(fields))
    return str(path)


class Decode:
    """The scheduler and what it said to its front; `transfer` may be left out where none writes."""

    def __init__(self, model: str, num_pages: int, with_transfer: bool, **flags: Any) -> None:
        config = NodeConfig(
            role="decode",
            model=model,
            load_format="dummy",
            page_size=PAGE,
            max_total_tokens=num_pages * PAGE,
            **{"dtype": "float32", "hicache_size": 0.01, **flags},
        )
        self.parts = build_parts(config)
        self.pool = self.parts.kv.tensor
        self.said: list[ToFront] = []
        transfer = cast(Transfer, SimpleNamespace(session="nowhere:1"))
        if with_transfer:
            transfer = Transfer("127.0.0.1", "tcp")
            transfer.register(self.parts.kv.address, self.parts.kv.num_bytes)
        self.scheduler = DecodeScheduler(self.parts, transfer, self.said.append)

    def said_last(self, kind: type[Message]) -> Message:
        return [message for message in self.said if isinstance(message, kind)][-1]

    def events(self, request_id: str) -> list[Any]:
        """What was answered to a request."""
        answers = [m for m in self.said if isinstance(m, Answer)]
        return [answer.event for answer in answers if answer.request_id == request_id]

    def submit(
        self, request_id: str, num_prompt: int, max_tokens: int = 1, prefills: Sequence[str] = ()
    ) -> AskPrefill:
        """Take a request in, up to its hand-off."""
        request = GenerateRequest(
            request_id=request_id,
            prompt=random_prompt(num_prompt, len(request_id)),
            sampling=Sampling(max_tokens=max_tokens, temperature=0.0, ignore_eos=True),
            namespace=self.parts.identity.namespace,
            cache="off",
            prefills=tuple(PrefillCandidate(url=url) for url in prefills or ("http://a",)),
        )
        self.scheduler.handle(Submit(request))
        self.scheduler.step()
        ask = self.said_last(AskPrefill)
        assert ask.request.request_id == request_id
        return ask

    def push(self, ask: AskPrefill, layer: int, checksum: int | None = None) -> None:
        """The line that says that a layer of all pages has been written."""
        target = ask.request.target
        right = layer_checksum(self.parts.kv, layer, target.pages)
        event = Pushed(
            layer=layer,
            first=ask.request.first_page,
            count=len(target.pages),
            checksum=right if checksum is None else checksum,
            computed_at=0.0,
        )
        self._hand_off(ask, event)

    def finish_hand_off(self, ask: AskPrefill) -> None:
        done = PrefillDone(
            first_token=5,
            logprob=None,
            sources=PromptSources(computed=len(ask.request.prompt)),
            storage=["will_not"] * (len(ask.request.prompt) // PAGE),
            last_layer_at=0.0,
        )
        self._hand_off(ask, done)

    def _hand_off(self, ask: AskPrefill, event: Pushed | PrefillDone) -> None:
        request, now = ask.request, time.monotonic()
        self.scheduler.handle(HandOffEvent(request.request_id, request.attempt, event, now))

    def counted(self, metric: str, **labels: str) -> float:
        return self.parts.metrics.registry.get_sample_value(metric, labels) or 0.0

    def page_bytes(self, pages: Sequence[int]) -> torch.Tensor:
        """A copy of these pages, all layers, as bytes."""
        return self.pool[:, :, list(pages)].clone().view(torch.uint8)


_WRITER = """
import json, mmap, sys
import numpy as np
from kvloop.engine.transfer import Block, Transfer
transfer = Transfer("127.0.0.1", "tcp")
memory = np.full(1 << 20, 0xA5, np.uint8)
transfer.register(memory.ctypes.data, memory.nbytes)
print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    blocks = [Block(memory.ctypes.data, target, length) for target, length in order["blocks"]]
    transfer.write(order["session"], blocks)
    print("written", flush=True)
"""
FILLED = 0xA5


class Writer:
    """A process that writes where it was told to, over the real transfer engine."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._line() == "ready"

    def order(self, target: KVTarget, layers: Sequence[int]) -> None:
        """Tell it to fill these layers of the target's pages; returns at once."""
        blocks = [
            (
                target.base + layer * target.layer_stride + half * target.kv_stride + page * size,
                size,
            )
            for size in (target.page_bytes,)
            for layer in layers
            for half in range(2)
            for page in target.pages
        ]
        assert self.process.stdin is not None
        line = json.dumps({"session": target.session, "blocks": blocks})
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def wait_written(self) -> None:
        assert self._line() == "written"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()
