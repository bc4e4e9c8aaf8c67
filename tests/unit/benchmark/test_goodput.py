"""Requests that kept what was promised."""

import pytest
from bench_runs import sample

from kvloop.benchmark.results.goodput import Objectives, goodput
from kvloop.shared_cache.errors import ConfigError

QUICK = sample(ttft_s=0.2, ended_at=0.4)  # 200 ms, 100 ms a token
SLOW_START = sample(ttft_s=0.9, ended_at=1.1)
SLOW_TOKENS = sample(ttft_s=0.2, ended_at=2.2)


def test_a_request_counts_when_it_keeps_every_objective() -> None:
    wanted = Objectives(ttft_ms=500, tpot_ms=150)
    found = goodput([QUICK, SLOW_START, SLOW_TOKENS], 4, 10.0, wanted)
    assert found is not None
    assert (found.met, found.share, found.requests_per_s) == (1, 0.25, 0.1)
    assert (found.ttft_ms, found.tpot_ms) == (500, 150)


def test_an_objective_that_is_not_given_asks_nothing() -> None:
    every = [QUICK, SLOW_START, SLOW_TOKENS]
    by_ttft = goodput(every, 3, 1.0, Objectives(ttft_ms=500))
    by_tpot = goodput(every, 3, 1.0, Objectives(tpot_ms=150))
    assert by_ttft is not None and by_ttft.met == 2
    assert by_tpot is not None and by_tpot.met == 2
    assert goodput(every, 3, 1.0, Objectives()) is None


def test_what_was_planned_and_not_answered_was_missed() -> None:
    found = goodput([QUICK], 10, 1.0, Objectives(ttft_ms=500))
    assert found is not None and found.share == 0.1


def test_an_answer_of_one_token_keeps_tpot() -> None:
    assert Objectives(tpot_ms=0.001).are_met(sample(completion_tokens=1))


@pytest.mark.parametrize("name", ["ttft", "tpot"])
def test_an_objective_of_nothing_is_refused_by_its_flag(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--slo-{name}-ms"):
        Objectives(**{f"{name}_ms": 0.0})
