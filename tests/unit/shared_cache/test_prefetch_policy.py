"""How long a prompt waits for its pages from L3."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from kvloop.shared_cache.prefetch_policy import PrefetchLimits, Rates, Wait, stop_reason

WAIT = Wait(waited_s=0.0, num_wanted=100, num_arrived=0, page_size=16)
BEST_EFFORT = PrefetchLimits(policy="best_effort")


def rates(compute: float | None, fetch: float | None, latency: float | None = 0.0) -> Rates:
    made = Rates()
    made.compute_s_per_token = compute
    made.fetch_s_per_page = fetch
    made.fetch_latency_s = latency
    return made


def test_best_effort_waits_while_pages_come_faster_than_they_could_be_computed() -> None:
    fast = rates(compute=0.001, fetch=0.001)  # 16 ms to compute a page, 1 ms to read it
    assert stop_reason(WAIT, BEST_EFFORT, fast) is None
    late = replace(WAIT, waited_s=0.5, num_arrived=40)  # 0.64 s of computing are in hand
    assert stop_reason(late, BEST_EFFORT, fast) is None


def test_best_effort_does_not_wait_for_pages_that_are_slower_than_computing() -> None:
    assert stop_reason(WAIT, BEST_EFFORT, rates(compute=0.001, fetch=0.02)) == "estimate"


def test_best_effort_gives_up_pages_that_stopped_coming() -> None:
    stalled = replace(WAIT, waited_s=0.11)
    assert stop_reason(stalled, BEST_EFFORT, rates(compute=0.01, fetch=0.001)) == "estimate"


def test_patience_grows_with_the_usual_time_to_the_first_pages() -> None:
    slow_start = rates(compute=0.01, fetch=0.001, latency=0.1)
    assert stop_reason(replace(WAIT, waited_s=0.3), BEST_EFFORT, slow_start) is None
    assert stop_reason(replace(WAIT, waited_s=0.5), BEST_EFFORT, slow_start) == "estimate"


@given(
    st.floats(1e-6, 1e-1),
    st.floats(0, 10),
    st.floats(0, 10),
    st.integers(1, 500),
    st.sampled_from(["best_effort", "timeout"]),
)
def test_nothing_is_waited_for_longer_than_computing_it_would_take(
    compute, fetch, latency, num_wanted, policy
) -> None:
    whole = num_wanted * 16 * compute
    wait = Wait(waited_s=whole * 1.001, num_wanted=num_wanted, num_arrived=0, page_size=16)
    limits = PrefetchLimits(policy=policy)
    assert stop_reason(wait, limits, rates(compute, fetch, latency)) is not None


def test_timeout_stops_at_its_base_and_so_much_for_each_1024_tokens() -> None:
    limits = PrefetchLimits(policy="timeout", timeout_base=0.5, timeout_per_ki_token=0.32)
    slow = rates(compute=1.0, fetch=0.001, latency=10.0)  # 1,600 tokens: 0.5 + 0.5 s
    assert stop_reason(replace(WAIT, waited_s=0.99), limits, slow) is None
    assert stop_reason(replace(WAIT, waited_s=1.01), limits, slow) == "timeout"


def test_wait_complete_waits_however_slow_the_pages_are_up_to_its_cap() -> None:
    limits = PrefetchLimits(policy="wait_complete", cap_s=30)
    slow = rates(compute=0.001, fetch=5.0)
    assert stop_reason(replace(WAIT, waited_s=29.9), limits, slow) is None
    assert stop_reason(replace(WAIT, waited_s=30.1), limits, slow) == "cap"


def test_before_anything_was_measured_patience_is_short() -> None:
    assert stop_reason(WAIT, BEST_EFFORT, Rates()) is None
    assert stop_reason(replace(WAIT, waited_s=0.2), BEST_EFFORT, Rates()) == "estimate"


def test_rates_follow_what_is_measured() -> None:
    measured = Rates()
    measured.computed(10, 1.0)
    measured.computed(10, 2.0)
    assert 0.1 < (measured.compute_s_per_token or 0) < 0.2
    measured.fetched(4, 1.0)
    assert measured.fetch_s_per_page == 0.25
