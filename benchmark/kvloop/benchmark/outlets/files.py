"""The report and its page as files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from kvloop.benchmark.results.document import SCHEMA, Report
from kvloop.shared_cache.errors import ConfigError


def to_json(report: Report, *, with_samples: bool = True, indent: int = 1) -> bytes:
    """The document; `with_samples=False` leaves the single requests out, all sums stay."""
    kept = report if with_samples else replace(report, samples=())
    try:
        encoded = msgspec.json.encode(kept)
    except UnicodeEncodeError:  # a model's or a file's name need not be UTF-8
        encoded = msgspec.json.encode(_readable(msgspec.to_builtins(kept)))
    return (msgspec.json.format(encoded, indent=indent) if indent else encoded) + b"\n"


def _readable(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case dict():
            return {_readable(key): _readable(part) for key, part in value.items()}
        case list() | tuple():
            return [_readable(part) for part in value]
    return value


def write_json(report: Report, path: Path, *, with_samples: bool = True) -> None:
    """Replace the file at once: a reader sees the old one or all of the new. Raises OSError."""
    write_whole(path, to_json(report, with_samples=with_samples))


def write_page(page: str, path: Path) -> None:
    """Replace the file at once. Raises OSError."""
    write_whole(path, page.encode())


def write_whole(path: Path, content: bytes) -> None:
    """Through a neighbour and a rename; what is no regular file (/dev/stdout) is written itself."""
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_report(path: Path) -> Report:
    """What `write_json` wrote. Raises ConfigError that names the file and what is wrong in it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    _check_schema(path, content)
    try:
        return msgspec.json.decode(content, type=Report)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: is no report of `kvloop bench`: {error}") from error


def _check_schema(path: Path, content: bytes) -> None:
    try:
        document: Any = msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: is not JSON: {error}") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema is None:
        raise ConfigError(
            f"{path}: is no report of `kvloop bench`: it has no `schema` (would be {SCHEMA!r})"
        )
    if schema != SCHEMA:
        raise ConfigError(f"{path}: its schema is {schema!r}, this kvloop reads {SCHEMA!r}")
