from array import array
from typing import Any

from kvloop.router.history import History, Known, chat_digests, next_digest

HI: Any = {"role": "user", "content": "Hi"}
SAID: Any = {"role": "assistant", "content": "Hello"}
ENTRY = 130
"""What `known` takes, as ids."""


def known(*ids: int, parent: int = 0) -> Known:
    return Known(
        ids=array("I", ids or (1, 2)),
        num_prompt=1,
        prompt_chars=5,
        prompt_digest=b"",
        num_messages=2,
        parent=parent,
        drifted=False,
    )


def full_of(*names: bytes) -> History:
    """One without room for another entry."""
    history = History(len(names) * ENTRY)
    for name in names:
        history.put(name, known())
    return history


def test_an_entry_parts_the_prompt_from_the_answer() -> None:
    assert list(known(1, 2, 3).answer) == [2, 3]


def test_what_was_put_is_found_under_its_digest_only() -> None:
    history = History(1000)
    history.put(b"a", known())
    assert history.get(b"a") == known() and history.get(b"b") is None


def test_the_least_recently_used_go_first_when_it_is_full() -> None:
    history = full_of(b"a", b"b")
    assert history.get(b"a") is not None
    history.put(b"c", known())
    assert history.peek(b"b") is None and history.peek(b"a") is not None


def test_a_peek_is_no_use() -> None:
    history = full_of(b"a", b"b")
    assert history.peek(b"a") is not None
    history.put(b"c", known())
    assert history.peek(b"a") is None and history.peek(b"b") is not None


def test_what_a_longer_chat_repeats_goes_before_what_nothing_repeats() -> None:
    history = History(3 * ENTRY)
    history.put(b"other", known())
    history.put(b"first turn", known())
    history.put(b"second turn", known(), parent=b"first turn")
    history.put(b"new", known())
    assert history.peek(b"first turn") is None
    assert history.peek(b"other") is not None and history.peek(b"second turn") is not None


def test_many_answers_of_no_length_are_bounded_too() -> None:
    history = History(1000)
    for number in range(100):
        history.put(bytes([number]), known())
    assert len(history) == 1000 // ENTRY


def test_an_answer_larger_than_all_the_room_is_not_kept() -> None:
    history = History(ENTRY)
    history.put(b"a", known(1, 2, 3))
    assert history.get(b"a") is None and len(history) == 0


def test_putting_again_replaces_without_growing() -> None:
    history = History(ENTRY)
    for _ in range(5):
        history.put(b"a", known())
    assert history.get(b"a") is not None
    assert history.clear() == 1 and history.get(b"a") is None


def test_digests_part_seeds_texts_roles_and_names() -> None:
    named = {**HI, "name": "Ann"}
    chats: list[Any] = [[HI], [named], [SAID], [{**HI, "content": "Ho"}], [HI, HI]]
    found = {chat_digests(seed, chat)[-1] for chat in chats for seed in (None, b"s", b"t")}
    assert len(found) == len(chats) * 3


def test_fields_do_not_run_into_each_other() -> None:
    ab = chat_digests(None, [{"role": "user", "content": "ab", "name": "c"}])
    assert ab != chat_digests(None, [{"role": "user", "content": "bc", "name": "a"}])


def test_a_digest_goes_on_where_the_chat_does() -> None:
    digests = chat_digests(b"s", [HI, SAID, HI])
    assert digests[:2] == chat_digests(b"s", [HI, SAID])
    assert next_digest(digests[0], SAID) == digests[1]


def test_blanks_around_an_answer_do_not_count_and_around_a_question_do() -> None:
    def digest(message: Any) -> bytes:
        return chat_digests(None, [message])[0]

    assert digest({**SAID, "content": " Hello\n"}) == digest(SAID)
    assert digest({**HI, "content": "Hi "}) != digest(HI)
