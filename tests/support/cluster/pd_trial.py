"""A PDCluster of the demo model with two SharedCaches, in a namespace of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NODE_IMAGE = os.environ.get("KVLOOP_TEST_NODE_IMAGE", "localhost/kvloop-node:test")
CRDS = Path(__file__).parents[3] / "charts/kvloop/files/crds"
LONG_S = 420.0
"""For anything that comes at last, on a machine that does much else."""
TOLD_S = 30.0
"""For a condition to tell of a fault."""


@dataclass
class PDTrial:
    """kubectl and the operator, as a process beside the test."""

    kubeconfig: Path
    namespace: str
    folder: Path
    operator: subprocess.Popen[bytes] | None = None

    def kubectl(self, *words: str, text: str | None = None) -> str:
        """Its output; AssertionError with its errors."""
        command = ["kubectl", "--kubeconfig", str(self.kubeconfig), "-n", self.namespace, *words]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    def apply(self, *manifests: dict[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "--validate=false", "-f", "-", text=json.dumps(listed))

    def get(self, kind: str, name: str = "", *words: str) -> Any:
        return json.loads(self.kubectl("get", kind, *([name] if name else []), *words, "-o=json"))

    def patch(self, **spec: Any) -> None:
        """Change the PDCluster's spec."""
        self.kubectl("patch", "pdc", "demo", "--type=merge", "-p", json.dumps({"spec": spec}))

    def condition(self, name: str, kind: str = "pdc", of: str = "demo") -> tuple[str, str]:
        """Status and reason; of the generation that there is."""
        found = self.get(kind, of)
        for one in found.get("status", {}).get("conditions", []):
            if one["type"] == name and one["observedGeneration"] == found["metadata"]["generation"]:
                return one["status"], one["reason"]
        return "", ""

    def wait(
        self, check: Callable[[], bool], what: str, within_s: float = LONG_S, pause_s: float = 1.0
    ) -> float:
        """Seconds that it took; the failure shows the cluster's state and the operator's log."""
        began = time.monotonic()
        while not check():
            if time.monotonic() - began > within_s:
                raise AssertionError(f"{what}: not within {within_s:.0f} s\n{self.state()}")
            time.sleep(pause_s)
        return time.monotonic() - began

    def wait_whole(self) -> None:
        """Ready, nothing moves, and a canary of now has seen the loop."""
        self.wait(self.is_whole, "Ready, Complete and ReuseVerified")

    def is_whole(self) -> bool:
        wanted = {"Ready": "True", "Progressing": "False", "ReuseVerified": "True"}
        return all(self.condition(name)[0] == status for name, status in wanted.items())

    def pods(self, role: str) -> list[Any]:
        """Of a role, without those that are going."""
        chosen = f"app.kubernetes.io/component={role}"
        items = self.get("pods", "", "-l", chosen)["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def identities(self) -> set[tuple[str, int]]:
        """Pods of the cluster and how often their containers were started."""
        return {
            (pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"])
            for role in ("prefill", "decode", "router")
            for pod in self.pods(role)
        }

    @property
    def url(self) -> str:
        """Of the Service: this machine is the cluster's node."""
        service = self.get("service", "demo")["spec"]
        return f"http://{service['clusterIP']}:{service['ports'][0]['port']}"

    def state(self) -> str:
        """For people."""
        shown = [self.kubectl("get", "pods,pdc,shc"), self.kubectl("describe", "pdc")[-4000:]]
        return "\n".join([*shown, self.log()[-3000:]])

    def log(self) -> str:
        return (self.folder / "operator.log").read_text()

    def start_operator(self) -> None:
        words = [sys.executable, "-m", "kvloop.operator", "--kubeconfig", str(self.kubeconfig)]
        words += ["--namespace", self.namespace, "--own-namespace", self.namespace]
        words += ["--node-image", NODE_IMAGE, "--port", "0"]
        with (self.folder / "operator.log").open("ab") as log:
            self.operator = subprocess.Popen(words, stdout=log, stderr=log, cwd=self.folder)

    def kill_operator(self) -> None:
        """As a node's death would."""
        if self.operator is not None:
            self.operator.kill()
            self.operator.wait(60)

    def replace_operator(self) -> None:
        """Another one takes over, in the middle of what the killed one did."""
        self.kill_operator()
        self.start_operator()


@contextmanager
def pd_trial(kubeconfig: Path, folder: Path) -> Iterator[PDTrial]:
    """With its operator; all of it is gone in the end."""
    trial = PDTrial(kubeconfig, f"d-{uuid.uuid4().hex[:8]}", folder)
    trial.kubectl("apply", "--validate=false", "-f", str(CRDS))
    trial.kubectl("create", "namespace", trial.namespace)
    try:
        trial.apply(*_volume(trial.namespace), *_caches())
        _make_directory(trial, "mkdir -p -m 777")
        trial.start_operator()
        yield trial
    finally:
        trial.kill_operator()
        trial.kubectl("delete", "pdc,shc", "--all", "--wait=false")
        _make_directory(trial, "rm -rf")
        trial.kubectl("delete", "namespace", trial.namespace, "--timeout=110s")
        trial.kubectl("delete", "pv", trial.namespace, "--ignore-not-found")


def demo(**spec: Any) -> dict[str, Any]:
    """The PDCluster; small, for a machine of two cores."""
    node = {
        "maxTotalTokens": 4096,
        "threads": 1,
        "drainSeconds": 5,
        "resources": {"requests": {"cpu": "150m"}, "limits": {"memory": "3Gi"}},
    }
    return {
        "apiVersion": "kvloop.dev/v1alpha1",
        "kind": "PDCluster",
        "metadata": {"name": "demo"},
        "spec": {
            "model": {"demo": "smollm2"},
            "hicache": {"pageSize": 16, "ratio": 1.0},
            "offload": {"sizeGb": 0.05},
            "sharedCacheRef": {"name": "files"},
            "attachableCaches": [{"name": "files"}, {"name": "pool"}],
            "prefill": node,
            "decode": node,
            "router": {"resources": {"requests": {"cpu": "50m"}}},
            "canary": {"intervalSeconds": 20, "timeoutSeconds": 300},
            **spec,
        },
    }


def _caches() -> list[dict[str, Any]]:
    kind = {"apiVersion": "kvloop.dev/v1alpha1", "kind": "SharedCache"}
    small = {"resources": {"requests": {"cpu": "50m"}}}
    files = {"backend": "file", "file": {"volume": {"persistentVolumeClaim": "files"}}}
    stores = {"segmentSize": "256Mi", **small}
    pool = {"backend": "mooncake", "mooncake": {"masters": small, "stores": stores}}
    return [
        {**kind, "metadata": {"name": "files"}, "spec": files},
        {**kind, "metadata": {"name": "pool"}, "spec": pool},
    ]


def _volume(namespace: str) -> list[dict[str, Any]]:
    """A directory of the node as a claim that many may write."""
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    volume = {
        **common,
        "capacity": {"storage": "2Gi"},
        "hostPath": {"path": f"/tmp/kvloop-{namespace}"},
        "claimRef": {"namespace": namespace, "name": "files"},
    }
    claim = {
        **common,
        "resources": {"requests": {"storage": "1Gi"}},
        "volumeName": namespace,
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": namespace},
            "spec": volume,
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "files"},
            "spec": claim,
        },
    ]


def _make_directory(trial: PDTrial, command: str) -> None:
    """As root on the node: kubelet would make it root's only."""
    container = {
        "name": "shell",
        "image": NODE_IMAGE,
        "command": ["sh", "-ec", f"{command} /host/kvloop-{trial.namespace}"],
        "securityContext": {"runAsUser": 0, "runAsNonRoot": False},
        "volumeMounts": [{"name": "host", "mountPath": "/host"}],
    }
    name = f"directory-{uuid.uuid4().hex[:6]}"
    spec = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "host", "hostPath": {"path": "/tmp"}}],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    trial.apply(pod)
    done = lambda: trial.get("pod", name)["status"].get("phase") == "Succeeded"  # noqa: E731
    trial.wait(done, f"{command} on the node")
    trial.kubectl("delete", "pod", name, "--wait=false")
