"""What became of the janitor's last run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvloop.operator.caches.seen import Verdict


def with_janitor(verdict: Verdict, jobs: Sequence[Mapping[str, Any]]) -> Verdict:
    """The store serves without it, and grows; a store that does not serve is told first."""
    if verdict.status == "False" or not jobs:
        return verdict
    last = max(jobs, key=lambda job: str(job["metadata"].get("creationTimestamp", "")))
    for condition in last.get("status", {}).get("conditions") or ():
        if condition.get("type") == "Failed" and condition.get("status") == "True":
            name, why = last["metadata"]["name"], condition.get("message", "")
            words = f"{verdict.message}; the janitor failed, so that the store may grow beyond "
            words += f"its capacity: job {name}: {why} (kubectl logs job/{name})"
            return Verdict(status=verdict.status, reason="JanitorFailed", message=words)
    return verdict
