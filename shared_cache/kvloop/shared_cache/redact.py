"""Keeps the secrets of a backend's configuration out of everything that is said about it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

from kvloop.shared_cache.backend import StorageBackend, StoredObject
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.storage_errors import (
    StorageRejected,
    StorageUnavailable,
    StorageUnsupported,
)

_SECRET_NAMES = ("secret", "password", "token", "key", "credential")
_SHORTEST_NUMBER = 4  # a number of fewer digits is a count, and would be found in any text
_USER_INFO = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_HIDDEN = "***"
_KEPT = (ConfigError, StorageRejected, StorageUnavailable, StorageUnsupported)


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret."""
    return any(word in name.lower() for word in _SECRET_NAMES)


class Redactor:
    """Knows the secrets of one configuration: values of fields named so, and user info in URLs."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        spellings = {text for secret in _secrets(config) for text in _spellings(secret)}
        # The longest first: one secret may be part of another.
        self._secrets = sorted(spellings, key=len, reverse=True)

    def text(self, text: str) -> str:
        """The text with `***` for each secret, and for user info in any URL."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return _USER_INFO.sub(_HIDDEN, text)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Every error leaves without secrets: of one of `_KEPT`, or as StorageUnavailable."""
        try:
            yield
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except _KEPT as error:
            raise type(error)(self.text(str(error))) from None
        except BaseException as error:  # a backend's library may throw more than an Exception
            words = f"{type(error).__name__}: {error}" if str(error) else repr(error)
            raise StorageUnavailable(self.text(words)) from None


class RedactedBackend(StorageBackend):
    """Another backend, whose errors show no secret."""

    def __init__(self, backend: StorageBackend, redactor: Redactor) -> None:
        self._backend = backend
        self._errors = redactor.errors

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        with self._errors():
            return self._backend.exists(keys)

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        with self._errors():
            return self._backend.get(keys, slots)

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        with self._errors():
            return self._backend.set(keys, slots)

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        with self._errors():
            return self._backend.delete(keys)

    def discard(self, keys: Sequence[bytes]) -> list[bool]:
        with self._errors():
            return self._backend.discard(keys)

    def put_small(self, name: str, value: bytes) -> bool:
        with self._errors():
            return self._backend.put_small(name, value)

    def get_small(self, name: str) -> bytes | None:
        with self._errors():
            return self._backend.get_small(name)

    def stats(self) -> dict[str, float]:
        with self._errors():
            return self._backend.stats()

    def clear(self) -> None:
        with self._errors():
            self._backend.clear()

    def close(self) -> None:
        with self._errors():
            self._backend.close()

    def objects(self) -> Iterator[StoredObject]:
        with self._errors():
            yield from self._backend.objects()

    def probe(self) -> None:
        with self._errors():
            self._backend.probe()


def _secrets(value: Any, is_secret: bool = False) -> Iterator[str]:
    """All leaves under a secret's name, and the user info of all URLs."""
    if isinstance(value, bool):
        return
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _secrets(inner, is_secret or is_secret_name(str(name)))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _secrets(inner, is_secret)
    elif isinstance(value, str):
        if is_secret and value:
            yield value
        yield from _user_info(value)
    elif is_secret and isinstance(value, int | float) and len(str(value)) >= _SHORTEST_NUMBER:
        yield str(value)


def _user_info(text: str) -> Iterator[str]:
    for word in text.split():
        try:
            before, at, _ = urlsplit(word).netloc.rpartition("@")
        except ValueError:
            continue
        if at and before:
            password = before.partition(":")[2]
            yield from (part for part in (before, password) if part)


def _spellings(secret: str) -> set[str]:
    """As it stands, and as errors like to quote it."""
    quoted = {json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret, safe="")}
    return {secret, quote(secret), quote_plus(secret)} | quoted
