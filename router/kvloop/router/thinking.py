"""What the next turn's prompt leaves out of an answer: asked of the model's own chat template.

A small chat is rendered twice, before its answer and as history with that answer in it. Where the
second leaves the first, and what was generated, everything that was computed is of no more use.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvloop.router.tokenizer import ChatTokenizer, Message, TokenizerThreads
from kvloop.shared_cache.wire import StripRule

log = logging.getLogger(__name__)

MARKERS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
"""What models write around their thinking; the first pair that a template leaves out counts."""

_MAX_KINDS = 64
"""Sets of template variables whose rules are remembered."""
_MAX_CHARS = 200
"""Of a variable that the template is asked with; longer ones are content, as lists are."""
_QUESTION, _NEXT_QUESTION = "Which of the two is it", "And why"
_THOUGHT, _SAID = "Perhaps the first one", "It is the second"


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateRule:
    """What holds for every chat of one template and one set of its variables."""

    prompt_end: tuple[int, ...] = ()
    """Last tokens of each prompt that the next one does not repeat, nor what follows them."""
    opens: tuple[int, ...] = ()
    closes: tuple[int, ...] = ()

    def of(self, prompt: Sequence[int]) -> StripRule | None:
        """The rule for one prompt's answer; None: the next turn repeats all of it."""
        count = len(self.prompt_end)
        if count and tuple(prompt[-count:]) == self.prompt_end:
            return StripRule(kept_prompt=len(prompt) - count)
        return StripRule(opens=self.opens, closes=self.closes) if self.opens else None


class StripRules:
    """Rules of one tokenizer's template, each asked for once. For one event loop."""

    def __init__(self, threads: TokenizerThreads) -> None:
        self._threads = threads
        self._known: OrderedDict[bytes, TemplateRule] = OrderedDict()

    async def rule(
        self,
        tokenizer: ChatTokenizer,
        prompt: Sequence[int],
        variables: Mapping[str, Any],
        *,
        skip_special_tokens: bool,
    ) -> StripRule | None:
        """For a chat that was rendered with `variables` to `prompt`; None too where it is unclear.

        A rule is for a user's next turn. With tools there is none: templates keep the thinking
        while tool results come in.
        Never raises: a rule saves work, and a chat is answered without it.
        """
        if variables.get("tools"):
            return None
        try:
            found = await self._of(tokenizer, _switches(variables), skip_special_tokens)
        except Exception:  # templates and tokenizers fail in ways of their own
            log.exception("no rule for what the chat template strips; all is stored")
            return None
        return found.of(prompt)

    async def _of(
        self, tokenizer: ChatTokenizer, variables: Mapping[str, Any], skip: bool
    ) -> TemplateRule:
        kind = hashlib.sha256(json.dumps([variables, skip], sort_keys=True).encode()).digest()
        if kind not in self._known:
            self._known[kind] = await self._threads.call(template_rule, tokenizer, variables, skip)
        self._known.move_to_end(kind)
        while len(self._known) > _MAX_KINDS:
            self._known.popitem(last=False)
        return self._known[kind]


def template_rule(
    tokenizer: ChatTokenizer, variables: Mapping[str, Any], skip_special_tokens: bool
) -> TemplateRule:
    """Ask the template; one that cannot be asked has no rule, and is not asked again."""
    try:
        return _answered(tokenizer, _Probe(tokenizer, variables, skip_special_tokens))
    except Exception as error:  # templates raise on chats they do not know, in their own ways
        log.warning("the chat template does not say what it strips; all is stored: %s", error)
        return TemplateRule()


def _answered(tokenizer: ChatTokenizer, probe: _Probe) -> TemplateRule:
    repeated = probe.repeated_prompt()
    if repeated < len(probe.prompt):
        return TemplateRule(prompt_end=probe.prompt_end(repeated))
    if probe.opened():
        return TemplateRule()  # and history has the block as it was
    for opening, closing in MARKERS:
        if probe.strips(opening, closing):
            return TemplateRule(
                opens=_ids_inside(tokenizer, "", opening, f"\n{_THOUGHT}"),
                closes=probe.closes(opening, closing),
            )
    return TemplateRule()


