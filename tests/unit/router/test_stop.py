from hypothesis import given
from hypothesis import strategies as st

from kvloop.router.stop import StopMatcher

LETTERS = st.text("ab", max_size=24)
STOPS = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)


def shown(stops: list[str], chunks: list[str]) -> tuple[str, str | None]:
    matcher = StopMatcher(stops)
    text = ""
    for chunk in chunks:
        cut = matcher.push(chunk)
        text += cut.text
        if cut.matched is not None:
            return text, cut.matched
    return text + matcher.flush(), None


def reference(stops: list[str], text: str) -> tuple[str, str | None]:
    """Letter by letter: as soon as the text ends with a stop string, the longest one wins."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(stops=STOPS, chunks=st.lists(LETTERS, max_size=8))
def test_the_cut_is_where_a_stop_string_first_ends_however_the_text_is_chunked(
    stops: list[str], chunks: list[str]
) -> None:
    assert shown(stops, chunks) == reference(stops, "".join(chunks))


def test_text_that_cannot_become_a_stop_string_is_not_held_back() -> None:
    matcher = StopMatcher(["###"])
    assert matcher.push("abc").text == "abc"
    assert matcher.push("#").text == ""
    assert matcher.push("x").text == "#x"
