"""A queue before nodes whose number a scaler chooses: what it would see of a real cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kvloop.operator.autoscale.load import Loads, RoleLoad, RoleName
from kvloop.operator.autoscale.plan import Plan, plan_scale
from kvloop.operator.types.cluster_status import AutoscalingStatus
from kvloop.operator.types.pd_cluster import Autoscaling

LOOK_S = 10.0


@dataclass(slots=True, kw_only=True)
class Prefill:
    """Prompts wait for nodes that compute one after another."""

    seconds_each: float
    queue: float = 0.0

    def turn(self, arrivals: float, nodes: int) -> RoleLoad:
        room = nodes * LOOK_S / self.seconds_each
        before, offered = self.queue, self.queue + arrivals
        begun = min(offered, room)
        self.queue = offered - begun
        use = begun / room if room else 1.0
        # What a queue of many random arrivals has at this use, and what lies before them.
        steady_s = self.seconds_each * use / (2 * nodes * max(1 - use, 0.02)) if nodes else 0.0
        wait_s = before * self.seconds_each / max(nodes, 1) + steady_s
        return RoleLoad(
            ready=nodes,
            running=min(int(begun), nodes),
            waiting=int(self.queue),
            begun=begun,
            wait_s=wait_s,
            busy_share=use,
            window_s=LOOK_S,
        )


@dataclass(slots=True, kw_only=True)
class Decode:
    """Requests share a node's steps: tokens take longer the more there are."""

    tokens: float = 100.0
    alone_s: float = 0.02
    each_s: float = 0.002
    pages_each: float = 10.0
    pages: float = 400.0
    running: float = 0.0
    itl_s: float = 0.0

    def turn(self, arrivals: float, nodes: int) -> RoleLoad:
        rate = arrivals / LOOK_S
        running = 0.0
        for _ in range(40):  # the fixed point of Little's law
            self.itl_s = self.alone_s + self.each_s * running / nodes
            running = 0.5 * running + 0.5 * min(rate * self.tokens * self.itl_s, 1e4)
        self.running = running
        share = min(running * self.pages_each / (nodes * self.pages), 1.0)
        return RoleLoad(
            ready=nodes,
            running=round(running),
            begun=arrivals,
            pool_share=share,
            busy_share=min(rate, 1.0),
            window_s=LOOK_S,
        )


@dataclass(slots=True, kw_only=True)
class Scaled:
    """A loop of looks and plans; nodes that are added serve after some looks."""

    autoscaling: Autoscaling
    prefill: Prefill = field(default_factory=lambda: Prefill(seconds_each=0.5))
    decode: Decode = field(default_factory=Decode)
    start_looks: int = 3
    replicas: dict[RoleName, int] = field(default_factory=lambda: {"prefill": 1, "decode": 1})
    status: AutoscalingStatus = field(default_factory=AutoscalingStatus)
    now: float = 1e9
    history: list[dict[RoleName, int]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    _starting: list[tuple[float, RoleName, int]] = field(default_factory=list)

    def run(self, looks: int, rate: Callable[[float], float]) -> None:
        """`rate` of requests a second, by seconds since the run's start."""
        start = self.now
        for _ in range(looks):
            self._look(rate(self.now - start) * LOOK_S)

    def _look(self, arrivals: float) -> None:
        serving = {role: self._serving(role) for role in self.replicas}
        prefill = self.prefill.turn(arrivals, serving["prefill"])
        decode = self.decode.turn(arrivals, serving["decode"])
        busy = arrivals > 0
        loads = Loads(
            roles={"prefill": prefill, "decode": decode},
            ttft_s=prefill.wait_s + self.prefill.seconds_each if busy else None,
            itl_s=self.decode.itl_s if busy else None,
        )
        plan = plan_scale(loads, self.autoscaling, self.replicas, self.status, self.now)
        self._take(plan)
        self.waits.append(prefill.longest_wait_s)
        self.history.append(dict(self.replicas))
        self.now += LOOK_S

    def _take(self, plan: Plan) -> None:
        for role, wanted in plan.replicas.items():
            added = wanted - self.replicas[role]
            if added > 0:
                self._starting.append((self.now + self.start_looks * LOOK_S, role, added))
            self.replicas[role] = wanted
        # As it comes back from the API server.
        self.status = AutoscalingStatus.model_validate(plan.status.model_dump(by_alias=True))
        self.changes += plan.changes

    def _serving(self, role: RoleName) -> int:
        self._starting = [one for one in self._starting if one[0] > self.now]
        coming = sum(count for _, whose, count in self._starting if whose == role)
        return max(self.replicas[role] - coming, 1)
