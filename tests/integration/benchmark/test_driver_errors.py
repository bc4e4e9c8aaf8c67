"""Whatever a server does wrong is counted by kind, and the run goes on or ends with what it has."""

from __future__ import annotations

import os
import signal

import pytest
from driving import Notes, Talk, hold, segment, turns
from stub_process import running_stub

from kvloop.benchmark.driver.api import ask, open_session
from kvloop.benchmark.driver.bad_answer import BadAnswer
from kvloop.benchmark.driver.body import build_body
from kvloop.benchmark.driver.target import Target
from kvloop.benchmark.sample import Failure, Sample
from kvloop.benchmark.workloads.plan import Conversation, Turn

pytestmark = pytest.mark.integration

TALK = Talk(conversations=[turns(3), turns(3)])


@pytest.mark.parametrize(
    ("flags", "kind", "words"),
    [
        (("--share-429", "1"), "http_429", "made up refusal"),
        (("--share-503", "1"), "http_503", "made up refusal"),
        (("--refuse-field", "ignore_eos"), "http_400", "ignore_eos"),
        (("--truncate-after", "2"), "truncated", "DONE"),
        (("--truncate-after", "0"), "truncated", "DONE"),
        (("--cut-after", "2"), "disconnect", ""),
        (("--error-after", "2"), "stream_error", "made up error"),
        (("--garbage-after", "2"), "bad_event", "oops"),
        (("--not-streamed",), "not_streamed", "application/json"),
        (("--no-usage",), "no_usage", "include_usage"),
        (("--odd-usage",), "bad_usage", "usage.prompt_tokens"),
        (("--no-token-ids",), "no_token_ids", "--text"),
    ],
)
def test_a_failed_request_is_counted_by_kind_and_ends_its_conversation(
    flags: tuple[str, ...], kind: str, words: str
) -> None:
    with running_stub(*flags) as stub:
        driven = hold(stub.url, TALK)
    assert [(one.kind, one.turn) for one in driven.failures] == [(kind, 1)] * 2
    assert words in driven.failures[0].message
    assert not driven.samples and not driven.is_cut_short


def test_an_answer_without_end_is_cut_at_its_most_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvloop.benchmark.driver.api.MAX_ANSWER_BYTES", 3000)
    talk = Talk(conversations=[Conversation(turns=(Turn(output_length=10_000),)), turns(1)])
    with running_stub("--interval-ms", "1") as stub:
        driven = hold(stub.url, talk)
    assert [(one.kind, one.conversation) for one in driven.failures] == [("too_long", 0)]
    assert "3000 bytes" in driven.failures[0].message
    assert [one.conversation for one in driven.samples] == [1]


def test_no_answer_is_asked_for_that_would_have_to_be_decompressed() -> None:
    with running_stub() as stub:
        hold(stub.url, Talk(conversations=[turns(1)]))
        assert "accept-encoding: identity" in stub.seen()["last_head"].lower().split("\r\n")


def test_a_stream_that_stops_is_stalled_and_one_that_goes_on_too_long_is_a_timeout() -> None:
    with running_stub("--stall-after", "2") as stub:
        stalled = hold(stub.url, TALK, stall_timeout_s=0.3)
    with running_stub("--interval-ms", "200") as stub:
        late = hold(stub.url, TALK, timeout_s=0.5, stall_timeout_s=20)
    assert {one.kind for one in stalled.failures} == {"stalled"}
    assert "0.3 s" in stalled.failures[0].message
    assert {one.kind for one in late.failures} == {"timeout"}


def test_silence_is_counted_from_the_last_byte() -> None:
    talk = Talk(conversations=[turns(1)])
    with running_stub("--interval-ms", "400") as stub:
        # four tokens take longer than the longest silence allowed
        driven = hold(stub.url, talk, stall_timeout_s=1.1)
    assert len(driven.samples) == 1


def test_some_refusals_leave_the_other_conversations_alone() -> None:
    talk = Talk(conversations=[turns(2) for _ in range(12)])
    with running_stub("--share-429", "0.2") as stub:
        driven = hold(stub.url, talk)
        asked = len(stub.seen()["requests"])
    assert driven.failures and driven.samples
    assert len(driven.failures) + len(driven.samples) == asked


def test_a_refused_request_is_sent_again_as_often_as_asked_for_and_the_wait_is_queueing() -> None:
    talk = Talk(conversations=[turns(1)])
    with running_stub("--refuse-first", "2", "--retry-after", "0.2") as stub:
        driven = hold(stub.url, talk, retry_429=2)
        assert len(stub.seen()["requests"]) == 3
    (sample,) = driven.samples
    assert sample.queued_s >= 0.39 and sample.sent_at >= 0.39
    assert "2 times the server answered 429" in driven.warnings[0]


