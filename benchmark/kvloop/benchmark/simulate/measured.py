"""What a measured run's samples say of single steps: service times freed of queueing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvloop.benchmark.sample import Sample

_JOINED = 0.1
"""Less than this share of a usual service: the prompt was computed with the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One prompt (or several that were computed together) at prefill."""

    began_at: float
    ended_at: float
    num: int
    """Prompts."""
    computed: int
    """Tokens."""
    pairs: float
    """Of computed tokens with their context."""
    fetched: int
    """Tokens that came from L3."""
    decode_share: float
    """Of its time in which decode computed too."""

    @property
    def seconds(self) -> float:
        return self.ended_at - self.began_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One answer at decode."""

    tpot_s: float
    batch: float
    """Answers that grew meanwhile, this one too, on average."""
    context: float
    """Tokens of all of them, on average."""
    prefill_share: float
    """Of its time in which prefill computed too."""


def services(samples: Sequence[Sample]) -> list[Service]:
    """Of one prefill node, first come first served: each begins when the one before has ended."""
    ordered = sorted(samples, key=_first_at)
    ends = [_first_at(sample) for sample in ordered]
    begins = [max(s.sent_at, end) for s, end in zip(ordered[1:], ends, strict=False)]
    begins = [ordered[0].sent_at, *begins]
    lengths = sorted(end - begin for begin, end in zip(begins, ends, strict=True))
    usual = lengths[len(lengths) // 2]
    found: list[Service] = []
    for sample, begin, end in zip(ordered, begins, ends, strict=True):
        one = _service(sample, begin, end, samples)
        if found and one.seconds < _JOINED * usual:
            one = _join(found.pop(), one)
        if one.seconds > 0:
            found.append(one)
    return found


def streams(samples: Sequence[Sample], busy: Sequence[Service]) -> list[Stream]:
    """Of all answers with two tokens or more."""
    found = []
    for sample in samples:
        if sample.tpot_s is None or sample.tpot_s <= 0:
            continue
        begin, end = _first_at(sample), sample.ended_at
        shares = [
            (_overlap(begin, end, _first_at(other), other.ended_at) / (end - begin), other)
            for other in samples
        ]
        prefill_s = sum(_overlap(begin, end, one.began_at, one.ended_at) for one in busy)
        found.append(
            Stream(
                tpot_s=sample.tpot_s,
                batch=sum(share for share, _ in shares),
                context=sum(
                    share * (other.prompt_tokens + other.completion_tokens / 2)
                    for share, other in shares
                ),
                prefill_share=min(prefill_s / (end - begin), 1.0),
            )
        )
    return found


def _service(sample: Sample, begin: float, end: float, samples: Sequence[Sample]) -> Service:
    cached = sample.cached_tokens or 0
    fetched = 0
    if sample.sources is not None:
        fetched = sample.sources.storage
    computed = max(sample.prompt_tokens - cached, 1)
    return Service(
        began_at=begin,
        ended_at=end,
        num=1,
        computed=computed,
        pairs=computed * (cached + computed / 2),
        fetched=fetched,
        decode_share=_decode_share(begin, end, samples),
    )


def _decode_share(begin: float, end: float, samples: Sequence[Sample]) -> float:
    """Of that time, how long at least one answer grew."""
    if end <= begin:
        return 0.0
    spans = sorted((max(_first_at(s), begin), min(s.ended_at, end)) for s in samples)
    busy_s, until = 0.0, begin
    for first, last in spans:
        if last > max(first, until):
            busy_s += last - max(first, until)
            until = last
    return busy_s / (end - begin)


def _join(one: Service, other: Service) -> Service:
    return Service(
        began_at=one.began_at,
        ended_at=other.ended_at,
        num=one.num + other.num,
        computed=one.computed + other.computed,
        pairs=one.pairs + other.pairs,
        fetched=one.fetched + other.fetched,
        decode_share=one.decode_share,
    )


def _first_at(sample: Sample) -> float:
    return sample.sent_at + sample.ttft_s


def _overlap(begin: float, end: float, first: float, last: float) -> float:
    return max(min(end, last) - max(begin, first), 0.0)
