"""What clients say."""

from itertools import islice

import pytest

from kvloop.benchmark.workload import Workload
from kvloop.shared_cache.errors import ConfigError


def test_equal_seeds_give_equal_ids_and_other_seeds_others() -> None:
    assert Workload(seed=1).new_ids(2, 3) == Workload(seed=1).new_ids(2, 3)
    assert Workload(seed=1).new_ids(2, 3) != Workload(seed=2).new_ids(2, 3)


def test_no_two_turns_or_clients_say_the_same() -> None:
    load = Workload(request_length=8)
    said = {tuple(load.new_ids(client, turn)) for client in range(-1, 4) for turn in range(1, 6)}
    assert len(said) == 25


def test_ids_stay_in_their_range_and_have_the_length_asked_for() -> None:
    ids = Workload(request_length=500, id_low=7, id_high=9).new_ids(0, 1)
    assert len(ids) == 500 and set(ids) == {7, 8}


def test_text_has_one_word_for_each_token_asked_for() -> None:
    assert len(Workload(request_length=40).new_text(0, 1).split()) == 40


def test_gaps_are_nothing_without_a_rate_and_its_inverse_in_the_mean_with_one() -> None:
    assert list(islice(Workload().gaps_s(), 3)) == [0.0, 0.0, 0.0]
    gaps = list(islice(Workload(rate=4.0).gaps_s(), 4000))
    assert sum(gaps) / 4000 == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize(
    ("field", "value", "flag"),
    [
        ("clients", 0, "--clients"),
        ("request_length", -1, "--request-length"),
        ("rate", 0.0, "--rate"),
        ("max_in_flight", 0, "--max-in-flight"),
        ("warmup", -1, "--warmup"),
        ("id_high", 1000, "--id-range"),
    ],
)
def test_a_wrong_value_names_its_flag(field: str, value: float, flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        Workload(**{field: value})  # type: ignore[arg-type]
