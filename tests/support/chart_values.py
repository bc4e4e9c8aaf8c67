"""Values of the chart, from minimal to full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from chart import defaults

Values = dict[str, Any]
DIGEST = "sha256:" + "0123456789abcdef" * 4
STORES = [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
PEERS = [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]
FULL: Values = {
    "nameOverride": "loop",
    "commonLabels": {"team": "inference"},
    "image": {
        "pullPolicy": "Always",
        "pullSecrets": [{"name": "registry"}],
        "operator": {"repository": "registry.example.com:5000/kvloop-operator", "digest": DIGEST},
        "node": {"repository": "registry.example.com:5000/kvloop-node", "tag": "v1"},
    },
    "crds": {"keep": True},
    "operator": {
        "namespaces": ["chat", "agents"],
        "replicas": 3,
        "port": 9090,
        "logLevel": "DEBUG",
        "logFormat": "json",
        "extraArgs": ["--resync=5"],
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "control", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {
                        "weight": 100,
                        "podAffinityTerm": {
                            "topologyKey": "kubernetes.io/hostname",
                            "labelSelector": {
                                "matchLabels": {"app.kubernetes.io/component": "operator"}
                            },
                        },
                    }
                ]
            }
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "operator"}},
            }
        ],
        "priorityClassName": "system-cluster-critical",
        "podAnnotations": {"example.com/note": "one"},
        "podLabels": {"example.com/label": "two"},
        "terminationGracePeriodSeconds": 60,
    },
    "serviceAccount": {"name": "operator", "annotations": {"example.com/role": "arn"}},
    "podDisruptionBudget": {"maxUnavailable": "50%"},
    "priorityClass": {"create": True, "preemptionPolicy": "Never"},
    "metrics": {
        "service": {"annotations": {"example.com/scrape": "true"}},
        "serviceMonitor": {"enabled": True, "interval": "10s", "labels": {"release": "prom"}},
        "podMonitor": {"enabled": True, "interval": "10s", "labels": {"release": "prom"}},
        "rules": {"enabled": True, "labels": {"release": "prom"}},
        "dashboard": {"enabled": True, "annotations": {"grafana_folder": "kvloop"}},
    },
    "networkPolicy": {
        "operator": {"enabled": True, "apiServerPorts": [6443], "from": PEERS, "to": STORES},
        "clusters": {"enabled": True, "clientsFrom": PEERS, "scrapedFrom": PEERS},
    },
}
MINIMAL: Values = {
    "crds": {"enabled": False},
    "serviceAccount": {"create": False, "name": "given"},
    "rbac": {"create": False, "aggregate": False},
    "podDisruptionBudget": {"enabled": False},
    "metrics": {"service": {"enabled": False}, "dashboard": {"enabled": False}},
    "test": {"enabled": False},
}
_NEEDS: dict[str, Values] = {
    "serviceAccount.create": {"serviceAccount": {"name": "given"}},
    "metrics.service.enabled": {"test": {"enabled": False}},
    "networkPolicy.clusters.enabled": {"networkPolicy": {"clusters": {"namespaces": ["chat"]}}},
}
"""What else must be said where a switch is turned."""


def cases() -> dict[str, Values]:
    """By name: nothing, little, all, and each switch turned alone and in the full values."""
    found: dict[str, Values] = {"default": {}, "minimal": MINIMAL, "full": FULL}
    for path, value in switches(defaults()):
        turned = over(_NEEDS.get(path, {}), _at(path, not value))
        found[f"{path}={not value}".lower()] = turned
        found[f"full with {path}={not value}".lower()] = over(FULL, turned)
    return found


def switches(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, bool]]:
    """(path, default) of every boolean of the chart's own; not those of Kubernetes' fields."""
    for key, value in values.items():
        if isinstance(value, bool):
            yield before + key, value
        elif isinstance(value, Mapping) and not key.lower().endswith("securitycontext"):
            yield from switches(value, f"{before}{key}.")


def over(below: Values, above: Values) -> Values:
    """`above` laid over `below`."""
    result = deepcopy(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = over(result[key], value) if both else value
    return result


def _at(path: str, value: Any) -> Values:
    for key in reversed(path.split(".")):
        value = {key: value}
    result: Values = value
    return result
