"""`python trial_operator.py FLAGS`: the operator with other controllers, or killed at a call.

TRIAL_CONTROLLERS: Kind=module:class, with commas. TRIAL_KILLS=N: runs 1 to N one after the other,
the k-th in namespace killed-<k>, each of which kills itself before its k-th call of the API
server; it ends with the first that made fewer calls, and prints how many were killed.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from kvloop.operator.__main__ import main
from kvloop.operator.api import KubernetesApi
from kvloop.operator.runtime import process

QUIET_S = 40
"""A run that made no call for so long has made all."""


def kill_at(number: int) -> None:
    """As if the machine went away between two calls."""
    plain = KubernetesApi.call
    made = 0

    async def call(self: KubernetesApi, method: str, path: str, **more: Any) -> Any:
        nonlocal made
        made += 1
        signal.alarm(QUIET_S)
        if made == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return await plain(self, method, path, **more)

    KubernetesApi.call = call  # type: ignore[method-assign]


def run_and_kill(most: int, flags: list[str]) -> None:
    """Forked, so that all is imported once."""
    for number in range(1, most + 1):
        child = os.fork()
        if child == 0:
            signal.alarm(QUIET_S)
            kill_at(number)
            os._exit(main([*flags, "--namespace", f"killed-{number}"]))
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            print(f"killed {number - 1}, then {status}", flush=True)
            return
    print(f"killed {most}", flush=True)


if __name__ == "__main__":
    if chosen := os.environ.get("TRIAL_CONTROLLERS"):
        process.CONTROLLERS.clear()
        for pair in chosen.split(","):
            kind, _, place = pair.partition("=")
            process.CONTROLLERS[kind] = place
    if most := os.environ.get("TRIAL_KILLS"):
        run_and_kill(int(most), sys.argv[1:])
    else:
        sys.exit(main())
