"""Of a Mooncake store that is run here: whether it serves, from its pods and its master."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kvloop.operator.build.shared_cache import masters, stores
from kvloop.operator.caches.seen import Figures, Looked, MasterView, Pods, Verdict
from kvloop.operator.caches.words import in_words, selector_text
from kvloop.operator.connect.mooncake import master_address
from kvloop.operator.names import COMPONENT, LEADER
from kvloop.operator.pod_trouble import Pod, is_ready, num_restarts, worst
from kvloop.operator.quantity import num_bytes
from kvloop.operator.types.mooncake import Mooncake
from kvloop.operator.types.shared_cache import Member, SharedCache


@dataclass(frozen=True, slots=True, kw_only=True)
class MooncakeSeen:
    """Pods by component, and what masters answered, by pod."""

    pods: Pods
    views: Mapping[str, MasterView]
    num_wanted: int
    """Stores, as the resource or the number of machines has it."""

    @property
    def masters(self) -> list[Pod]:
        return self._of(masters.COMPONENT)

    @property
    def stores(self) -> list[Pod]:
        return self._of(stores.COMPONENT)

    def leader(self, cache: SharedCache) -> Pod | None:
        """The master that clients are sent to; None where there is none."""
        for pod in self.masters:
            if is_ready(pod) and self._leads(pod, cache):
                return pod
        return None

    def _leads(self, pod: Pod, cache: SharedCache) -> bool:
        if _mooncake(cache).masters.high_availability == "lease":
            return bool(pod["metadata"]["labels"].get(LEADER) == "true")
        view = self.views.get(pod["metadata"]["name"])
        return view is None or view.leads

    def _of(self, component: str) -> list[Pod]:
        found = [p for p in self.pods if p["metadata"]["labels"].get(COMPONENT) == component]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))


def look_at_mooncake(cache: SharedCache, seen: MooncakeSeen) -> Looked:
    """Pure."""
    leader = seen.leader(cache)
    view = seen.views.get(leader["metadata"]["name"]) if leader is not None else None
    members = [_member(pod, "master", leader) for pod in seen.masters]
    members += [_member(pod, "store", None) for pod in seen.stores]
    figures = Figures(
        endpoint=master_address(cache),
        capacity_bytes=view.capacity_bytes if view is not None else None,
        used_bytes=view.used_bytes if view is not None else None,
        replicas=len([p for p in seen.stores if not p["metadata"].get("deletionTimestamp")]),
        ready_replicas=len([p for p in seen.stores if is_ready(p)]),
        selector=selector_text(cache, stores.COMPONENT),
        members=tuple(members),
    )
    return Looked(verdict=_verdict(cache, seen, leader, view), figures=figures)


def _verdict(
    cache: SharedCache, seen: MooncakeSeen, leader: Pod | None, view: MasterView | None
) -> Verdict:
    if leader is None:
        return _without_leader(cache, seen)
    name = leader["metadata"]["name"]
    if view is None:
        words = f"master {name} does not answer on its metrics port"
        return Verdict(status="False", reason="MasterNotReady", message=words)
    return _of_stores(cache, seen, name, view)


def _without_leader(cache: SharedCache, seen: MooncakeSeen) -> Verdict:
    if not any(is_ready(pod) for pod in seen.masters):
        if (trouble := worst(seen.masters)) is not None:
            return Verdict(status="False", reason=trouble.reason, message=trouble.message)
        made = f"{len(seen.masters)} of {_mooncake(cache).masters.replicas} masters were made"
        words = f"no master serves; {made}"
        return Verdict(status="False", reason="MasterNotReady", message=words)
    masters_of, words = _mooncake(cache).masters, "no master leads; one of those that stand by will"
    if masters_of.high_availability == "lease":
        words += f", {masters_of.lease_seconds} s after the last sign of the one before"
    return Verdict(status="False", reason="NoLeader", message=words)


def _of_stores(cache: SharedCache, seen: MooncakeSeen, master: str, view: MasterView) -> Verdict:
    wanted, ready = seen.num_wanted, [pod for pod in seen.stores if is_ready(pod)]
    trouble = worst(seen.stores)
    why = f"; {trouble.message}" if trouble is not None else ""
    stores_of = _mooncake(cache).stores
    assert stores_of is not None
    num_joined = min(wanted, view.capacity_bytes // max(1, num_bytes(stores_of.segment_size)))
    if wanted == 0:
        words = "no store is wanted: nothing can be kept; scale it up"
        return Verdict(status="False", reason="StoresNotReady", message=words)
    if not ready:
        reason = trouble.reason if trouble is not None else "StoresNotReady"
        words = f"none of {wanted} stores serves{why}"
        return Verdict(status="False", reason=reason, message=words)
    if view.capacity_bytes == 0:
        words = f"master {master} leads, and no store has joined it yet"
        return Verdict(status="False", reason="StoresNotReady", message=words)
    num_serving = min(len(ready), num_joined)
    if num_serving < wanted:
        words = f"{num_serving} of {wanted} stores serve; the pages of others are misses{why}"
        return Verdict(status="True", reason="Degraded", message=words)
    missing = [p["metadata"]["name"] for p in seen.masters if not is_ready(p)]
    masters_of = _mooncake(cache).masters
    if missing or len(seen.masters) < masters_of.replicas:
        words = f"of {masters_of.replicas} masters not all stand by: {', '.join(missing) or 'none'}"
        return Verdict(status="True", reason="Degraded", message=words)
    room = in_words(view.capacity_bytes)
    words = f"master {master} leads, {wanted} of {wanted} stores serve {room}"
    return Verdict(status="True", reason="Ready", message=words)


def _member(pod: Pod, role: str, leader: Pod | None) -> Member:
    return Member(
        name=pod["metadata"]["name"],
        role=role,
        ready=is_ready(pod),
        leader=leader is pod,
        node=pod.get("spec", {}).get("nodeName", ""),
        restarts=num_restarts(pod),
    )


def _mooncake(cache: SharedCache) -> Mooncake:
    assert cache.spec.mooncake is not None
    return cache.spec.mooncake
