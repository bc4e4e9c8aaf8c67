"""From messages or text to the ids of a prompt."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kvloop.router.history import Known, text_digest
from kvloop.router.history_replay import Place, Trail, continued, replay
from kvloop.router.prompt_list import Prompt, check_ids
from kvloop.router.tokenizer import ChatTokenizer, Message

Drift = Literal["none", "repaired", "unrepaired"]
NO_TRAIL = Trail()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatPrompt:
    """A prompt, and what the next turn needs to repeat it."""

    ids: list[int]
    drift: Drift
    """Whether generated ids differ from the text tokenized anew, and were used all the same."""
    chars: int
    """Of its text."""
    digest: bytes
    """Of its text."""
    parent: int = 0
    """Messages of the remembered beginning that it repeats; 0: none."""
    drifted: bool = False
    """Whether its ids differ from its text tokenized anew."""
    found: Known | None = None
    """The remembered answer that it goes on from."""

    def answered(self, answer: Sequence[int], num_messages: int) -> Known:
        """What to remember of the chat once it is answered; the messages count the answer."""
        return Known(
            ids=array("I", [*self.ids, *answer]),
            num_prompt=len(self.ids),
            prompt_chars=self.chars,
            prompt_digest=self.digest,
            num_messages=num_messages,
            parent=self.parent,
            drifted=self.drifted,
        )


def chat_prompt(
    tokenizer: ChatTokenizer,
    messages: Sequence[Message],
    variables: Mapping[str, Any],
    trail: Trail = NO_TRAIL,
    *,
    use_history: bool = True,
) -> ChatPrompt:
    """Ids of a chat, repeating those of earlier answers as far as they spell its very text.

    Without `use_history` they are only compared, to say whether there is drift.
    """
    text = tokenizer.render(messages, variables)
    chars, digest = len(text), text_digest(text)
    place = replay(tokenizer, text, messages, trail)
    ids = None
    if place is not None and use_history:
        ids = continued(tokenizer, place.ids, text[place.chars :])
    if place is None or ids is None:
        plain = tokenizer.encode(text, add_special_tokens=False)
        return ChatPrompt(ids=plain, drift=_unused(place), chars=chars, digest=digest)
    return ChatPrompt(
        ids=ids,
        drift=_used(place),
        chars=chars,
        digest=digest,
        parent=place.num_messages,
        drifted=place.drifted,
        found=place.last,
    )


def _used(place: Place) -> Drift:
    if not place.is_whole:
        return "unrepaired"
    return "repaired" if place.drifted else "none"


def _unused(place: Place | None) -> Drift:
    differs = place is not None and (place.drifted or not place.is_whole)
    return "unrepaired" if differs else "none"


def text_prompts(
    tokenizer: ChatTokenizer, prompts: Sequence[Prompt], param: str
) -> list[list[int]]:
    """Ids of prompts given as text or ids; raises BadRequest for ids the model does not have."""
    tokenized = []
    for prompt in prompts:
        if isinstance(prompt, str):
            ids = tokenizer.encode(prompt, add_special_tokens=True)
        else:
            check_ids(prompt, tokenizer.vocab_size, param)
            ids = prompt
        tokenized.append(ids)
    return tokenized