class _Probe:
    """One question to the template; `prompt` is its text, ready for an answer."""

    def __init__(self, tokenizer: ChatTokenizer, variables: Mapping[str, Any], skip: bool) -> None:
        self._tokenizer, self._variables, self._skip = tokenizer, variables, skip
        self.prompt = tokenizer.render([_user(_QUESTION)], variables)

    def repeated_prompt(self) -> int:
        """Characters of the prompt that the next one repeats, whatever was answered."""
        answers = [_SAID]
        for _, closing in self.opened():
            answers += _forms("", closing)
        return max(self._repeated(answer) for answer in answers)

    def prompt_end(self, repeated: int) -> tuple[int, ...]:
        """Tokens of the prompt from that character on; none where it rewrites the question too."""
        if repeated < self._question_end():
            return ()
        ids = self._tokenizer.encode(self.prompt, add_special_tokens=False)
        kept = self.prompt[:repeated]
        count = len(ids)
        while not kept.startswith(self._tokenizer.decode(ids[:count], skip_special_tokens=False)):
            count -= 1
        return tuple(ids[count:])

    def strips(self, opening: str, closing: str) -> bool:
        """Whether a thought before the answer is not repeated, in whichever form it is written."""
        return all(
            self._repeated(answer) < len(self.prompt) + answer.index(_THOUGHT) + len(_THOUGHT)
            for answer in _forms(opening, closing)
        )

    def closes(self, opening: str, closing: str) -> tuple[int, ...]:
        """Ids that close it, where the next prompt repeats a block that was left open."""
        unclosed = (f"{opening}{blank}{_THOUGHT}" for blank in ("\n", ""))
        if not any(self._next(answer).startswith(self.prompt + answer) for answer in unclosed):
            return ()
        return _ids_inside(self._tokenizer, f"{_THOUGHT}\n", closing, f"\n\n{_SAID}")

    def opened(self) -> list[tuple[str, str]]:
        """Blocks that the prompt itself leaves open."""
        end = self.prompt[self._question_end() :]
        return [pair for pair in MARKERS if end.rfind(pair[0]) > end.rfind(pair[1])]

    def _question_end(self) -> int:
        return self.prompt.rindex(_QUESTION) + len(_QUESTION)

    def _repeated(self, answer: str) -> int:
        return _num_common(self.prompt + answer, self._next(answer))

    def _next(self, answer: str) -> str:
        said: Message = {"role": "assistant", "content": self._shown(answer)}
        chat = [_user(_QUESTION), said, _user(_NEXT_QUESTION)]
        return self._tokenizer.render(chat, self._variables)

    def _shown(self, answer: str) -> str:
        """The answer as a client gets it, and sends it back."""
        ids = self._tokenizer.encode(answer, add_special_tokens=False)
        return self._tokenizer.decode(ids, skip_special_tokens=self._skip)


def _forms(opening: str, closing: str) -> list[str]:
    """A thought and a reply as models and templates write them."""
    blanks = (("\n", "\n", "\n\n"), ("\n", "\n", "\n"), ("", "", "\n"), ("", "", ""))
    return [f"{opening}{a}{_THOUGHT}{b}{closing}{c}{_SAID}" for a, b, c in blanks]


def _switches(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the variables that tell the template how to write: not a request's documents."""
    return {
        name: value
        for name, value in variables.items()
        if value is None or (isinstance(value, str | int | float) and len(str(value)) <= _MAX_CHARS)
    }


def _num_common(one: str, other: str) -> int:
    differing = (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _ids_inside(tokenizer: ChatTokenizer, before: str, marker: str, after: str) -> tuple[int, ...]:
    """Ids of the marker as it is written between these texts, less those it shares with them."""
    ids = tokenizer.encode(before + marker + after, add_special_tokens=False)
    ends = [len(tokenizer.decode(ids[:n], skip_special_tokens=False)) for n in range(len(ids) + 1)]
    start, end = len(before), len(before) + len(marker)
    inside = [n for n in range(len(ids)) if start <= ends[n] and ends[n + 1] <= end]
    return tuple(ids[n] for n in inside)
