"""What the operator may do, and why: the chart's roles are made from this.

`python -m kvloop.operator.rbac [--check]` writes charts/kvloop/files/rbac-rules.yaml.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvloop.operator.runtime.calls import Call
from kvloop.operator.types.base import GROUP

LEASE = "kvloop-operator"
"""The operator's own."""
CHART_FILE = Path("charts/kvloop/files/rbac-rules.yaml")
SEEN = ("get", "list", "watch")
APPLIED = ("get", "create", "patch")
"""Server-side apply: looked at, and made or changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One entry of a Role."""

    why: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    group: str = ""
    names: tuple[str, ...] = ()
    """Of objects; empty: all of the namespace."""
    only_granted: tuple[str, ...] = ()
    """Verbs that the operator never uses itself: it may hand on only what it holds."""

    def allows(self, call: Call) -> bool:
        """Whether this lets a call pass, whatever the object's name."""
        full = f"{call.resource}/{call.subresource}" if call.subresource else call.resource
        return call.group == self.group and full in self.resources and call.verb in self.verbs


WATCHED: tuple[Rule, ...] = (
    Rule(
        why="What users wrote.",
        group=GROUP,
        resources=("sharedcaches", "pdclusters", "multiturnbenchmarks"),
        verbs=SEEN,
    ),
    Rule(
        why="What is told of it.",
        group=GROUP,
        resources=("sharedcaches/status", "pdclusters/status", "multiturnbenchmarks/status"),
        verbs=("patch",),
    ),
    Rule(
        why="deleteAfterSeconds.",
        group=GROUP,
        resources=("multiturnbenchmarks",),
        verbs=("delete",),
    ),
    Rule(
        why="Roles of PDClusters: each has one as long as its resource is there.",
        group="apps",
        resources=("deployments",),
        verbs=(*SEEN, "create", "patch"),
    ),
    Rule(
        why="Masters and stores; one that a SharedCache no longer has goes.",
        group="apps",
        resources=("statefulsets", "daemonsets"),
        verbs=(*SEEN, "create", "patch", "delete"),
    ),
    Rule(
        why="Runs of benchmarks; a Job is never changed, only made and removed.",
        group="batch",
        resources=("jobs",),
        verbs=(*SEEN, "create", "delete"),
    ),
    Rule(
        why="The janitor of 3FS.",
        group="batch",
        resources=("cronjobs",),
        verbs=(*APPLIED, "delete"),
    ),
    Rule(
        why="Readiness and reasons of pods. patch is handed on to Mooncake's masters, who label "
        "the leader, and to no other name than theirs.",
        resources=("pods",),
        verbs=(*SEEN, "patch"),
        only_granted=("patch",),
    ),
    Rule(
        why="The readiness gate kvloop.dev/paired.",
        resources=("pods/status",),
        verbs=("patch",),
    ),
    Rule(
        why="Where routers, nodes and stores are reached.",
        resources=("services",),
        verbs=(*APPLIED, "delete"),
    ),
    Rule(
        why="Keys of nodes, and what they attach; secrets that a resource names.",
        resources=("secrets",),
        verbs=APPLIED,
    ),
    Rule(
        why="Reports of benchmarks, and files of engine sglang; a benchmark's pod gets patch of "
        "its own report, which goes when a changed spec runs anew.",
        resources=("configmaps",),
        verbs=(*APPLIED, "delete"),
    ),
    Rule(
        why="Whether the claims that a resource names are there and bound.",
        resources=("persistentvolumeclaims",),
        verbs=("get",),
    ),
    Rule(
        why="Identities of pods.",
        resources=("serviceaccounts",),
        verbs=APPLIED,
    ),
    Rule(
        why="Never more than one store or router away at once.",
        group="policy",
        resources=("poddisruptionbudgets",),
        verbs=(*APPLIED, "delete"),
    ),
    Rule(
        why="Mooncake's election. update is handed on to the masters, of their own Lease.",
        group="coordination.k8s.io",
        resources=("leases",),
        verbs=(*APPLIED, "update"),
        only_granted=("update",),
    ),
    Rule(
        why="Rights of masters and of benchmarks, never more than the operator's own.",
        group="rbac.authorization.k8s.io",
        resources=("roles", "rolebindings"),
        verbs=APPLIED,
    ),
    Rule(
        why="What kubectl describe shows.",
        resources=("events",),
        verbs=APPLIED,
    ),
)
"""In each watched namespace, or in all of the cluster."""

OWN: tuple[Rule, ...] = (
    Rule(
        why="Who leads: the first of all makes it.",
        group="coordination.k8s.io",
        resources=("leases",),
        verbs=("create",),
    ),
    Rule(
        why="Who leads.",
        group="coordination.k8s.io",
        resources=("leases",),
        names=(LEASE,),
        verbs=("get", "update"),
    ),
)
"""In the operator's own namespace."""


def refused(calls: Iterable[Call], rules: Sequence[Rule]) -> list[Call]:
    """Calls of resources that no rule lets pass."""
    return [call for call in calls if call.resource and not any(r.allows(call) for r in rules)]


def unused(calls: Iterable[Call], rules: Sequence[Rule]) -> list[Call]:
    """What rules allow and none of these calls needed, less what is only handed on."""
    made = {(c.verb, c.group, c.resource, c.subresource) for c in calls}
    return [call for rule in rules for call in _calls(rule) if _identity(call) not in made]


def yaml_text() -> str:
    """For the chart."""
    head = (
        "# Made by `python -m kvloop.operator.rbac` from operator/kvloop/operator/rbac.py.\n"
        "# watched: in each watched namespace, or of the cluster; own: where the operator is.\n"
    )
    return head + _section("watched", WATCHED) + _section("own", OWN)


def main(words: Sequence[str]) -> int:
    """Exit status 1 where --check finds a difference."""
    text = yaml_text()
    if "--check" in words:
        is_same = CHART_FILE.is_file() and CHART_FILE.read_text() == text
        if not is_same:
            print(f"{CHART_FILE} is not what rbac.py says: run python -m kvloop.operator.rbac")
        return 0 if is_same else 1
    CHART_FILE.write_text(text)
    return 0


def _calls(rule: Rule) -> Iterable[Call]:
    for full in rule.resources:
        resource, _, subresource = full.partition("/")
        for verb in rule.verbs:
            if verb not in rule.only_granted:
                yield Call(verb=verb, group=rule.group, resource=resource, subresource=subresource)


def _identity(call: Call) -> tuple[str, str, str, str]:
    return call.verb, call.group, call.resource, call.subresource


def _section(name: str, rules: Iterable[Rule]) -> str:
    return f"{name}:\n" + "".join(_entry(rule) for rule in rules)


def _entry(rule: Rule) -> str:
    names = f"    resourceNames: {_list(rule.names)}\n" if rule.names else ""
    return (
        f"  # {rule.why}\n"
        f"  - apiGroups: {_list((rule.group,))}\n"
        f"    resources: {_list(rule.resources)}\n{names}"
        f"    verbs: {_list(rule.verbs)}\n"
    )


def _list(words: Iterable[str]) -> str:
    return "[" + ", ".join(word or '""' for word in words) + "]"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
