"""Parsers of the flag values of `kvloop cache`; argparse puts the flag's name before messages."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from kvloop.cli import flag_types
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.safe_path import checked_root
from kvloop.shared_cache.store_tools.address import StoreAddress

if TYPE_CHECKING:
    from kvloop.shared_cache.page_object import PageShape

_MASTER = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):([0-9]{1,5})", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{1,64}", re.ASCII)
_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)
_AMOUNT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]+)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_BYTES = {"B": 1} | {
    f"{p}{u}": b**n for u, b in (("iB", 1024), ("B", 1000)) for n, p in enumerate("KMGTP", 1)
}
_FORMS = (
    "file:/PATH, mooncake:HOST:PORT[?FIELD=VALUE&...], NAME:{JSON} or NAME:@FILE with the "
    'backend\'s config, or @FILE with {"backend": NAME, "config": {...}}'
)


def store(text: str) -> StoreAddress:
    """A store's short form; see `_FORMS`."""
    if text.startswith("@"):
        return _described(flag_types.json_object(text))
    name, _, rest = text.partition(":")
    if name not in _backends():
        raise argparse.ArgumentTypeError(
            f"{_shown(text)} is no store: write {_FORMS}; names: {', '.join(_backends())}"
        )
    if rest.startswith(("{", "@")):
        return StoreAddress(backend=name, config=flag_types.json_object(rest))
    if name == "file":
        return StoreAddress(backend=name, config={"root": _root(rest)})
    if name == "mooncake":
        return StoreAddress(backend=name, config=_mooncake(rest))
    raise argparse.ArgumentTypeError(
        f"{_shown(text)}: {name} has no short form; write {name}:{{JSON}} or {name}:@FILE"
    )


def backend(text: str) -> str:
    """A backend's name."""
    if text not in _backends():
        raise argparse.ArgumentTypeError(
            f"must be one of {', '.join(_backends())}, got {_shown(text)}"
        )
    return text


def namespace(text: str) -> str:
    """The first digits of a namespace, or all 64."""
    if not _HEX.fullmatch(text.lower()):
        raise argparse.ArgumentTypeError(
            f"must be 1 to 64 hexadecimal digits, as `kvloop cache stat` shows them, "
            f"got {_shown(text)}"
        )
    return text.lower()


def keys(text: str) -> list[bytes]:
    """The page keys of a file: one of 64 hexadecimal digits a line; `#` begins a comment."""
    try:
        lines = Path(text).read_text().splitlines()
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else str(error)
        raise argparse.ArgumentTypeError(f"cannot read {_shown(text)}: {words}") from error
    found: dict[bytes, None] = {}
    for number, line in enumerate(lines, 1):
        key = line.partition("#")[0].strip().lower()
        if key and not _KEY.fullmatch(key):
            raise argparse.ArgumentTypeError(
                f"line {number} of {_shown(text)} must be a key of 64 hexadecimal digits, "
                f"got {_shown(key)}"
            )
        if key:
            found[bytes.fromhex(key)] = None
    return list(found)


def shape(text: str) -> PageShape:
    """The fields of a page's shape, as JSON or @FILE."""
    import msgspec

    from kvloop.shared_cache.page_object import PageShape

    fields = flag_types.json_object(text)
    if unknown := sorted(set(fields) - set(PageShape.__slots__)):
        raise argparse.ArgumentTypeError(
            f"has an unknown field {unknown[0]!r}; known: {', '.join(PageShape.__slots__)}"
        )
    try:
        return msgspec.convert(fields, PageShape)
    except msgspec.ValidationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def duration(text: str) -> float:
    """Seconds of a text such as 90s, 30m, 12h, 1d or 2w."""
    return _amount(text, _SECONDS, "a time such as 30m, 12h or 1d")


def size(text: str) -> int:
    """Bytes of a text such as 500MiB, 10GiB or 1.5TB."""
    return int(_amount(text, _BYTES, "a size such as 500MiB, 10GiB or 1.5TB"))


def _amount(text: str, units: dict[str, int], wanted: str) -> float:
    parts = _AMOUNT.fullmatch(text.strip())
    if parts is None or parts[2] not in units:
        raise argparse.ArgumentTypeError(f"must be {wanted}, got {_shown(text)}")
    return float(parts[1]) * units[parts[2]]


def _described(fields: dict[str, object]) -> StoreAddress:
    if unknown := sorted(set(fields) - {"backend", "config"}):
        raise argparse.ArgumentTypeError(
            f"has an unknown field {unknown[0]!r}; known: backend, config"
        )
    config = fields.get("config", {})
    if not isinstance(config, dict):
        raise argparse.ArgumentTypeError(
            f"config must be a JSON object, got {_shown(repr(config))}"
        )
    try:
        name = backend(str(fields.get("backend", "")))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"backend {error}") from None
    return StoreAddress(backend=name, config=config)


def _backends() -> list[str]:
    from kvloop.shared_cache.factory import known_backends

    return known_backends()


def _root(text: str) -> str:
    """A path, or the rest of file:///path."""
    if text.startswith("//") and not text.startswith("///"):
        raise argparse.ArgumentTypeError(
            f"{_shown('file:' + text)} names a host; write file:/PATH for a directory of this one"
        )
    try:
        return str(checked_root("the path", text[2:] if text.startswith("///") else text))
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _mooncake(text: str) -> dict[str, object]:
    address, _, query = text.removeprefix("//").partition("?")
    parts = _MASTER.fullmatch(address)
    if parts is None or not 0 < int(parts[2]) < 65536:
        raise argparse.ArgumentTypeError(
            f"must be mooncake:HOST:PORT of the master, with a port from 1 to 65535, "
            f"got {_shown('mooncake:' + text)}"
        )
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        fields: dict[str, object] = {name: _field(value) for name, value in pairs}
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{_shown('mooncake:' + text)}: behind ? must be FIELD=VALUE, joined by &"
        ) from error
    return {"master_server_address": address, **fields}


def _field(value: str) -> object:
    return int(value) if value.isascii() and value.isdecimal() else value


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
