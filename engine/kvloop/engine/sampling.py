"""Choosing tokens: penalties, temperature, top_k, top_p, min_p, and one keyed random number.

The random number depends on (seed, position) only, and cuts keep every token that is as likely as
the last one kept, so neither the batch nor the order of a sort can change an answer.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from kvloop.shared_cache.wire import Sampling, TokenLogprob

_GREEDY_BELOW = 1e-5
"""Temperatures under this are greedy: dividing by them would overflow."""
_HEAD = 1024
"""Likeliest tokens that top_p looks at before it sorts the whole vocabulary."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """One chosen token; `logprob` where the request asked for logprobs."""

    token: int
    logprob: TokenLogprob | None


class SamplingState:
    """One request's sampling parameters and the tokens its penalties weigh."""

    def __init__(self, sampling: Sampling, prompt_ids: Iterable[int]) -> None:
        self.sampling = sampling
        self.seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        self._prompt = prompt_ids
        self._output: list[int] = []
        self._seen: torch.Tensor | None = None
        self._counts: torch.Tensor | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.sampling.temperature < _GREEDY_BELOW

    @property
    def has_penalties(self) -> bool:
        """Whether logits are changed before the choice."""
        s = self.sampling
        return bool(s.repetition_penalty != 1 or s.frequency_penalty or s.presence_penalty)

    @torch.inference_mode()
    def add(self, token: int) -> None:
        """Record a token of the answer."""
        self._output.append(token)
        if self._seen is not None and self._counts is not None:
            self._seen[token] = True
            self._counts[token] += 1

    def seen(self, like: torch.Tensor) -> torch.Tensor:
        """bool `[vocab]`: tokens of prompt and answer, on the device of `like` `[.., vocab]`."""
        self._build(like)
        assert self._seen is not None
        return self._seen

    def counts(self, like: torch.Tensor) -> torch.Tensor:
        """fp32 `[vocab]`: how often each token is in the answer."""
        self._build(like)
        assert self._counts is not None
        return self._counts

    def _build(self, like: torch.Tensor) -> None:
        if self._seen is not None:
            return
        output = torch.tensor(self._output, dtype=torch.int64)
        seen = torch.zeros(like.shape[-1], dtype=torch.bool)
        seen[torch.tensor(list(self._prompt), dtype=torch.int64)] = True
        seen[output] = True
        self._seen = seen.to(like.device)
        self._counts = torch.bincount(output, minlength=like.shape[-1]).float().to(like.device)


