"""The promise that ends a quarantine: quiet means that nothing writes, now or later."""

import threading

from kvloop.prefill.attempt import Attempt, Attempts
from kvloop.shared_cache.wire import KVTarget, PrefillRequest, Sampling


def request(attempt: str = "a") -> PrefillRequest:
    target = KVTarget(session="s", base=0, layer_stride=0, kv_stride=0, page_bytes=1, pages=[0])
    return PrefillRequest(
        request_id="r",
        attempt=attempt,
        prompt=[1],
        sampling=Sampling(max_tokens=1),
        namespace="n",
        target=target,
    )


def test_an_attempt_is_not_quiet_while_a_write_is_under_way() -> None:
    attempt = Attempt(request())
    with attempt.writing() as allowed:
        assert allowed
        assert not attempt.cancel(0)
    assert attempt.cancel(0)


def test_no_write_starts_after_a_cancel() -> None:
    attempt = Attempt(request())
    assert attempt.cancel(0)
    with attempt.writing() as allowed:
        assert not allowed


def test_a_cancel_waits_for_the_write_to_end() -> None:
    attempt = Attempt(request())
    inside, leave = threading.Event(), threading.Event()

    def write() -> None:
        with attempt.writing():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=write)
    thread.start()
    inside.wait(10)
    threading.Timer(0.05, leave.set).start()
    assert attempt.cancel(10)
    thread.join()


def test_a_write_that_timed_out_never_becomes_quiet() -> None:
    attempt = Attempt(request())
    attempt.taint()
    assert not attempt.cancel(0)


def test_an_attempt_cancelled_before_it_came_is_refused_when_it_comes() -> None:
    attempts = Attempts()
    assert attempts.cancel("late", 0)
    assert attempts.add(request("late")) is None


def test_an_unknown_attempt_is_quiet() -> None:
    assert Attempts().cancel("never", 0)


def test_a_removed_attempt_that_was_tainted_is_remembered_as_not_quiet() -> None:
    attempts = Attempts()
    attempt = attempts.add(request("t"))
    assert attempt is not None
    attempt.taint()
    attempts.remove(attempt)
    assert not attempts.cancel("t", 0)
