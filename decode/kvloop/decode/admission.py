"""Which requests this node takes, and as what; pure."""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass

import msgspec

from kvloop.decode.request import OwnedRequest
from kvloop.engine.sampling import SamplingState
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.wire import GenerateRequest, Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a request must fit."""

    namespace: str
    generation: str
    max_context: int
    """Tokens, prompt and answer together."""
    pool_tokens: int
    vocab_size: int

    def refusal(self, request: GenerateRequest) -> Refused | None:
        """Why a request can never be served here; None where it can."""
        longest = len(request.prompt) + request.sampling.max_tokens
        if (request.namespace, request.generation) != (self.namespace, self.generation):
            return _wrong(409, "namespace", "this node's namespace or generation is another one")
        if not request.prompt or request.sampling.max_tokens < 1:
            return _wrong(400, "empty", "prompt and max_tokens must be at least one token")
        if min(request.prompt) < 0 or max(request.prompt) >= self.vocab_size:
            return _wrong(400, "token", f"prompt ids must be from 0 to {self.vocab_size - 1}")
        if longest > self.max_context:
            return _too_long("context_length", longest, f"context holds {self.max_context}")
        if longest > self.pool_tokens:
            limit = f"node's pool holds {self.pool_tokens} (--max-total-tokens)"
            return _too_long("pool", longest, limit)
        return None


def own(request: GenerateRequest, page_size: int) -> OwnedRequest:
    """A request of this node's, with a seed of its own where it brought none."""
    sampling = request.sampling
    if sampling.seed is None:
        sampling = msgspec.structs.replace(sampling, seed=secrets.randbits(63))
        request = msgspec.structs.replace(request, sampling=sampling)
    seed = bytes.fromhex(request.cache_seed) if request.cache_seed else None
    keys = [] if request.cache == "off" else page_keys(request.prompt, page_size, seed)
    return OwnedRequest(
        request=request,
        page_size=page_size,
        keys=keys,
        candidates=deque(request.prefills),
        sampling=SamplingState(sampling, request.prompt),
    )


def busy(message: str) -> Refused:
    """No room now; the client may retry."""
    return Refused(status=429, kind="busy", message=message, retry_after_s=1.0)


def _too_long(kind: str, longest: int, limit: str) -> Refused:
    return _wrong(400, kind, f"prompt and max_tokens need {longest} tokens, this {limit}")


def _wrong(status: int, kind: str, message: str) -> Refused:
    return Refused(status=status, kind=kind, message=message)
