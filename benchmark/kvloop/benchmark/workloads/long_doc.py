"""Questions about long documents: each prompt begins with a document that others begin with too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from kvloop.benchmark.workloads.amounts import (
    Amount,
    Seconds,
    check_amount,
    check_number,
    check_seconds,
    draw_amount,
    draw_seconds,
)
from kvloop.benchmark.workloads.plan import Turn
from kvloop.benchmark.workloads.script import Line, Part, Script
from kvloop.benchmark.workloads.scripted import Scripted
from kvloop.shared_cache.errors import ConfigError

Asked = Literal["together", "apart"]
"""All questions about a document in one conversation, or each in one of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LongDocument(Scripted):
    """Documents with several questions each; fields are the command's flags."""

    kind: ClassVar[str] = "long-doc"
    lengths: ClassVar[str] = "--document-length or --questions"
    documents: int = 4
    document_length: Amount = 2000
    """Tokens of a document."""
    questions: int = 4
    """About each document."""
    question_length: Amount = 30
    output_length: Amount = 64
    """Tokens of each answer."""
    asked: Asked = "together"
    think_s: Seconds = 0.0
    """Between an answer and the next question of its conversation."""

    def check(self) -> None:
        check_number("--documents", self.documents)
        check_amount("--document-length", self.document_length)
        check_number("--questions", self.questions)
        check_amount("--question-length", self.question_length)
        check_amount("--output-length", self.output_length)
        check_seconds("--think-s", self.think_s)
        if self.asked == "apart" and self.think_s:
            raise ConfigError(
                "--think-s is the time between the questions of a conversation; with --apart "
                "each has only one: leave one of the two out"
            )

    def write(self) -> tuple[Script, ...]:
        documents, questions = range(self.documents), range(1, self.questions + 1)
        if self.asked == "together":
            return tuple(
                Script(lines=tuple(self._line(document, question) for question in questions))
                for document in documents
            )
        # a question about each document before the next about any: its KV has been kept meanwhile
        return tuple(
            Script(lines=(self._line(document, question),))
            for question in questions
            for document in documents
        )

    def _line(self, document: int, question: int) -> Line:
        parts = [self._part("question", self.question_length, document, question)]
        if question == 1 or self.asked == "apart":
            parts.insert(0, self._part("document", self.document_length, document))
        return Line(
            parts=tuple(parts),
            turn=Turn(
                output_length=draw_amount(
                    self.output_length, self.draw("output", document, question)
                ),
                think_s=self._think_s(document, question),
            ),
        )

    def _part(self, what: str, length: Amount, *numbers: int) -> Part:
        key = "/".join([what, *map(str, numbers)])
        return Part(key=key, length=draw_amount(length, self.draw("length", key)))

    def _think_s(self, document: int, question: int) -> float:
        if question == 1:
            return 0.0  # nothing was answered yet
        return draw_seconds(self.think_s, self.draw("think", document, question))
