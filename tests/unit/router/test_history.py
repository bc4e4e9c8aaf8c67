from typing import Any

from kvloop.router.history import History

HI: Any = {"role": "user", "content": "Hi"}
SAID: Any = {"role": "assistant", "content": "Hello"}


def test_the_longest_known_beginning_is_found() -> None:
    history = History(100)
    history.remember(None, [HI, SAID], [1, 2], [3])
    history.remember(None, [HI, SAID, HI, SAID], [1, 2, 3, 4], [5, 6])
    known = history.find(None, [HI, SAID, HI, SAID, HI])
    assert known is not None and list(known.ids) == [1, 2, 3, 4, 5, 6] and known.num_prompt == 4
    shorter = history.find(None, [HI, SAID, HI])
    assert shorter is not None and list(shorter.ids) == [1, 2, 3]


def test_seeds_and_texts_are_kept_apart() -> None:
    history = History(100)
    history.remember(b"s", [HI, SAID], [1], [2])
    assert history.find(None, [HI, SAID, HI]) is None
    assert history.find(b"s", [HI, {**SAID, "content": "Hello!"}, HI]) is None
    assert history.find(b"s", [HI, SAID, HI]) is not None


def test_fields_do_not_run_into_each_other() -> None:
    history = History(100)
    history.remember(None, [{"role": "user", "content": "ab", "name": "c"}, SAID], [1], [2])
    assert history.find(None, [{"role": "user", "content": "bc", "name": "a"}, SAID, HI]) is None


def test_the_least_recently_used_go_first_when_it_is_full() -> None:
    history = History(5)
    other: Any = {"role": "user", "content": "other"}
    history.remember(None, [HI, SAID], [1], [2])
    history.remember(None, [other, SAID], [1], [2])
    assert history.find(None, [HI, SAID, HI]) is not None
    history.remember(None, [other, other, SAID], [1], [2])
    assert history.find(None, [other, SAID, HI]) is None
    assert history.find(None, [HI, SAID, HI]) is not None


def test_an_answer_larger_than_all_the_room_is_not_kept() -> None:
    history = History(3)
    history.remember(None, [HI, SAID], [1, 2], [3, 4])
    assert history.find(None, [HI, SAID, HI]) is None


def test_remembering_again_replaces_without_growing() -> None:
    history = History(4)
    for _ in range(5):
        history.remember(None, [HI, SAID], [1, 2], [3, 4])
    assert history.find(None, [HI, SAID, HI]) is not None
    assert history.clear() == 1
