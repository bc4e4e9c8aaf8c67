"""What loads say, drawn by a key."""

from kvloop.benchmark.workloads.words import WORDS, draw_ids, draw_text, new_random


def test_equal_seeds_and_keys_give_equal_words_and_others_others() -> None:
    ids = draw_ids(1, "chat/2/3", 16, (1000, 20000))
    assert ids == draw_ids(1, "chat/2/3", 16, (1000, 20000))
    assert ids != draw_ids(2, "chat/2/3", 16, (1000, 20000))
    assert ids != draw_ids(1, "chat/2/4", 16, (1000, 20000))


def test_words_are_the_same_on_every_machine() -> None:
    assert draw_ids(0, "chat/0/1", 4, (1000, 20000)) == [10551, 11450, 17875, 8839]
    assert draw_text(0, "chat/0/1", 3) == "story lot community"


def test_ids_stay_in_their_range_and_have_the_length_asked_for() -> None:
    ids = draw_ids(0, "chat/0/1", 500, (7, 9))
    assert len(ids) == 500 and set(ids) == {7, 8}


def test_text_has_one_common_word_for_each_token_asked_for() -> None:
    words = draw_text(0, "chat/0/1", 40).split()
    assert len(words) == 40 and set(words) <= set(WORDS)


def test_draws_that_belong_to_different_things_are_different() -> None:
    assert new_random(0, "think", 1).random() != new_random(0, "output", 1).random()
