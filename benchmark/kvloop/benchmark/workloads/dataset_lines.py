"""Chats of a file, one a line, or all in one JSON array."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from kvloop.benchmark.workloads.dataset_forms import BadChat, Chat, is_chat_of_list, parse_chat
from kvloop.benchmark.workloads.lines import LONGEST_LINE, Problems, read_lines
from kvloop.shared_cache.errors import ConfigError

FLAG = "--dataset"
LARGEST_ARRAY = 1 << 30
"""Bytes of a file that is one array: it is held in memory whole, unlike lines."""


def read_chats(path: Path, problems: Problems) -> Iterator[Chat]:
    """The good ones in order; the others go to `problems`. Raises ConfigError."""
    for where, content in _entries(path):
        try:
            yield parse_chat(msgspec.json.decode(content))
        except (BadChat, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            problems.add(where, str(error))


def _entries(path: Path) -> Iterator[tuple[str, bytes | msgspec.Raw]]:
    array = _array(path)
    if array is not None:
        yield from ((f"entry {number}", one) for number, one in enumerate(array, start=1))
        return
    for number, line in read_lines(FLAG, path):
        yield f"line {number}", line


def _array(path: Path) -> list[msgspec.Raw] | None:
    """The chats of a file that is one array; None if it is lines."""
    try:
        if not _is_array(path):
            return None
        if path.stat().st_size > LARGEST_ARRAY:
            raise ConfigError(
                f"{FLAG} {path} has more than {LARGEST_ARRAY >> 30} GiB; give one chat a line"
            )
        content = path.read_bytes()
        array = msgspec.json.decode(content, type=list[msgspec.Raw])
        is_one_chat = is_chat_of_list([msgspec.json.decode(one) for one in array[:2]])
    except OSError as error:
        raise ConfigError(f"{FLAG} {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # what is broken is named by line
        return None
    return [msgspec.Raw(content)] if is_one_chat else array


def _is_array(path: Path) -> bool:
    """Whether a list begins the file and does not end with its line, or is all of it."""
    with path.open("rb") as file:
        first = file.readline(LONGEST_LINE)
        while first and not first.strip():
            first = file.readline(LONGEST_LINE)
        if not first.lstrip().startswith(b"["):
            return False
        try:
            msgspec.json.decode(first, type=msgspec.Raw)
        except msgspec.DecodeError:
            return True
        return not any(line.strip() for line in file)
