"""A decode engine's scheduler in this process that answers chats: it computes prompts itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import torch
from decode_engine import PAGE, Decode

from kvloop.engine.messages import AskPrefill, Submit
from kvloop.shared_cache.keys import cache_seed
from kvloop.shared_cache.wire import (
    CacheMode,
    Finished,
    GenerateRequest,
    PrefillCandidate,
    PrefillDone,
    PromptSources,
    Refused,
    Sampling,
    Started,
    StorageState,
    Tokens,
)

_LONGEST_S = 60.0


class ChatDecode(Decode):
    """Without prefill nodes a prompt is computed here; with them the test hands it over."""

    def ask(
        self,
        request_id: str,
        prompt: Sequence[int],
        max_tokens: int = 8,
        *,
        cache: CacheMode = "on",
        salt: str | None = None,
        prefills: Sequence[str] = (),
        **fields: Any,
    ) -> None:
        """Submit a greedy request; nothing is computed yet."""
        seed = cache_seed(None, salt)
        request = GenerateRequest(
            request_id=request_id,
            prompt=list(prompt),
            sampling=Sampling(max_tokens=max_tokens, temperature=0.0, ignore_eos=True, seed=1),
            namespace=self.parts.identity.namespace,
            cache=cache,
            cache_seed=seed.hex() if seed else None,
            prefills=tuple(PrefillCandidate(url=url) for url in prefills),
            **fields,
        )
        self.scheduler.handle(Submit(request))

    def offered(self, request_id: str) -> AskPrefill:
        """What the newest attempt of a request was asked for."""
        asks = [m for m in self.said if isinstance(m, AskPrefill)]
        return [ask for ask in asks if ask.request.request_id == request_id][-1]

    def hand_over(
        self, ask: AskPrefill, storage: StorageState = "will_not", num_layers: int = 3
    ) -> None:
        """All layers have come, and prefill had nothing cached; what it says of L3."""
        for layer in range(num_layers):
            self.push(ask, layer)
        done = PrefillDone(
            first_token=5,
            logprob=None,
            sources=PromptSources(computed=len(ask.request.prompt)),
            storage=[storage] * (len(ask.request.prompt) // PAGE),
            last_layer_at=0.0,
        )
        self._hand_off(ask, done)

    def run(self) -> None:
        """Turn the loop until all requests have ended and the offload has let go of them."""
        until = time.monotonic() + _LONGEST_S
        while not self.is_idle:
            assert time.monotonic() < until, self.scheduler.load()
            if not self.scheduler.step():
                time.sleep(0.002)

    @property
    def is_idle(self) -> bool:
        load = self.scheduler.load()
        busy = load.running + load.waiting + load.offload_backlog_pages + load.quarantined_pages
        return not busy and load.free_pages == load.total_pages

    def started(self, request_id: str) -> Started:
        (event,) = [e for e in self.events(request_id) if isinstance(e, Started)]
        return event

    def answer(self, request_id: str) -> list[int]:
        """The tokens of a request that has ended."""
        events = self.events(request_id)
        assert isinstance(events[-1], Finished), events
        assert not any(isinstance(event, Refused) for event in events)
        return [token for event in events if isinstance(event, Tokens) for token in event.ids]

    def num_held(self, request_id: str) -> int:
        """Prompt pages that were matched here."""
        return self.started(request_id).sources.transfer_skipped // PAGE


def ids(length: int, seed: object = 0) -> list[int]:
    """Tokens of a prompt: the same for the same seed and length."""
    return Random(f"{length} {seed}").choices(range(4, 160), k=length)


@contextmanager
def one_thread() -> Iterator[None]:
    """So small a model is slowest where threads wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def file_cache(root: Path) -> dict[str, object]:
    """Flags of a node whose L3 is a directory."""
    return {
        "hicache_storage_backend": "file",
        "hicache_storage_backend_extra_config": {"root": str(root)},
    }
