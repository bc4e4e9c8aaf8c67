"""A request that this decode node owns, from its reservation to its last token."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from kvloop.decode.hand_off import HandOff
from kvloop.engine.sampling import SamplingState
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.wire import (
    FinishReason,
    GenerateRequest,
    PrefillCandidate,
    StorageState,
)

if TYPE_CHECKING:
    from kvloop.decode.offload.last_turn import LastTurn


class Stage(Enum):
    WAITING = auto()
    HAND_OFF = auto()
    LOCAL_PREFILL = auto()
    RUNNING = auto()
    ENDED = auto()


@dataclass(slots=True, kw_only=True)
class OwnedRequest:
    """Owned by the loop thread."""

    request: GenerateRequest
    page_size: int
    keys: list[bytes]
    """Of full pages, the prompt's first, continued as the answer fills more; empty: cache off."""
    candidates: deque[PrefillCandidate]
    sampling: SamplingState
    stage: Stage = Stage.WAITING
    pages: list[int] = field(default_factory=list)
    num_matched: int = 0
    """Leading pages that the tree held when they were reserved: prefill is not asked for them."""
    num_locked: int = 0
    """Leading pages whose keys are locked in the tree for this request."""
    duplicates: list[int] = field(default_factory=list)
    """Those of these pages that are not the tree's own, which had others for the same keys."""
    output: list[int] = field(default_factory=list)
    num_done: int = 0
    """Prompt tokens with KV here, while the prompt is computed locally."""
    hand_off: HandOff | None = None
    storage: list[StorageState] = field(default_factory=list)
    """Of each full prompt page, as prefill said."""
    num_failed: int = 0
    last_turn: LastTurn | None = None
    """The session's, whose pages may be in L3 a moment after the request has come."""
    reason: FinishReason | None = None
    waiting_since: float = field(default_factory=time.monotonic)
    handed_off_at: float = 0.0

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def num_prompt(self) -> int:
        return len(self.request.prompt)

    @property
    def num_tokens(self) -> int:
        """Tokens of the sequence, as the chunk planner reads it: of the prompt."""
        return self.num_prompt

    @property
    def num_kv(self) -> int:
        """Tokens with KV: the last sampled one has none."""
        return self.num_prompt + max(len(self.output) - 1, 0)

    @property
    def num_prompt_pages(self) -> int:
        return -(-self.num_prompt // self.page_size)

    @property
    def num_pages(self) -> int:
        """Pages that the request can need: prompt and longest answer."""
        longest = self.num_prompt + max(self.request.sampling.max_tokens - 1, 0)
        return -(-longest // self.page_size)

    @property
    def reusable_keys(self) -> list[bytes]:
        """The page with the prompt's last token is always asked for: its logits are wanted."""
        return self.keys[: (self.num_prompt - 1) // self.page_size]

    @property
    def reads_device(self) -> bool:
        return self.request.cache == "on"

    @property
    def last_token(self) -> int:
        return self.output[-1]

    def grow_keys(self) -> None:
        """Chain on the keys of pages that the answer has filled."""
        if self.request.cache == "off":
            return
        full = self.num_kv // self.page_size
        if full <= len(self.keys):
            return
        start, end = len(self.keys) * self.page_size, full * self.page_size
        tokens = self.request.prompt[start:end]
        tokens += self.output[max(start - self.num_prompt, 0) : max(end - self.num_prompt, 0)]
        parent = self.keys[-1] if self.keys else self.seed
        self.keys += page_keys(tokens, self.page_size, parent=parent)

    @property
    def seed(self) -> bytes | None:
        return bytes.fromhex(self.request.cache_seed) if self.request.cache_seed else None
