"""Two Deployments as Kubernetes' controller rolls them, step by step in any order."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from kvloop.operator.rollout import GatedPod, NodeRoleName, Wanted, plan_gates


@dataclass
class SimulatedPod:
    name: str
    generation: str
    runs: bool = False
    is_open: bool = False

    @property
    def is_ready(self) -> bool:
        return self.runs and self.is_open


@dataclass
class SimulatedDeployment:
    """RollingUpdate by readiness; pods begin as `pending`."""

    role: NodeRoleName
    replicas: int
    surge: int
    unavailable: int
    generation: str
    pods: list[SimulatedPod] = field(default_factory=list)
    made: int = 0

    def step(self) -> None:
        """One look of the controller: new pods up, then old ones down."""
        new = [p for p in self.pods if p.generation == self.generation]
        old = [p for p in self.pods if p.generation != self.generation]
        if len(new) > self.replicas:
            self.pods.remove(new[-1])
            return
        room = self.replicas + (self.surge if old else 0) - len(self.pods)
        for _ in range(max(0, min(room, self.replicas - len(new)))):
            self.made += 1
            self.pods.append(SimulatedPod(f"{self.role}-{self.made}", self.generation))
        self._old_down()

    def _old_down(self) -> None:
        new = [p for p in self.pods if p.generation == self.generation]
        least = self.replicas - self.unavailable
        going = len(self.pods) - least - sum(not p.is_ready for p in new)
        for pod in [p for p in self.pods if p.generation != self.generation and not p.is_ready]:
            if going > 0:
                self.pods.remove(pod)
                going -= 1
        spare = sum(p.is_ready for p in self.pods) - least
        for pod in [p for p in self.pods if p.generation != self.generation and p.is_ready]:
            if spare > 0 and going > 0:
                self.pods.remove(pod)
                spare, going = spare - 1, going - 1

    @property
    def is_done(self) -> bool:
        """All pods are new and ready."""
        ready = [p for p in self.pods if p.generation == self.generation and p.is_ready]
        return len(ready) == len(self.pods) == self.replicas


@dataclass
class SimulatedCluster:
    """Both roles, and the operator that opens gates."""

    prefill: SimulatedDeployment
    decode: SimulatedDeployment

    @property
    def roles(self) -> tuple[SimulatedDeployment, SimulatedDeployment]:
        return self.prefill, self.decode

    def roll(self, role: SimulatedDeployment, generation: str) -> None:
        """The API server takes one Deployment's new template; the other's comes later."""
        role.generation = generation

    def open_gates(self, generation: str) -> None:
        """One look of the operator."""
        pods = [
            GatedPod(
                name=p.name,
                role=one.role,
                generation=p.generation,
                runs=p.runs,
                is_open=p.is_open,
            )
            for one in self.roles
            for p in one.pods
        ]
        wanted = Wanted(
            generation=generation,
            replicas={one.role: one.replicas for one in self.roles},
            max_unavailable=self.prefill.unavailable,
        )
        opened = plan_gates(pods, wanted)
        for one in self.roles:
            for pod in one.pods:
                pod.is_open = pod.is_open or pod.name in opened

    def start_one(self, random: Random) -> None:
        """A pod that was pending runs."""
        pending = [p for one in self.roles for p in one.pods if not p.runs]
        if pending:
            random.choice(pending).runs = True

    def kill_one(self, random: Random) -> None:
        """A pod is gone at once."""
        one = random.choice(self.roles)
        if one.pods:
            one.pods.remove(random.choice(one.pods))

    @property
    def serves(self) -> bool:
        """In each role as many pods run as must, with a running peer of their generation."""
        running = [{p.generation for p in one.pods if p.runs} for one in self.roles]
        both = running[0] & running[1]
        paired = [sum(p.runs and p.generation in both for p in one.pods) for one in self.roles]
        needed = [one.replicas - one.unavailable for one in self.roles]
        return all(there >= must for there, must in zip(paired, needed, strict=True))

    @property
    def is_done(self) -> bool:
        return all(one.is_done for one in self.roles)
