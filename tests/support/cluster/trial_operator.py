"""`python trial_operator.py FLAGS`: the operator with other controllers, or killed at a call.

TRIAL_CONTROLLERS: Kind=module:class, with commas; TRIAL_KILL_AT: it kills itself before its N-th
call of the API server.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from kvloop.operator.__main__ import main
from kvloop.operator.api import KubernetesApi
from kvloop.operator.runtime import process


def kill_at(number: int) -> None:
    """As if the machine went away between two calls."""
    plain = KubernetesApi.call
    made = 0

    async def call(self: KubernetesApi, method: str, path: str, **more: Any) -> Any:
        nonlocal made
        made += 1
        if made == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return await plain(self, method, path, **more)

    KubernetesApi.call = call  # type: ignore[method-assign]


if __name__ == "__main__":
    if chosen := os.environ.get("TRIAL_CONTROLLERS"):
        process.CONTROLLERS.clear()
        for pair in chosen.split(","):
            kind, _, place = pair.partition("=")
            process.CONTROLLERS[kind] = place
    if at := os.environ.get("TRIAL_KILL_AT"):
        kill_at(int(at))
    sys.exit(main())
