# ruff: noqa: INP001
"""This machine's pip settings for the pip of a build: a configuration file, and what it names."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

_QUIET = {"quiet": "2"}
"""Of indexes that lie in folders, pip complains once for every name that one of them lacks."""
_NEVER = {"disable-pip-version-check", "require-virtualenv", "user", "target", "prefix", "root"}
"""Settings of where to install are this machine's own."""


def settings(listed: str) -> dict[str, str]:
    """Of the lines of `pip config list`; the environment's over the files'.

    A line is `SECTION.KEY='VALUE'`; section `:env:` is a variable PIP_KEY.
    """
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.splitlines():
        name, is_setting, value = line.partition("=")
        section, _, key = name.partition(".")
        if is_setting and section in found and key not in _NEVER:
            found[section][key] = str(ast.literal_eval(value))
    return {**found["global"], **found["install"], **found[":env:"]}


def as_file(values: Mapping[str, str]) -> str:
    """pip.conf; values of several lines go on one: pip splits them at any space."""
    lines = (f"{key} = {' '.join(value.split())}" for key, value in {**values, **_QUIET}.items())
    return "\n".join(("[global]", *lines, ""))


def folders(values: Mapping[str, str]) -> list[Path]:
    """Files and folders of this machine that the settings name: the build must see them."""
    named = {path for value in values.values() for path in _paths(value.split())}
    return sorted(path for path in named if path.exists())


def _paths(words: Iterable[str]) -> Iterable[Path]:
    for word in words:
        url = urlsplit(word)
        if url.scheme == "file":
            yield _mountable(Path(unquote(url.path)))
        elif word.startswith("/"):
            yield _mountable(Path(word))


def _mountable(path: Path) -> Path:
    """An index's `simple` links to files beside it; a certificate may be a link into its folder."""
    return path.parent if path.name == "simple" or path.is_file() else path
