"""Names, labels and ports that builders, controllers and charts agree on."""

from __future__ import annotations

from collections.abc import Mapping

FIELD_MANAGER = "kvloop-operator"
NODE_PORT = 30000
"""HTTP of prefill and decode pods."""
ROUTER_PORT = 8000
"""HTTP of router pods."""
TRANSFER_PORTS = "dynamic"
"""Mooncake's transfer engine chooses its own; NetworkPolicies allow all between nodes."""

PART_OF = "app.kubernetes.io/part-of"
NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
COMPONENT = "app.kubernetes.io/component"
MANAGED_BY = "app.kubernetes.io/managed-by"
REVISION = "kvloop.dev/revision"
"""Generation of a pod: nodes of unequal ones are never paired."""
LEADER = "kvloop.dev/leader"
"""On the Mooncake master that leads."""
SPEC_REPLICAS = "kvloop.dev/spec-replicas"
"""Annotation: replicas of the resource that a Deployment was last given."""
PAIRED_GATE = "kvloop.dev/paired"
"""Readiness gate of prefill and decode pods: their generation has a peer."""
SCALED = "kvloop.dev/scaled"
"""Annotation: the replicas that autoscaling chose, and why."""
REASON = "kvloop.dev/reason"
"""Annotation of a roll: why."""

CACHE_DIR = "/var/lib/kvloop/cache"
"""Volumes of SharedCaches are mounted below, each at its name."""
ATTACH_DIR = "/etc/kvloop/attach"
"""Holds attach.json: what a node attaches when it starts."""
SECRETS_DIR = "/etc/kvloop/secrets"
"""Holds node-secret and, of the router, api-keys."""
MODEL_DIR = "/var/lib/kvloop/model"


def labels(*, kind: str, name: str, component: str) -> dict[str, str]:
    """Labels of everything that the operator makes for one resource.

    kind: the resource's short name (shc, pdc, mtb); component: prefill, decode, router,
    mooncake-master, mooncake-store, nixl-store, janitor, benchmark.
    """
    return {
        NAME: "kvloop",
        INSTANCE: f"{kind}-{name}"[:63].rstrip("-."),
        COMPONENT: component,
        PART_OF: "kvloop",
        MANAGED_BY: FIELD_MANAGER,
        f"kvloop.dev/{kind}": name[:63].rstrip("-."),
    }


def selector(wanted: Mapping[str, str]) -> dict[str, str]:
    """Those of `labels` that select pods: instance and component, which never change."""
    return {key: wanted[key] for key in (INSTANCE, COMPONENT)}
