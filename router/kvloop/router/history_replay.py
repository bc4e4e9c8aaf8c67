"""How far a remembered chat's ids can be used in a new prompt: as far as they spell its very text.

Ids of prompts were tokenized from text or used before by this rule; so only answers are decoded,
each once. Whatever a record claims, the text of the prompt stays what the template rendered.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from kvloop.router.history import Known, text_digest
from kvloop.router.history_record import Segment
from kvloop.router.tokenizer import ChatTokenizer, Message

_CONTEXT = 8
"""Ids decoded before others, for decoders that treat the first ones differently."""
_LONGEST_CHARACTER = 8
"""Ids that one character is made of, at most."""
_LOOK_BACK = 64
"""Ids before an answer among which a special token is looked for."""
_LOOK_AHEAD = 64
"""Characters after an answer that its last ids could have been merged with."""


class Trail(NamedTuple):
    """What is remembered of a chat: an entry of this router's, then segments of shared records."""

    known: Known | None = None
    segments: tuple[Segment, ...] = ()


class Place(NamedTuple):
    """The beginning of a prompt whose ids are known."""

    ids: list[int]
    chars: int
    """Length of the text that they stand for."""
    num_messages: int
    drifted: bool
    """Whether they differ from that text tokenized anew."""
    is_whole: bool
    """False where the last answer's text goes on, but not as its ids say."""
    last: Known
    """The last answer's entry."""


def replay(
    tokenizer: ChatTokenizer, text: str, messages: Sequence[Message], trail: Trail
) -> Place | None:
    """Follow the trail through the rendered chat; None where it leads nowhere."""
    place = None
    if trail.known is not None:
        place = _after(tokenizer, text, messages, trail.known)
        if place is None:
            return None
    for segment in trail.segments:
        known = _rebuilt(tokenizer, text, place, segment)
        following = _after(tokenizer, text, messages, known) if known is not None else None
        if following is None:
            break
        place = following
    return place


def continued(tokenizer: ChatTokenizer, ids: Sequence[int], rest: str) -> list[int] | None:
    """`ids` and those of the text that goes on; None where the tokenizer would change the text."""
    more = tokenizer.encode(rest, add_special_tokens=False)
    if not tokenizer.joins_texts and _spelled(tokenizer, ids, more) != rest:
        return None
    return [*ids, *more]


def _rebuilt(
    tokenizer: ChatTokenizer, text: str, place: Place | None, segment: Segment
) -> Known | None:
    """The entry that the segment was made from; None where it does not fit this chat."""
    start = place.chars if place is not None else 0
    end = segment.prompt_chars
    if not start <= end <= len(text) or max(segment.answer, default=0) >= tokenizer.vocab_size:
        return None
    before = place.ids if place is not None else []
    prompt = continued(tokenizer, before, text[start:end])
    if prompt is None:
        return None
    return Known(
        ids=array("I", prompt) + segment.answer,
        num_prompt=len(prompt),
        prompt_chars=end,
        prompt_digest=text_digest(text[:end]),
        num_messages=segment.num_messages,
        parent=place.num_messages if place is not None else 0,
        drifted=segment.drifted,
    )


def _after(
    tokenizer: ChatTokenizer, text: str, messages: Sequence[Message], known: Known
) -> Place | None:
    """The place after as much of the answer as its ids spell; None where the prompt was another."""
    start = known.prompt_chars
    if text_digest(text[:start]) != known.prompt_digest:
        return None
    prompt, answer = known.ids[: known.num_prompt], known.answer
    content = str(messages[known.num_messages - 1]["content"])
    # No further than the answer: a cut-off stop string may look like the template's next mark.
    said = text[: start + _room(content, text, start)]
    count, num_chars = _num_faithful(tokenizer, prompt, answer, said, start)
    used, end = answer[:count], start + num_chars
    return Place(
        ids=[*prompt, *used],
        chars=end,
        num_messages=known.num_messages,
        drifted=known.drifted or _differs(tokenizer, text, prompt, start, used, end),
        is_whole=num_chars >= _shown(content, text, start),
        last=known,
    )


def _num_faithful(
    tokenizer: ChatTokenizer, prompt: Sequence[int], answer: Sequence[int], text: str, start: int
) -> tuple[int, int]:
    """The most ids of an answer, and their characters, that spell the text from `start` on."""
    whole = _spelled(tokenizer, prompt, answer)
    if whole is None:
        return 0, 0
    if text.startswith(whole, start):
        return len(answer), len(whole)
    common = _common(whole, text[start : start + len(whole)])

    def num_chars(count: int) -> int:
        return len(_spelled(tokenizer, prompt, answer[:count]) or "")

    most = bisect_right(range(1, len(answer) + 1), common, key=num_chars)
    for count in range(most, max(most - _LONGEST_CHARACTER, 0), -1):
        part = _spelled(tokenizer, prompt, answer[:count])
        if part is not None and text.startswith(part, start):
            return count, len(part)
    return 0, 0


def _common(one: str, other: str) -> int:
    """Characters that both begin with; texts that do are compared by halves, at C's speed."""
    return bisect_left(range(1, len(one) + 1), True, key=lambda n: one[:n] != other[:n])


def _spelled(tokenizer: ChatTokenizer, before: Sequence[int], ids: Sequence[int]) -> str | None:
    """The text that `ids` add; None where they change the text before them."""
    context = before[-_CONTEXT:]
    base = tokenizer.decode(context, skip_special_tokens=False)
    whole = tokenizer.decode([*context, *ids], skip_special_tokens=False)
    return whole[len(base) :] if whole.startswith(base) else None


def _room(content: str, text: str, start: int) -> int:
    """Characters that an answer may take; its own number where the template rewrites it."""
    ways = (content, content.rstrip(), content.strip())
    return next((len(way) for way in ways if text.startswith(way, start)), len(content))


def _shown(content: str, text: str, start: int) -> int:
    """Characters that the template shows of an answer; 0 where it rewrites it."""
    ways = (content.rstrip(), content.strip())
    return next((len(way) for way in ways if text.startswith(way, start)), 0)


def _differs(
    tokenizer: ChatTokenizer,
    text: str,
    prompt: Sequence[int],
    start: int,
    used: Sequence[int],
    end: int,
) -> bool:
    """Whether the text of an answer, tokenized anew, has other ids.

    Texts are cut at special tokens before all else, so tokenizing begins at the last one.
    """
    lead = _lead(tokenizer, prompt)
    lead_text = tokenizer.decode(lead, skip_special_tokens=False)
    if not text.endswith(lead_text, 0, start):
        lead, lead_text = [], ""
    anew = tokenizer.encode(
        text[start - len(lead_text) : end + _LOOK_AHEAD], add_special_tokens=False
    )
    return anew[: len(lead) + len(used)] != [*lead, *used]


def _lead(tokenizer: ChatTokenizer, prompt: Sequence[int]) -> list[int]:
    """The prompt's ids from its last special token on; none where that is far."""
    near = list(prompt[-_LOOK_BACK:])
    places = [at for at, token in enumerate(near) if tokenizer.is_special(token)]
    return near[places[-1] :] if places else []