@torch.inference_mode()
def sample(
    logits: torch.Tensor, states: Sequence[SamplingState], positions: Sequence[int]
) -> list[Sampled]:
    """Choose a token for each row of fp32 `[n, vocab]`; `positions` are those of the new tokens."""
    assert len(logits) == len(states) == len(positions)
    weighed = _penalized(logits, states)
    drawn = [i for i, state in enumerate(states) if not state.is_greedy]
    tokens = [0] * len(states) if len(drawn) == len(states) else weighed.argmax(-1).tolist()
    if drawn:
        rows = weighed if len(drawn) == len(states) else weighed[drawn]
        chosen = _draw(rows, [states[i] for i in drawn], [positions[i] for i in drawn])
        for i, token in zip(drawn, chosen, strict=True):
            tokens[i] = token
    logprobs = _logprobs(logits, states, tokens)
    return [Sampled(token, logprob) for token, logprob in zip(tokens, logprobs, strict=True)]


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) of 53 random bits, the same on every machine."""
    digest = hashlib.sha256(f"{seed}:{position}".encode()).digest()
    return (int.from_bytes(digest[:8], "little") >> 11) / (1 << 53)


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _penalized(logits: torch.Tensor, states: Sequence[SamplingState]) -> torch.Tensor:
    """Repetition weighs prompt and answer, frequency and presence the answer only."""
    rows = [i for i, state in enumerate(states) if state.has_penalties]
    if not rows:
        return logits
    those = [states[i] for i in rows]
    x = logits[rows]
    factor = _column([state.sampling.repetition_penalty for state in those], x)
    seen = torch.stack([state.seen(logits) for state in those])
    x = torch.where(seen, torch.where(x > 0, x / factor, x * factor), x)
    counts = torch.stack([state.counts(logits) for state in those])
    x = x - counts * _column([state.sampling.frequency_penalty for state in those], x)
    x = x - (counts > 0) * _column([state.sampling.presence_penalty for state in those], x)
    changed = logits.clone()
    changed[rows] = x
    return changed


def _draw(
    logits: torch.Tensor, states: Sequence[SamplingState], positions: Sequence[int]
) -> list[int]:
    """Inverse of the cumulative distribution, over token ids in order, at one uniform a row."""
    params = [state.sampling for state in states]
    x = logits / _column([p.temperature for p in params], logits)
    x = _keep_top_k(x, params)
    probs = _keep_top_p(torch.softmax(x, -1), params)
    if any(p.min_p > 0 for p in params):
        least = probs.amax(-1, keepdim=True) * _column([p.min_p for p in params], probs)
        probs = torch.where(probs >= least, probs, 0.0)
    cumulative = probs.double().cumsum(-1)
    numbers = [uniform(s.seed, position) for s, position in zip(states, positions, strict=True)]
    target = _column(numbers, cumulative) * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, target, right=True)[:, 0].tolist()
    # Rounding may put the target on the total itself: the last token kept is meant.
    last = cumulative.shape[1] - 1
    return [i if i <= last else int(probs[row].nonzero()[-1]) for row, i in enumerate(found)]


def _keep_top_k(x: torch.Tensor, params: Sequence[Sampling]) -> torch.Tensor:
    vocab = x.shape[-1]
    wanted = [p.top_k if 0 < p.top_k < vocab else vocab for p in params]
    most = max((k for k in wanted if k < vocab), default=0)
    if not most:
        return x
    index = torch.tensor([min(k, most) - 1 for k in wanted], device=x.device)[:, None]
    least = x.topk(most, -1).values.gather(-1, index)
    is_cut = torch.tensor([k < vocab for k in wanted], device=x.device)[:, None]
    return torch.where(is_cut & (x < least), -torch.inf, x)


def _keep_top_p(probs: torch.Tensor, params: Sequence[Sampling]) -> torch.Tensor:
    """Keep the likeliest tokens up to the one that reaches top_p."""
    rows = [i for i, p in enumerate(params) if p.top_p < 1]
    if not rows:
        return probs
    limit = _column([params[i].top_p for i in rows], probs).double()
    x = probs[rows]
    head = x.topk(min(_HEAD, x.shape[-1]), -1).values
    reached = head.double().cumsum(-1)
    if bool((reached[:, -1:] < limit).any()):
        head = x.sort(-1, descending=True).values
        reached = head.double().cumsum(-1)
    before = reached - head
    last = (before < limit).sum(-1, keepdim=True).clamp_(min=1) - 1
    kept = probs.clone()
    kept[rows] = torch.where(x >= head.gather(-1, last), x, 0.0)
    return kept


def _logprobs(
    logits: torch.Tensor, states: Sequence[SamplingState], tokens: Sequence[int]
) -> list[TokenLogprob | None]:
    """Of the raw logits, for the rows that asked."""
    asked = [(i, s.sampling.top_logprobs) for i, s in enumerate(states)]
    rows = {i: count for i, count in asked if count is not None}
    found: list[TokenLogprob | None] = [None] * len(states)
    if not rows:
        return found
    logs = torch.log_softmax(logits[list(rows)].float(), -1)
    values, ids = logs.topk(max(max(rows.values()), 1), -1)
    likeliest = zip(ids.tolist(), values.tolist(), strict=True)
    for log, (i, count), (top_ids, top_logs) in zip(logs, rows.items(), likeliest, strict=True):
        top = list(zip(top_ids, top_logs, strict=True))[:count]
        found[i] = TokenLogprob(token=tokens[i], logprob=float(log[tokens[i]]), top=top)
    return found
