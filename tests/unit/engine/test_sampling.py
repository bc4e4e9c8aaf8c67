"""Sampling beside a naive reference, and what must not change an answer."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from examples import examples
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kvloop.engine.sampling import SamplingState, sample, uniform
from kvloop.shared_cache.wire import Sampling

VOCAB = 40


def params(**changes) -> Sampling:
    return Sampling(**({"max_tokens": 8, "seed": 1} | changes))


def state(prompt=(), output=(), **changes) -> SamplingState:
    made = SamplingState(params(**changes), list(prompt))
    for token in output:
        made.add(token)
    return made


def penalized(logits, prompt, output, p):
    x = np.array(logits, np.float64)
    for token in set(prompt) | set(output):
        x[token] = (
            x[token] / p.repetition_penalty if x[token] > 0 else x[token] * p.repetition_penalty
        )
    for token, count in Counter(output).items():
        x[token] -= p.frequency_penalty * count + p.presence_penalty
    return x


def kept_probabilities(x, p):
    """float64 `[vocab]` after temperature and cuts, not normalized; 0 where cut."""
    x = x / p.temperature
    if p.top_k:
        x = np.where(x >= np.sort(x)[::-1][min(p.top_k, len(x)) - 1], x, -np.inf)
    probs = np.exp(x - x.max())
    probs /= probs.sum()
    ranked = np.sort(probs)[::-1]
    if p.top_p < 1:
        reached = np.cumsum(ranked)
        assume(np.abs(reached - p.top_p).min() > 1e-5)
        last = max(int((reached - ranked < p.top_p).sum()) - 1, 0)
        probs = np.where(probs >= ranked[last] * (1 - 1e-6), probs, 0)
    edge = probs.max() * p.min_p
    assume(np.abs(probs - edge).min() > 1e-7 or p.min_p == 0)
    return np.where(probs >= edge, probs, 0)


row = st.lists(st.integers(-12, 12), min_size=VOCAB, max_size=VOCAB).map(
    lambda x: [v / 2 for v in x]
)
tokens = st.lists(st.integers(0, VOCAB - 1), max_size=12)
choice = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.3, 0.7, 1.0, 1.8]),
        "top_k": st.sampled_from([0, 1, 3, 10, 39, 40, 100]),
        "top_p": st.sampled_from([1.0, 0.95, 0.6, 0.2, 1e-6]),
        "min_p": st.sampled_from([0.0, 0.05, 0.5]),
        "seed": st.integers(0, 2**63 - 1),
        "repetition_penalty": st.sampled_from([1.0, 1.3, 0.8]),
        "frequency_penalty": st.sampled_from([0.0, 0.7, -0.4]),
        "presence_penalty": st.sampled_from([0.0, 1.1]),
    }
)


@settings(max_examples=examples(300), deadline=None)
@given(row, tokens, tokens, choice, st.integers(0, 5000))
def test_a_draw_inverts_the_kept_distribution_at_its_number(
    logits, prompt, output, changes, position
):
    p = params(**changes)
    probs = kept_probabilities(penalized(logits, prompt, output, p), p)
    cumulative = np.cumsum(probs) / probs.sum()
    number = uniform(p.seed, position)
    assume(np.abs(cumulative[:-1] - number).min() > 1e-5)
    expected = int(np.searchsorted(cumulative, number, side="right"))
    made = sample(torch.tensor([logits]), [state(prompt, output, **changes)], [position])
    assert made[0].token == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(row, tokens, choice, st.booleans()), min_size=2, max_size=5))
def test_a_rows_answer_does_not_depend_on_its_batch(rows):
    changes = [c | ({"temperature": 0.0} if greedy else {}) for _, _, c, greedy in rows]
    logits = torch.tensor([logits for logits, *_ in rows])
    states = [
        state(prompt, prompt[:3], **c) for (_, prompt, *_), c in zip(rows, changes, strict=True)
    ]
    positions = list(range(10, 10 + len(rows)))
    together = sample(logits, states, positions)
    alone = [
        sample(logits[i : i + 1], states[i : i + 1], positions[i : i + 1])[0]
        for i in range(len(rows))
    ]
    assert together == alone


@given(row, tokens, tokens)
def test_greedy_takes_the_likeliest_token_after_penalties(logits, prompt, output):
    changes = {"temperature": 0.0, "repetition_penalty": 1.5, "frequency_penalty": 0.3}
    x = penalized(logits, prompt, output, params(**changes))
    made = sample(torch.tensor([logits]), [state(prompt, output, **changes)], [0])[0]
    assert x[made.token] == pytest.approx(x.max(), abs=1e-5)


def test_tokens_added_after_the_first_draw_are_penalized_too():
    logits = torch.tensor([[1.0, 0.9, 0.0]])
    one = state(prompt=[2], temperature=0.0, presence_penalty=0.5)
    assert sample(logits, [one], [0])[0].token == 0
    one.add(0)
    assert sample(logits, [one], [1])[0].token == 1


def test_penalties_leave_the_callers_logits_alone():
    logits = torch.tensor([[1.0, 0.9, 0.0]])
    sample(logits, [state(output=[0], presence_penalty=2.0)], [0])
    assert logits.tolist() == [[1.0, pytest.approx(0.9), 0.0]]


def test_draws_follow_the_distribution_over_positions():
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    one = state()
    counts = Counter(sample(logits, [one], [i])[0].token for i in range(4000))
    for token, share in enumerate([0.5, 0.3, 0.15, 0.05]):
        assert abs(counts[token] / 4000 - share) < 4 * math.sqrt(share / 4000)


def test_numbers_depend_on_seed_and_position_and_lie_in_the_unit_interval():
    numbers = [uniform(seed, position) for seed in range(40) for position in range(40)]
    assert len(set(numbers)) == 1600
    assert all(0 <= number < 1 for number in numbers)
    assert uniform(7, 9) == 0.9404875740573461


def test_a_request_without_a_seed_draws_its_own():
    assert state(seed=None).seed != state(seed=None).seed


def test_a_wide_flat_distribution_is_cut_as_a_narrow_one():
    """top_p looks at the likeliest 1,024 tokens first; here they do not reach it."""
    logits = torch.linspace(0, 0.5, 5000)[None]
    ranked = torch.softmax(logits, -1)[0].sort(descending=True)
    last = int((ranked.values.double().cumsum(0) - ranked.values < 0.9).sum()) - 1
    allowed = set(ranked.indices[: last + 1].tolist())
    one = state(top_p=0.9)
    drawn = {sample(logits, [one], [i])[0].token for i in range(300)}
    assert drawn <= allowed and min(drawn) < 2000


def test_logprobs_are_of_the_raw_logits_and_only_where_asked():
    logits = torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(2))
    states = [
        state(temperature=0.2, top_k=2, top_logprobs=3),
        state(),
        state(temperature=0.0, top_logprobs=0),
    ]
    with_top, without, own_only = sample(logits, states, [5, 5, 5])
    raw = torch.log_softmax(logits, -1)
    assert without.logprob is None
    assert with_top.logprob.token == with_top.token
    assert with_top.logprob.logprob == pytest.approx(float(raw[0, with_top.token]), abs=1e-5)
    values, ids = raw[0].topk(3)
    assert [token for token, _ in with_top.logprob.top] == ids.tolist()
    assert [value for _, value in with_top.logprob.top] == pytest.approx(values.tolist(), abs=1e-5)
    assert own_only.logprob.top == []
    assert own_only.logprob.logprob == pytest.approx(float(raw[2].max()), abs=1e-5)
