"""No secret of a backend's configuration is in anything that is said about the backend."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from memory_backend import MemoryBackend, Valve, eventually

from kvloop.shared_cache import factory
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.guard import GuardConfig, GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.redact import Redactor
from kvloop.shared_cache.storage_errors import (
    StorageRejected,
    StorageUnavailable,
    StorageUnsupported,
)

SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=1, head_size=8, itemsize=2)
KEYS = [bytes([i]) * 32 for i in range(2)]
QUICK = GuardConfig(deadline_s=0.5, first_retry_s=0.02, max_retry_s=0.1, check_s=0.1)
SECRET = "hunter2 & co"
CONFIG = {"root": "/pages", "access_key": SECRET}


@pytest.mark.parametrize(
    "name",
    [
        "secret",
        "aws_secret_access",
        "password",
        "Password",
        "auth_token",
        "accessKey",
        "credential",
    ],
)
def test_fields_that_are_named_like_secrets_are_hidden(name: str) -> None:
    assert Redactor({name: "xyzzy"}).text("failed for xyzzy") == "failed for ***"


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"credentials": {"user": "ann", "pin": 48151}}, "ann 48151"),
        ({"options": [{"token": "abc"}]}, "abc"),
        ({"keys": ["one", "two"]}, "one two"),
        ({"password": 'a"b\\c'}, 'a"b\\c a\\"b\\\\c'),
        ({"password": "p w/d"}, "p%20w%2Fd p+w%2Fd p%20w/d"),
        ({"uri": "s3://ann:pass@host/x"}, "pass ann:pass"),
        ({"uri": "s3://only-a-token@host/x"}, "only-a-token"),
        ({}, "redis://ann:pass@host:1/x"),
    ],
)
def test_secrets_are_hidden_wherever_they_lie_and_however_they_are_quoted(
    config: dict[str, Any], said: str
) -> None:
    shown = Redactor(config).text(said)
    for part in ("ann:", "pass", "48151", "abc", "one", "two", "token", 'a"b', "w/d", "w%2Fd"):
        assert part not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"root": "/pages"}, "/pages: no space left"),
        ({"num_keys": 16, "key_check": True, "token": None, "key": ""}, "16 of 16: True, None"),
        ({"host": "10.0.0.1:80"}, "10.0.0.1:80 refused"),
        ({"mail": "a@b"}, "a@b"),
    ],
)
def test_all_else_is_shown(config: dict[str, Any], said: str) -> None:
    assert Redactor(config).text(said) == said


def test_a_secret_that_is_part_of_another_leaves_no_rest() -> None:
    redactor = Redactor({"key": "abc", "secret": "abcdef"})
    assert redactor.text("abcdef abc") == "*** ***"


@pytest.mark.parametrize(
    ("thrown", "shown"),
    [
        (StorageRejected(f"no {SECRET}"), StorageRejected),
        (StorageUnsupported(f"no {SECRET}"), StorageUnsupported),
        (StorageUnavailable(f"no {SECRET}"), StorageUnavailable),
        (ConfigError(f"no {SECRET}"), ConfigError),
        (RuntimeError(f"no {SECRET}"), StorageUnavailable),
        (SystemExit(f"no {SECRET}"), StorageUnavailable),
    ],
)
def test_errors_keep_their_kind_and_lose_the_secret(
    thrown: BaseException, shown: type[Exception]
) -> None:
    with pytest.raises(shown) as caught, Redactor(CONFIG).errors():
        raise thrown
    assert "no ***" in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.fixture
def valve(monkeypatch: pytest.MonkeyPatch) -> Valve:
    """Of a backend `leaky`, whose every error names its secret."""
    valve = Valve()
    register(
        monkeypatch, lambda fields, pool, namespace, modules: lambda: MemoryBackend(valve, pool)
    )
    return valve


def register(monkeypatch: pytest.MonkeyPatch, prepare: Callable[..., Any]) -> None:
    """Make `leaky` a backend that the factory knows."""
    monkeypatch.setattr(factory, "_BACKENDS", (*factory._BACKENDS, "leaky"))
    monkeypatch.setattr(factory, "_prepare", lambda name: prepare)


def test_neither_status_nor_log_shows_the_secret_whatever_fails(
    valve: Valve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    pool = HostPool(SHAPE, 2)
    opener = backend_opener("leaky", CONFIG, pool, b"n" * 32)
    seen: list[str] = []

    def fail(*_: object) -> None:
        raise RuntimeError(f"login with {SECRET} failed")

    monkeypatch.setattr(MemoryBackend, "close", fail)
    guard = GuardedBackend(opener, pool, name="leaky", namespace=b"n" * 32, config=QUICK)
    assert guard.wait_attached(5)
    valve.error = RuntimeError(f"login with {SECRET} failed")
    slots = pool.alloc(2)
    assert slots is not None
    for call in (
        lambda: guard.exists(KEYS),
        lambda: guard.get(KEYS, slots),
        lambda: guard.set(KEYS, slots),
        lambda: guard.delete(KEYS),
        lambda: guard.get_small("x"),
        lambda: guard.put_small("x", b""),
        guard.clear,
    ):
        valve.error = None
        assert eventually(lambda: guard.state == "attached")
        valve.error = RuntimeError(f"login with {SECRET} failed")
        call()
        seen.append(str(guard.status()))
    assert all("login with *** failed" in status for status in seen)
    assert eventually(lambda: guard.state == "open")
    seen.append(str(guard.status()))
    guard.close()
    assert eventually(lambda: "closing a storage backend failed" in caplog.text)
    assert SECRET not in caplog.text and not any(SECRET in status for status in seen)


def test_an_opening_that_fails_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> MemoryBackend:
        raise ConnectionError(f"http://ann:{SECRET}@store")

    register(monkeypatch, lambda fields, pool, namespace, modules: fail)
    with pytest.raises(StorageUnavailable) as caught:
        backend_opener("leaky", CONFIG, HostPool(SHAPE, 1), b"n" * 32)()
    assert str(caught.value) == "ConnectionError: http://***@store"
