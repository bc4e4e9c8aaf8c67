"""The file backend behind dice, as a class that backend `dynamic` loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvloop.shared_cache.backends.file import prepare
from kvloop.shared_cache.failure_injector import FailureInjector, FailureSettings
from kvloop.shared_cache.host_pool import HostPool

MODULE = "flaky_backend"
CLASS = "FlakyBackend"


class FlakyBackend(FailureInjector):
    """`root` is the file backend's; all other fields are FailureSettings'."""

    def __init__(self, config: Mapping[str, Any], pool: HostPool, namespace: bytes) -> None:
        settings = dict(config)
        backend = prepare({"root": settings.pop("root")}, pool, namespace, ())()
        super().__init__(backend, FailureSettings(**settings), pool)
