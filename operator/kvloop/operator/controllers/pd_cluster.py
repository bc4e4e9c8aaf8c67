"""PDCluster: runs router and nodes, moves them on, and tells whether the loop is whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from kvloop.operator.attach import AttachOutcome
from kvloop.operator.autoscale.plan import Plan
from kvloop.operator.build.pd_cluster import KIND, Context, build_pd_cluster, context_of
from kvloop.operator.clusters import told
from kvloop.operator.clusters.asked import Asked, ask, router_urls
from kvloop.operator.clusters.canary import Canaries
from kvloop.operator.clusters.inputs import Inputs, Problem, read_inputs
from kvloop.operator.clusters.look import open_gates, read_deployments, see
from kvloop.operator.clusters.loop import Loop, LoopSeen, judge_loop
from kvloop.operator.clusters.progress import judge_progress
from kvloop.operator.clusters.ready import judge_ready
from kvloop.operator.clusters.replicas import with_live
from kvloop.operator.clusters.scaling import Scaling, scaled_deployments
from kvloop.operator.clusters.seen import Seen, changed_at, seconds, url_of
from kvloop.operator.clusters.sglang import Probes, ask_sglang, probe_target
from kvloop.operator.clusters.told import Findings
from kvloop.operator.conditions import as_status, conditions_of, with_condition
from kvloop.operator.controllers.base import Api, Event, Manifest, Result
from kvloop.operator.errors import ApiError, ConnectError, InvalidResource
from kvloop.operator.nodes.client import NodeClient
from kvloop.operator.parse import parse_pd_cluster
from kvloop.operator.settings import Settings
from kvloop.operator.types.pd_cluster import PDCluster

SOON_S = 2.0
"""While something is under way that tells nobody when it is done."""
_REFUSED = (400, 403, 405, 422)
"""Of an object that the API server takes in no other way however often it is asked."""


def _key(cluster: PDCluster) -> str:
    return f"{cluster.metadata.namespace}/{cluster.metadata.name}"


def _now() -> datetime:
    return datetime.now(UTC)


class PDClusterController:
    """Of PDClusters. Between two looks it holds only the canaries that run."""

    kind = KIND

    def __init__(self, settings: Settings, now: Callable[[], datetime] = _now) -> None:
        self._settings = settings
        self._now = now
        self._canaries = Canaries()
        self._probes = Probes()
        self._scaling = Scaling()

    async def close(self) -> None:
        """End what runs beside the looks."""
        await self._canaries.close()
        await self._probes.close()

    async def reconcile(self, resource: Manifest, api: Api) -> Result:
        """As in `Controller`."""
        try:
            cluster = parse_pd_cluster(resource)
        except InvalidResource as error:
            return self._invalid(resource, str(error))
        inputs, context = self._context(cluster, await read_inputs(cluster, api))
        if context is not None:
            inputs = await self._apply(context, inputs, api)
        seen = await see(cluster, api)
        if await open_gates(cluster, seen, api, self._now()):
            seen = await see(cluster, api)
        async with self._client(inputs) as client:
            if cluster.spec.engine == "sglang":
                last = self._probes.last(_key(cluster))
                asked = await ask_sglang(client, context, seen, last)
            else:
                asked = await ask(client, context, seen)
            plan = await self._plan(cluster, client, seen, resource.get("status") or {})
        if plan is not None and context is not None:
            await self._scale(plan, context, inputs, seen, api)
        found = self._find(cluster, context, inputs, seen, asked, resource.get("status") or {})
        found = replace(found, scaling=plan.status if plan is not None else None)
        if cluster.spec.engine == "sglang":
            self._start_probe(cluster, context, seen, found.loop)
        else:
            self._start_canary(cluster, inputs, seen, found.loop)
        return self._told(cluster, resource, found, plan.changes if plan is not None else ())

    # --- the parts of a look ----------------------------------------------------------------

    def _context(self, cluster: PDCluster, inputs: Inputs) -> tuple[Inputs, Context | None]:
        if inputs.problem is not None:
            return inputs, None
        try:
            context = context_of(cluster, inputs.connections, inputs.keys, self._settings)
        except ConnectError as error:
            problem = Problem(reason="InvalidConfig", message=f"spec.{error}")
            return replace(inputs, problem=problem), None
        return inputs, context

    async def _apply(self, context: Context, inputs: Inputs, api: Api) -> Inputs:
        """All of it; what is refused for good is the look's problem."""
        live = {
            one["metadata"]["name"]: one
            for one in (await read_deployments(context.cluster, api)).values()
        }
        errors = []
        for manifest in build_pd_cluster(
            context.cluster, inputs.connections, inputs.keys, self._settings
        ):
            wanted = manifest
            if manifest["kind"] == "Deployment":
                wanted = with_live(manifest, live.get(manifest["metadata"]["name"]))
            try:
                await api.apply(wanted)
            except ApiError as error:
                if error.status not in _REFUSED:
                    raise
                errors.append(f"{manifest['kind']} {manifest['metadata']['name']}: {error}")
        if not errors:
            return inputs
        return replace(inputs, problem=Problem(reason="Refused", message="; ".join(errors)))

    async def _plan(
        self, cluster: PDCluster, client: NodeClient, seen: Seen, status: Mapping[str, Any]
    ) -> Plan | None:
        key, autoscaling, now = _key(cluster), cluster.spec.autoscaling, self._now().timestamp()
        routers = router_urls(seen)
        return await self._scaling.plan(key, client, routers, autoscaling, seen, status, now)

    async def _scale(
        self, plan: Plan, context: Context, inputs: Inputs, seen: Seen, api: Api
    ) -> None:
        """A conflict is somebody else's write: the next look decides anew."""
        if not plan.changes:
            return
        manifests = build_pd_cluster(
            context.cluster, inputs.connections, inputs.keys, self._settings
        )
        for manifest in scaled_deployments(plan, manifests, seen):
            await api.apply(manifest)

    def _client(self, inputs: Inputs) -> NodeClient:
        return NodeClient(admin_key=inputs.keys.admin_key, timeout_s=self._settings.node_timeout_s)

    def _find(
        self,
        cluster: PDCluster,
        context: Context | None,
        inputs: Inputs,
        seen: Seen,
        asked: Asked,
        before: Mapping[str, Any],
    ) -> Findings:
        attached, at = self._attachment(cluster, asked.attached, before)
        nodes = [pod for role in ("prefill", "decode") for pod in seen.staying(role)]
        loop_seen = LoopSeen(
            canaries=asked.canaries,
            faults=asked.faults,
            changed_at=max(changed_at(nodes), seconds(at)),
            nodes=frozenset(url for pod in nodes if (url := url_of(pod)) is not None),
            is_changing="the shared cache is being attached" if asked.attached.pending else "",
        )
        loop = judge_loop(
            loop_seen,
            cluster.spec.canary,
            has_cache=cluster.spec.shared_cache_ref is not None,
            now=self._now().timestamp(),
        )
        tokens = asked.tokens
        return Findings(
            ready=judge_ready(cluster, inputs, seen, asked.attached),
            progress=judge_progress(seen),
            loop=loop,
            seen=seen,
            release_tag=context.release_tag if context else before.get("releaseTag", ""),
            revision=context.generation if context else before.get("revision", ""),
            attached_cache=attached,
            attached_at=at,
            hit_rate=tokens.hit_rate if tokens is not None else before.get("hitRate"),
        )

    def _attachment(
        self, cluster: PDCluster, outcome: AttachOutcome, before: Mapping[str, Any]
    ) -> tuple[str, str]:
        """Which cache all nodes have, and since when."""
        reference = cluster.spec.shared_cache_ref
        wanted = reference.name if reference is not None else ""
        was, at = before.get("attachedCache", ""), before.get("attachedAt", "")
        if not outcome.is_whole:
            return "", ""
        if not outcome.attached or (was == wanted and at):
            return was, at
        return wanted, self._now().strftime("%Y-%m-%dT%H:%M:%SZ")

    def _start_canary(self, cluster: PDCluster, inputs: Inputs, seen: Seen, loop: Loop) -> None:
        """The routers have a schedule of their own; this is for what has just changed."""
        urls = router_urls(seen)
        if loop.wants_canary and urls:
            timeout_s = float(cluster.spec.canary.timeout_seconds)
            self._canaries.start(_key(cluster), urls[0], inputs.keys.admin_key, timeout_s)

    def _start_probe(
        self, cluster: PDCluster, context: Context | None, seen: Seen, loop: Loop
    ) -> None:
        """SGLang's router runs no canary: the operator asks it two turns, by schedule too."""
        target = probe_target(context, seen) if context is not None else None
        if cluster.spec.canary.enabled and target is not None:
            canary = cluster.spec.canary
            self._probes.start(_key(cluster), target, canary, is_wanted=loop.wants_canary)

    # --- what is told -----------------------------------------------------------------------

    def _told(
        self, cluster: PDCluster, resource: Manifest, found: Findings, scaled: Sequence[str] = ()
    ) -> Result:
        before = conditions_of(resource.get("status"))
        status = told.status_of(cluster, found, before, self._now())
        is_well = found.ready.status == "True" and not found.loop.wants_canary
        is_still = found.progress.status == "False"
        return Result(
            status=told.as_manifest(status),
            requeue_s=self._settings.resync_s if is_well and is_still else SOON_S,
            events=[
                *(Event(type="Normal", reason="Scaled", message=change) for change in scaled),
                *told.events_of(before, status.conditions),
            ],
        )

    def _invalid(self, resource: Manifest, message: str) -> Result:
        """Pods stay as they are."""
        status, generation = resource.get("status") or {}, resource["metadata"]["generation"]
        before = conditions_of(status)
        conditions = with_condition(
            before,
            type="Ready",
            status="False",
            reason="InvalidConfig",
            message=message,
            generation=generation,
            now=self._now(),
        )
        return Result(
            status={
                **status,
                "observedGeneration": generation,
                "conditions": as_status(conditions),
            },
            requeue_s=self._settings.resync_s,
            events=told.events_of(before, conditions),
        )