async def test_how_long_a_refusal_asks_to_wait_is_read() -> None:
    with running_stub("--share-429", "1", "--retry-after", "7") as stub:
        target = Target(url=stub.url, model="stub")
        async with open_session() as http:
            with pytest.raises(BadAnswer) as caught:
                await ask(http, target, build_body(target, [1], output_length=1))
    assert (caught.value.kind, caught.value.retry_after_s) == ("http_429", 7.0)


def test_a_longer_wait_than_allowed_is_cut_and_retries_end() -> None:
    with running_stub("--share-429", "1", "--retry-after", "3600") as stub:
        driven = hold(stub.url, TALK, retry_429=1, max_retry_after_s=0.1)
        assert len(stub.seen()["requests"]) == 4
    assert {one.kind for one in driven.failures} == {"http_429"}


def test_a_server_that_dies_ends_the_run_early_with_what_was_measured() -> None:
    talk = Talk(conversations=[turns(2) for _ in range(30)])
    with running_stub("--die-after", "9") as stub:
        driven = hold(stub.url, talk, clients=2, give_up_after=3, probe_s=0.5)
    assert driven.is_cut_short and len(driven.samples) >= 7
    assert 3 <= len(driven.failures) <= 6
    assert {one.kind for one in driven.failures} <= {"connect", "disconnect"}
    assert "the server was gone" in driven.warnings[0]
    assert driven.segments[0].ended_at > 0


def test_a_server_that_hangs_ends_the_run_early_too() -> None:
    talk = Talk(conversations=[turns(1) for _ in range(30)])
    with running_stub() as stub:

        class Stopping(Notes):
            def outcome(self, outcome: Sample | Failure) -> None:
                super().outcome(outcome)
                if len([one for one in self.said if one.startswith("Sample")]) == 3:
                    stub.process.send_signal(signal.SIGSTOP)

        driven = hold(
            stub.url,
            talk,
            listener=Stopping(),
            **{"clients": 2, "give_up_after": 2, "probe_s": 0.5, "stall_timeout_s": 0.5},
        )
    assert driven.is_cut_short and driven.samples
    assert {one.kind for one in driven.failures} == {"stalled"} and len(driven.failures) <= 4
    assert "--give-up-after" in driven.warnings[0]


def test_lost_requests_with_answers_between_them_end_nothing() -> None:
    talk = Talk(conversations=[turns(1) for _ in range(8)])
    with running_stub("--cut-after", "2") as stub:
        # every one is lost, but the server answers the probe
        driven = hold(stub.url, talk, clients=1, give_up_after=2, probe_s=5)
    assert not driven.is_cut_short and len(driven.failures) == 8


def test_a_server_that_is_not_there_is_a_connect_error() -> None:
    with running_stub() as stub:
        pass
    driven = hold(stub.url, TALK)
    assert {one.kind for one in driven.failures} == {"connect"}


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_what_was_measured(which: signal.Signals) -> None:
    class Interrupting(Notes):
        def outcome(self, outcome: Sample | Failure) -> None:
            super().outcome(outcome)
            if len(self.said) == 7:
                os.kill(os.getpid(), which)

        def ended(self, result: object) -> None:
            super().ended(result)
            self.second = signal.getsignal(which)

    before, notes = signal.getsignal(which), Interrupting()
    talk = Talk(conversations=[turns(100)])
    with running_stub("--interval-ms", "5") as stub:
        driven = hold(
            stub.url, talk, segments=[segment(talk), segment(talk, "all_miss")], listener=notes
        )
    assert driven.is_cut_short and 2 < len(driven.samples) < 10
    assert which.name in driven.warnings[0] and "count as not sent" in driven.warnings[1]
    assert [one.arm for one in driven.segments] == ["on"] and notes.said[-1] == "ended on"
    assert signal.getsignal(which) == before
    # a second one does what it did before; SIGINT's is the loop's runner's own
    assert which == signal.SIGINT or notes.second == before


def test_a_second_signal_while_the_first_one_is_obeyed_interrupts() -> None:
    class Impatient(Notes):
        def outcome(self, outcome: Sample | Failure) -> None:
            super().outcome(outcome)
            if len(self.said) == 3:
                os.kill(os.getpid(), signal.SIGINT)

        def ended(self, result: object) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    with running_stub("--interval-ms", "5") as stub, pytest.raises(KeyboardInterrupt):
        hold(stub.url, Talk(conversations=[turns(100)]), listener=Impatient())


def test_a_request_under_way_when_a_run_is_cut_short_is_broken_off() -> None:
    class Interrupting(Notes):
        def sent(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    with running_stub("--stall-after", "1") as stub:
        driven = hold(stub.url, Talk(conversations=[turns(2)]), listener=Interrupting())
    assert driven.is_cut_short and not driven.samples and not driven.failures
