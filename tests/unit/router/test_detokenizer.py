from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from kvloop.router.detokenizer import Detokenizer

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_tokenizer() -> Tokenizer:
    """One token for each byte: the worst case for characters cut in two."""
    tokenizer = Tokenizer(models.BPE({char: n for n, char in enumerate(ALPHABET)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


TOKENIZER = byte_tokenizer()


def decode(ids: Sequence[int]) -> str:
    text: str = TOKENIZER.decode(list(ids))
    return text


@given(st.lists(st.integers(0, 255), max_size=40))
def test_pieces_of_any_bytes_join_to_the_decoded_whole(ids: list[int]) -> None:
    detokenizer = Detokenizer(decode)
    text = "".join([*map(detokenizer.push, ids), detokenizer.flush()])
    assert text == decode(ids)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_pieces_of_valid_text_hold_whole_characters_only(text: str) -> None:
    detokenizer = Detokenizer(decode)
    parts = [detokenizer.push(token) for token in TOKENIZER.encode(text).ids]
    assert "".join([*parts, detokenizer.flush()]) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in part for part in parts)


def test_a_leading_blank_that_the_decoder_drops_is_dropped_once() -> None:
    words = {0: "▁one", 1: "▁two", 2: "x"}

    def metaspace(ids: Sequence[int]) -> str:
        return "".join(words[i] for i in ids).replace("▁", " ").removeprefix(" ")

    detokenizer = Detokenizer(metaspace)
    assert [detokenizer.push(token) for token in (0, 1, 2, 1)] == ["one", " two", "x", " two"]
