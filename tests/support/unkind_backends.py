"""File backends that dawdle or take no page, as classes that backend `dynamic` loads."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from admin import attach
from flaky_backend import FlakyBackend
from running import Running

from kvloop.shared_cache.host_pool import HostPool

MODULE = "unkind_backends"


class DawdlingBackend(FlakyBackend):
    """Each call takes a random time of up to `delay_s` longer."""

    def __init__(self, config: Mapping[str, Any], pool: HostPool, namespace: bytes) -> None:
        fields = dict(config)
        self._delay_s = float(fields.pop("delay_s"))
        self._chance, self._turn = random.Random(fields.get("seed", 0)), threading.Lock()
        super().__init__(fields, pool, namespace)

    def _disturb(self) -> None:
        with self._turn:
            pause_s = self._chance.uniform(0.0, self._delay_s)
        time.sleep(pause_s)
        super()._disturb()


class FullBackend(FlakyBackend):
    """What is there can be read; there is no room for more."""

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        there = self.exists(keys)
        assert len(slots) == len(there)
        return there


def attach_unkind(node: Running, root: str, class_name: str, **config: Any) -> None:
    """In the place of the file cache under `root`; the node must have been allowed MODULE."""
    fields = {
        "backend_name": "unkind",
        "module_path": MODULE,
        "class_name": class_name,
        "root": root,
        **config,
    }
    attach(node, "dynamic", **fields)


def attach_kind(node: Running, root: str) -> None:
    """The file cache again."""
    attach(node, "file", root=root)
