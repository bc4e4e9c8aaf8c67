"""A prefill engine's scheduler in this process, which pushes into a pool of the same process."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from decode_engine import PAGE

from kvloop.engine.batch import Segment, make_batch
from kvloop.engine.cpu_mover import CpuMover
from kvloop.engine.kv_pool import KVPool
from kvloop.engine.messages import Attempt, AttemptEvent, ToFront
from kvloop.engine.node_config import NodeConfig
from kvloop.engine.page_mover import LayerMove
from kvloop.engine.parts import build_parts
from kvloop.engine.transfer import Block, Transfer
from kvloop.prefill.scheduler import PrefillScheduler
from kvloop.shared_cache.wire import KVTarget, PrefillDone, PrefillRequest, Sampling

NUM_PAGES = 24
GREEDY = Sampling(max_tokens=1, temperature=0.0, ignore_eos=True)


class HeldLoads:
    """Load-backs of one page (a tail is one) that begin when `release` is called."""

    def __init__(self, mover: CpuMover) -> None:
        self._load_back = mover.load_back
        self.is_held = False
        self.held: list[_Held] = []
        mover.load_back = self.load_back  # type: ignore[method-assign]

    def load_back(self, pages: Sequence[int], slots: Sequence[int]) -> LayerMove:
        if not self.is_held or len(pages) != 1:
            return self._load_back(pages, slots)
        self.held.append(_Held(lambda: self._load_back(pages, slots)))
        return self.held[-1]

    def release(self) -> None:
        """Load what was held, now."""
        for move in self.held:
            move.begin()


class _Held:
    """See `LayerMove`."""

    num_bytes, seconds = 0, None

    def __init__(self, begin: Callable[[], LayerMove]) -> None:
        self._begin = begin
        self._move: LayerMove | None = None

    def begin(self) -> None:
        self._move = self._begin()
        self._move.wait()

    @property
    def is_done(self) -> bool:
        return self._move is not None and self._move.is_done

    def wait(self) -> None:
        assert self._move is not None, "waited for before it is done"

    def hold_device(self) -> None:
        """As a load-back's."""

    def before_layer(self, layer: int) -> None:
        self.wait()

    def await_layer(self, layer: int) -> None:
        self.wait()


class Prefill:
    """A prefill engine over a directory; it pushes into `target`, which is this process's too."""

    def __init__(self, model: str, root: Path, **flags: Any) -> None:
        config = NodeConfig(
            role="prefill",
            model=model,
            load_format="dummy",
            page_size=PAGE,
            max_total_tokens=NUM_PAGES * PAGE,
            chunked_prefill_size=2 * PAGE,
            dtype="float32",
            hicache_size=0.01,
            hicache_storage_prefetch_policy="wait_complete",
            **{**over(root), **flags},
        )
        self.parts = build_parts(config)
        assert self.parts.store.guard.wait_attached(30)
        self.loads = HeldLoads(cast(CpuMover, self.parts.mover))
        self.target = self._pool(NUM_PAGES)
        self.said: list[ToFront] = []
        transfer = cast(Transfer, SimpleNamespace(write=copy_blocks))
        self.scheduler = PrefillScheduler(self.parts, transfer, self.said.append)

    def ask(self, prompt: list[int], name: str = "a", first_page: int = 0, **fields: Any) -> None:
        """An attempt comes."""
        pool = self.target
        request = PrefillRequest(
            request_id=name,
            attempt=name,
            prompt=prompt,
            sampling=GREEDY,
            namespace=self.parts.identity.namespace,
            first_page=first_page,
            target=KVTarget(
                session="here",
                base=pool.address,
                layer_stride=pool.layer_stride,
                kv_stride=pool.kv_stride,
                page_bytes=pool.page_bytes,
                pages=list(range(first_page, -(-len(prompt) // PAGE))),
            ),
            **fields,
        )
        self.scheduler.handle(Attempt(request))

    def events(self, kind: type[Any], name: str = "a") -> list[Any]:
        mine = [m for m in self.said if isinstance(m, AttemptEvent) and m.attempt == name]
        return [message.event for message in mine if isinstance(message.event, kind)]

    def turn_until(self, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < until
            self.scheduler.step()

    def answer(self, prompt: list[int], name: str = "a", **fields: Any) -> PrefillDone:
        """Serve a prompt whole."""
        self.ask(prompt, name, **fields)
        self.turn_until(lambda: bool(self.events(PrefillDone, name)))
        (done,) = self.events(PrefillDone, name)
        return cast(PrefillDone, done)

    def counted(self, result: str) -> float:
        labels = {"result": result}
        registry = self.parts.metrics.registry
        return registry.get_sample_value("kvloop_tail_tokens_total", labels) or 0.0

    def computed(self, prompt: list[int]) -> tuple[torch.Tensor, int]:
        """KV [layer, k|v, page, ...] and greedy next token of a prompt, computed from its start."""
        num_pages = -(-len(prompt) // PAGE)
        pool = self._pool(num_pages)
        batch = make_batch([(prompt, Segment(range(num_pages), 0, len(prompt)))], PAGE, "cpu")
        logits = self.parts.model.forward(batch, pool)
        return pool.tensor, int(logits[0].argmax())

    def check(self, prompt: list[int], done: PrefillDone, first_page: int = 0) -> None:
        """What was pushed is what the prompt's own tokens give."""
        kv, token = self.computed(prompt)
        pushed = self.target.tensor[:, :, : kv.shape[2]].flatten(2, 3)
        mine = slice(first_page * PAGE, len(prompt))
        expected = kv.flatten(2, 3)
        np.testing.assert_allclose(pushed[:, :, mine], expected[:, :, mine], atol=1e-5)
        assert done.first_token == token

    def _pool(self, num_pages: int) -> KVPool:
        return KVPool(self.parts.loaded.config, num_pages, PAGE, torch.float32)


def copy_blocks(session: str, blocks: Sequence[Block]) -> None:
    """Stands for the transfer: both pools are in this process."""
    for block in blocks:
        ctypes.memmove(block.target, block.source, block.length)


def over(root: Path) -> dict[str, Any]:
    return {
        "hicache_storage_backend": "file",
        "hicache_storage_backend_extra_config": {"root": str(root)},
    }
