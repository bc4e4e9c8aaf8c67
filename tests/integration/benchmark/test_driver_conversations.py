"""The driver holds conversations with a stub server in another process."""

from __future__ import annotations

from typing import Any

import pytest
from driving import Notes, Talk, hold, sample_of, segment, turns
from stub_process import RunningStub, running_stub

from kvloop.benchmark.workloads.plan import Branch, Conversation, Message, Said, Turn

pytestmark = pytest.mark.integration

ANSWER = [1000, 1001, 1002, 1003]
"""What the stub answers to all that ask for four tokens."""


def prompts(stub: RunningStub) -> list[list[int]]:
    return [body["prompt"] for body in stub.seen()["requests"]]


def contents(body: dict[str, Any]) -> list[str]:
    return [message["content"] for message in body["messages"]]


def test_each_turn_sends_the_whole_history_and_then_new_tokens() -> None:
    talk = Talk(conversations=[turns(3)])
    with running_stub() as stub:
        driven = hold(stub.url, talk)
        first, second, third = prompts(stub)
    assert second == [*first, *ANSWER, *talk.say(0, 2).ids]
    assert third == [*second, *ANSWER, *talk.say(0, 3).ids]
    assert [one.reusable_tokens for one in driven.samples] == [0, 23, 47]


def test_text_grows_a_chat_by_question_and_answer() -> None:
    talk = Talk(conversations=[turns(2)], content="text")
    with running_stub() as stub:
        driven = hold(stub.url, talk)
        bodies = stub.seen()["requests"]
    assert [one["role"] for one in bodies[1]["messages"]] == ["user", "assistant", "user"]
    assert contents(bodies[1])[1] == " t0 t1 t2 t3"
    assert driven.samples[1].reusable_tokens > 0


def test_a_recorded_answer_goes_into_the_history_in_place_of_the_servers() -> None:
    said = Said(messages=(Message(role="user", content="hello"),), answer="recorded")
    talk = Talk(conversations=[turns(2)], content="text", said={(0, 1): said})
    with running_stub() as stub:
        driven = hold(stub.url, talk)
        bodies = stub.seen()["requests"]
    assert contents(bodies[1])[:2] == ["hello", "recorded"]
    # what was generated is not sent again: only the prompt can be reused
    assert driven.samples[1].reusable_tokens == driven.samples[0].prompt_tokens


def test_a_whole_prompt_takes_no_history_and_what_it_repeats_is_counted() -> None:
    before = tuple(range(2000, 2040))
    said = {
        (0, 1): Said(ids=before, is_whole=True),
        (0, 2): Said(ids=(*before[:30], 1, 2), is_whole=True),
        (0, 3): Said(ids=(*before[:30], 1, 2, *ANSWER), is_whole=True),
    }
    with running_stub() as stub:
        driven = hold(stub.url, Talk(conversations=[turns(3)], said=said))
        assert prompts(stub) == [list(one.ids) for one in said.values()]
    # the last generated token has no KV
    assert [one.reusable_tokens for one in driven.samples] == [0, 30, 35]


def test_a_turn_that_failed_is_a_gap_where_the_next_one_is_whole_by_itself() -> None:
    said = {(0, turn): Said(ids=tuple(range(20 + turn)), is_whole=True) for turn in (1, 2, 3)}
    with running_stub("--refuse-first", "1") as stub:
        driven = hold(stub.url, Talk(conversations=[turns(3)], said=said))
        assert prompts(stub) == [list(one.ids) for one in said.values()]
    assert [(one.kind, one.turn) for one in driven.failures] == [("http_429", 1)]
    assert [(one.turn, one.reusable_tokens) for one in driven.samples] == [(2, 0), (3, 22)]


def test_a_branch_begins_with_its_parents_first_turns_and_answers() -> None:
    branch = Conversation(turns=turns(1).turns, branch=Branch(parent=0, turns=1))
    nested = Conversation(turns=turns(1).turns, branch=Branch(parent=1, turns=2))
    talk = Talk(conversations=[turns(3), branch, nested])
    with running_stub() as stub:
        driven = hold(stub.url, talk)
        seen = prompts(stub)
    head = [*talk.say(0, 1).ids, *ANSWER]
    assert [*head, *talk.say(1, 1).ids] in seen
    assert [*head, *talk.say(1, 1).ids, *ANSWER, *talk.say(2, 1).ids] in seen
    assert sample_of(driven, 1, 2).reusable_tokens == 23
    assert sample_of(driven, 2, 3).reusable_tokens == 47


