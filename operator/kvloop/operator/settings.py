"""What the operator was installed with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """From the command line and the environment of `python -m kvloop.operator`."""

    node_image: str
    """Of engine kvloop's pods, stores and benchmarks, where a resource names none."""
    operator_image: str = ""
    """The operator's own."""
    kubernetes: tuple[int, int] = (1, 27)
    """Version of the API server: before 1.21 CronJobs and PodDisruptionBudgets are beta."""
    namespaces: tuple[str, ...] = ()
    """Namespaces that are watched; empty: all."""
    own_namespace: str = "kvloop-system"
    """Where the operator's own Lease lies."""
    resync_s: float = 10.0
    """Each resource is looked at again after this."""
    api_timeout_s: float = 15.0
    """Deadline of one call of the API server."""
    node_timeout_s: float = 5.0
    """Deadline of one call of a node or router."""
    port: int = 8080
    """/healthz, /readyz and /metrics."""
