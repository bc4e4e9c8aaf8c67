"""Files of lines: read one at a time, and what is wrong with some of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kvloop.shared_cache.errors import ConfigError

LONGEST_LINE = 1 << 26
"""Bytes; a file without line ends is not read into memory whole."""
_NUM_NAMED = 5
_LONGEST_REASON = 200


@dataclass(slots=True, kw_only=True)
class Problems:
    """Lines or entries that are left out: how many, and why the first few are."""

    flag: str
    path: Path
    is_strict: bool = False
    num: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, where: str, reason: str) -> None:
        """Leave out `where`, such as "line 3"; raises ConfigError instead if strict."""
        words = f"{where}: {_shortened(reason)}"
        if self.is_strict:
            raise ConfigError(f"{self.flag} {self.path} {words}")
        self.num += 1
        if len(self.first) < _NUM_NAMED:
            self.first.append(words)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence, or none where every line is good."""
        if not self.num:
            return ()
        return (f"{self.path.name}: {self.num} left out: {self.words}",)

    @property
    def words(self) -> str:
        """The first few by line, and how many there are besides."""
        more = self.num - len(self.first)
        return "; ".join(self.first) + (f"; and {more} more" if more else "")


def read_lines(flag: str, path: Path) -> Iterator[tuple[int, bytes]]:
    """Number, from 1, and bytes of each line that is not blank; raises ConfigError."""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise ConfigError(
                        f"{flag} {path} line {number} has {LONGEST_LINE} bytes or more; "
                        "give one request a line"
                    )
                if line.strip():
                    yield number, line
    except OSError as error:
        raise ConfigError(f"{flag} {path}: {error.strerror}") from error


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + "…"