def test_a_branch_whose_parent_failed_before_it_is_not_sent() -> None:
    branch = Conversation(turns=turns(2).turns, branch=Branch(parent=0, turns=2))
    talk = Talk(conversations=[turns(3), branch])
    with running_stub("--refuse-first", "1") as stub:
        driven = hold(stub.url, talk)
        assert len(prompts(stub)) == 1
    assert [(one.conversation, one.turn) for one in driven.failures] == [(0, 1)]


def test_only_so_many_conversations_are_held_at_once_in_their_order() -> None:
    talk = Talk(conversations=[turns(2) for _ in range(5)])
    with running_stub("--interval-ms", "5") as stub:
        driven = hold(stub.url, talk, clients=2)
        assert stub.seen()["most_streams"] == 2
    assert driven.cost.most_streams == 2
    firsts = [one.conversation for one in driven.samples if one.turn == 1]
    assert set(firsts[:2]) == {0, 1} and len(driven.samples) == 10


def test_no_more_requests_than_asked_for_are_in_flight_and_the_wait_is_queueing() -> None:
    talk = Talk(conversations=[turns(1) for _ in range(4)])
    with running_stub("--first-ms", "30") as stub:
        driven = hold(stub.url, talk, max_in_flight=1)
        assert stub.seen()["most_streams"] == 1
    queued = sorted(one.queued_s for one in driven.samples)
    assert queued[1] >= 0.025 and queued[3] >= 0.075


def test_every_request_carries_the_segments_salt_and_asks_for_its_tokens() -> None:
    talk = Talk(conversations=[Conversation(turns=(Turn(output_length=7),))])
    with running_stub() as stub:
        driven = hold(stub.url, talk, segments=[segment(talk, salt="mine")])
        (body,) = stub.seen()["requests"]
    assert (body["cache_salt"], body["max_tokens"], body["ignore_eos"]) == ("mine", 7, True)
    assert body["return_token_ids"] and body["stream_options"] == {"include_usage": True}
    assert len(driven.samples[0].itl_s) == 6 and driven.samples[0].completion_tokens == 7


def test_a_segment_is_over_before_the_next_begins_and_its_listener_hears_all() -> None:
    talk, notes = Talk(conversations=[turns(1)]), Notes()
    segments = [segment(talk), segment(talk, "all_miss")]
    with running_stub() as stub:
        driven = hold(stub.url, talk, segments=segments, listener=notes, pause_s=0.05)
    each = ["sent", "Sample 0/1"]
    assert notes.said == ["began on", *each, "ended on", "began all_miss", *each, "ended all_miss"]
    first, second = driven.segments
    assert 0 <= first.began_at < first.ended_at
    assert second.began_at >= first.ended_at + 0.045  # timers may be early by their resolution
    assert [one.arm for one in driven.samples] == ["on", "all_miss"]
    assert all(0 <= one.sent_at <= one.ended_at <= driven.duration_s for one in driven.samples)


def test_a_short_answer_is_marked() -> None:
    with running_stub("--short-by", "1") as stub:
        driven = hold(stub.url, Talk(conversations=[turns(1)]))
    assert driven.samples[0].is_short and driven.samples[0].completion_tokens == 3


def test_equal_answers_of_two_arms_have_equal_digests() -> None:
    talk = Talk(conversations=[turns(1), Conversation(turns=(Turn(output_length=5),))])
    with running_stub("--kvloop") as stub:
        segments = [segment(talk), segment(talk, "bypassed")]
        driven = hold(stub.url, talk, segments=segments, warmup=1)
    digests = {(one.arm, one.conversation): one.answer_digest for one in driven.samples}
    assert digests["on", 0] == digests["bypassed", 0] != digests["on", 1]


def test_a_load_that_sends_no_answer_on_needs_no_token_ids() -> None:
    whole = {(0, turn): Said(ids=tuple(range(turn, 30)), is_whole=True) for turn in (1, 2)}
    with running_stub("--no-token-ids") as stub:
        driven = hold(stub.url, Talk(conversations=[turns(2), turns(1)], said=whole), warmup=1)
    assert len(driven.samples) == 3 and not driven.failures


def test_fields_can_be_added_and_left_out() -> None:
    target = {"extra_body": {"top_k": 1, "max_tokens": 3}, "dropped_fields": {"ignore_eos"}}
    with running_stub() as stub:
        hold(stub.url, Talk(conversations=[turns(1)]), target=target)
        (body,) = stub.seen()["requests"]
    assert (body["top_k"], body["max_tokens"]) == (1, 3) and "ignore_eos" not in body
