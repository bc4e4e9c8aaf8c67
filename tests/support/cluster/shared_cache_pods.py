"""SharedCaches on a real cluster: a pod that uses one, and what its status says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_namespace import Namespace
from running import wait_for

from kvloop.operator.build import pod
from kvloop.operator.connect import connect
from kvloop.operator.parse import parse_shared_cache

SCRIPT = Path(__file__).with_name("page_client.py")
IMAGE = "localhost/kvloop-node:test"
START_S = 240.0
ANSWER_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """One of a namespace."""

    name: str
    space: Namespace

    @property
    def status(self) -> dict[str, Any]:
        """As it is now."""
        found: dict[str, Any] = self.space.get("shc", self.name).get("status") or {}
        return found

    def ready(self) -> tuple[str, str]:
        """Status and reason of condition Ready."""
        for condition in self.status.get("conditions", ()):
            if condition["type"] == "Ready":
                return condition["status"], condition["reason"]
        return "", ""

    def wait(self, *wanted: tuple[str, str], within_s: float = START_S) -> None:
        """Until Ready is one of these."""

        def told() -> bool:
            return self.ready() in wanted

        try:
            wait_for(f"Ready {wanted} of {self.name}", told, within_s)
        except AssertionError as error:
            pods = self.space.kubectl("get", "pods", "-o", "wide")
            raise AssertionError(f"{error}\n{json.dumps(self.status, indent=1)}\n{pods}") from None

    @property
    def leader(self) -> str:
        """The pod of the master that leads; empty: none."""
        members = self.status.get("members", ())
        return next((one["name"] for one in members if one.get("leader")), "")


class PageClient:
    """Its orders; see page_client.py."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def put(self, num_pages: int) -> list[str]:
        """Keys of new pages that were stored."""
        return self._ask(f"put {num_pages}")

    def read(self, keys: Sequence[str]) -> list[str]:
        """Those that are there."""
        return self._ask(f"read {' '.join(keys)}")

    def _ask(self, order: str) -> list[str]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the client ended: {self._process.poll()}"
        found: list[str] = json.loads(line)
        return found


@contextmanager
def page_client(cache: Cache, name: str = "client") -> Iterator[PageClient]:
    """In a pod of its own, connected as a node of a PDCluster is."""
    space = cache.space
    wanted = connect(parse_shared_cache(space.get("shc", cache.name)), {})
    space.apply(json.dumps(_pod(name, wanted.volumes, wanted.mounts)))
    space.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=50s")
    code = ("python", "-c", SCRIPT.read_text(), wanted.backend, json.dumps(wanted.extra_config))
    command = ("kubectl", "--kubeconfig", space.kubeconfig, "-n", space.name, "exec", "-i", name)
    process = subprocess.Popen(
        [*command, "--", *code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield PageClient(process)
    finally:
        process.kill()
        process.communicate()
        space.kubectl("delete", "pod", name, "--grace-period=0", "--force")


def _pod(name: str, volumes: Sequence[Any], mounts: Sequence[Any]) -> dict[str, Any]:
    container = {
        "name": "client",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sleep", "3600"],
        "env": [
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "HOME", "value": "/tmp"},
        ],
        "resources": {"limits": {"memory": "512Mi"}, "requests": {"cpu": "50m"}},
        "securityContext": pod.container_security(),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *mounts],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "securityContext": pod.pod_security(),
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}, *volumes],
        },
    }
