"""Arms, salts and what the warm-up finds out, against a stub server with a prefix cache."""

from __future__ import annotations

import pytest
from driving import Talk, hold, segment, turns
from stub_process import running_stub

from kvloop.benchmark.driver.bad_answer import BadAnswer
from kvloop.benchmark.workloads.plan import Branch, Conversation, Message, Said
from kvloop.shared_cache.errors import ConfigError

pytestmark = pytest.mark.integration

TALK = Talk(conversations=[turns(3)])
TEXT = Talk(conversations=[turns(2)], content="text")


def test_each_arm_asks_for_what_it_is() -> None:
    segments = [segment(TALK, arm) for arm in ("on", "bypassed", "l3_only", "all_miss")]
    with running_stub("--kvloop") as stub:
        driven = hold(stub.url, TALK, segments=segments, warmup=1)
        bodies = stub.seen()["requests"][1:]
    modes = [(body["cache_salt"], body.get("kvloop")) for body in bodies[::3]]
    assert modes == [
        ("salt-on", None),
        ("salt-bypassed", {"cache": "off"}),
        ("salt-l3_only", {"cache": "l3_only"}),
        ("salt-all_miss", None),
    ]
    assert driven.server_name == "kvloop"
    hits: dict[str, list[int | None]] = {}
    for one in driven.samples:
        hits.setdefault(one.arm, []).append(one.cached_tokens)
    assert hits == {
        "on": [0, 16, 32],
        "bypassed": [0, 0, 0],
        "l3_only": [0, 16, 32],
        "all_miss": [0, 0, 0],
    }
    sources = [one.sources for one in driven.samples if one.arm == "l3_only"]
    assert sources[2] is not None and sources[2].storage == 32


def test_a_prompt_that_must_miss_stays_as_long_and_nothing_of_it_is_reusable() -> None:
    with running_stub() as stub:
        driven = hold(stub.url, TALK, segments=[segment(TALK, "all_miss")])
        seen = [body["prompt"] for body in stub.seen()["requests"]]
    assert [len(prompt) for prompt in seen] == [20, 44, 68]
    assert seen[1][12:20] == seen[2][12:20] == list(TALK.say(0, 1).ids[12:])
    assert len({tuple(prompt[:4]) for prompt in seen}) == 3
    assert {token for prompt in seen for token in prompt[:4]} <= set(TALK.say(-1, 1).ids)
    assert [one.reusable_tokens for one in driven.samples] == [0, 0, 0]


def test_in_text_the_first_message_begins_with_a_word_of_its_own() -> None:
    system = Said(
        messages=(Message(role="system", content="be"), Message(role="user", content="a"))
    )
    talk = Talk(conversations=[turns(2)], content="text", said={(0, 1): system})
    with running_stub() as stub:
        hold(stub.url, talk, segments=[segment(talk, "all_miss")])
        first, second = (body["messages"][0] for body in stub.seen()["requests"])
    assert first["role"] == "system" and first["content"].endswith(" be")
    assert first["content"].split()[0] != second["content"].split()[0]


def test_rounds_of_an_arm_that_must_miss_do_not_repeat_each_other() -> None:
    segments = [segment(TALK, "all_miss", round=number) for number in (0, 1)]
    with running_stub() as stub:
        driven = hold(stub.url, TALK, segments=segments)
    assert [one.cached_tokens for one in driven.samples] == [0] * 6


@pytest.mark.parametrize("talk", [TALK, TEXT], ids=["token-ids", "text"])
def test_salting_the_prompt_keeps_arms_apart_without_the_field(talk: Talk) -> None:
    segments = [segment(talk, salt=salt) for salt in ("a", "b", "a")]
    with running_stub("--refuse-field", "cache_salt") as stub:
        driven = hold(stub.url, talk, segments=segments, target={"salting": "prompt"})
        heads = [str(one.get("prompt", one.get("messages"))[0]) for one in stub.seen()["requests"]]
    turns_each = len(heads) // 3
    assert heads[0] == heads[1] == heads[2 * turns_each] != heads[turns_each]
    if talk is TALK:
        assert [one.cached_tokens for one in driven.samples] == [0, 16, 32, 0, 16, 32, 16, 32, 64]


def test_an_arm_that_only_kvloop_has_is_refused_elsewhere_and_says_what_is_right() -> None:
    segments = [segment(TALK), segment(TALK, "bypassed")]
    with running_stub() as stub:
        with pytest.raises(ConfigError, match=r"--arms bypassed.* use --arms on,all_miss"):
            hold(stub.url, TALK, segments=segments)
        # asked once, without a warm-up that was asked for: to find out
        assert len(stub.seen()["requests"]) == 1


def test_an_arms_own_fields_make_it_of_any_server() -> None:
    target = {"arm_bodies": {"bypassed": {"no_cache": True}}}
    with running_stub() as stub:
        driven = hold(stub.url, TALK, segments=[segment(TALK, "bypassed")], target=target)
        assert all(body["no_cache"] for body in stub.seen()["requests"])
    assert driven.server_name == "other" and len(driven.samples) == 3


def test_warm_up_requests_are_sent_in_words_of_their_own_and_not_counted() -> None:
    with running_stub() as stub:
        driven = hold(stub.url, TALK, warmup=2)
        seen = [body["prompt"] for body in stub.seen()["requests"]]
    assert len(seen) == 5 and len(driven.samples) == 3
    assert seen[:2] == [list(TALK.say(-1, 1).ids), list(TALK.say(-2, 1).ids)]


def test_warm_up_requests_have_the_first_segments_head_where_that_is_its_salt() -> None:
    with running_stub() as stub:
        hold(stub.url, TALK, warmup=1, target={"salting": "prompt"})
        first, second = (body["prompt"] for body in stub.seen()["requests"][:2])
    assert first[:4] == second[:4] != list(TALK.say(-1, 1).ids[:4])
    assert first[12:] == list(TALK.say(-1, 1).ids[12:])


def test_without_warm_up_answers_tell_that_the_server_is_kvloop() -> None:
    with running_stub("--kvloop") as ours, running_stub() as other:
        names = [hold(one.url, TALK).server_name for one in (ours, other)]
    assert names == ["kvloop", "other"]


def test_a_load_whose_branches_need_an_answers_ids_fails_the_warm_up_without_them() -> None:
    branch = Conversation(turns=turns(1).turns, branch=Branch(parent=0, turns=1))
    talk = Talk(conversations=[turns(1), branch])
    with running_stub("--no-token-ids") as stub, pytest.raises(BadAnswer, match="use --text"):
        hold(stub.url, talk, warmup=1)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--refuse-field", "cache_salt"), "--drop-field cache_salt --salting prompt"),
        (("--refuse-field", "return_token_ids"), "--drop-field return_token_ids, --extra-body"),
        (("--refuse-field", "ignore_eos"), "--drop-field ignore_eos"),
        (("--refuse-field", "stream_options"), "--drop-field stream_options"),
        (("--no-usage",), "include_usage.*--extra-body"),
        (("--no-token-ids",), "use --text"),
        (("--not-streamed",), "no event stream"),
    ],
)
def test_a_warm_up_that_fails_stops_the_benchmark_and_says_what_to_do(
    flags: tuple[str, ...], words: str
) -> None:
    with running_stub(*flags) as stub, pytest.raises(BadAnswer, match=words):
        hold(stub.url, TALK, warmup=1)
