"""The images as a cluster runs them: by whom, with what in them, with nothing writable."""

from __future__ import annotations

import json

import pytest
from cluster.images import Images
from cluster.waiting import wait_until
from cluster_namespace import Namespace

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
LOOK = """
import importlib.util, json, os, subprocess, sys
names = ["torch", "transformers", "mooncake", "sglang", "kopf", "kubernetes", "kvloop.operator"]
def is_there(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False
def can_write(path):
    try:
        open(path, "w").close()
    except OSError:
        return False
    return True
help_ = subprocess.run(["kvloop", "--help"], capture_output=True, text=True)
print(json.dumps({
    "user": os.getuid(), "group": os.getgid(), "home": os.environ["HOME"],
    "has": [name for name in names if is_there(name)],
    "writes": [path for path in ("/opt/venv/x", "/home/kvloop/x") if can_write(path)],
    "help": help_.stdout.splitlines()[:1], "status": help_.returncode,
}))
"""
MODEL = """
from kvloop.engine.model_files import resolve_model
print(resolve_model("smollm2", "bfloat16").directory)
"""
WITHIN_S = 300


def run_pod(namespace: Namespace, image: str, *command: str) -> str:
    """What a restricted pod with a read-only file system printed; the image names its user."""
    rights = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container = {
        "name": "c",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "securityContext": rights,
        "resources": {"requests": {"cpu": "50m"}, "limits": {"memory": "2Gi"}},
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "securityContext": security, "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "look"}, "spec": spec}
    namespace.apply(json.dumps(pod))

    def phase() -> str:
        return str(namespace.get("pod", "look")["status"]["phase"])

    seen = wait_until(
        "the pod's end", phase, lambda now: now in ("Succeeded", "Failed"), within_s=WITHIN_S
    )
    told = namespace.kubectl("logs", "look")
    assert seen == "Succeeded", told
    return told


@pytest.mark.parametrize(
    ("which", "has"),
    [
        ("node", ["torch", "transformers", "mooncake", "kvloop.operator"]),
        ("operator", ["kopf", "kubernetes", "kvloop.operator"]),
    ],
)
def test_a_restricted_pod_runs_kvloop_as_the_images_user_with_what_belongs_to_it(
    namespace: Namespace, images: Images, which: str, has: list[str]
) -> None:
    told = json.loads(run_pod(namespace, getattr(images, which), "python", "-c", LOOK))
    assert told == {
        "user": 65532,
        "group": 65532,
        "home": "/home/kvloop",
        "has": has,
        "writes": [],
        "help": ["usage: kvloop [-h] COMMAND ..."],
        "status": 0,
    }


def test_the_nodes_image_brings_its_model_as_nodes_load_it(
    namespace: Namespace, images: Images
) -> None:
    place = run_pod(namespace, images.node, "python", "-c", MODEL).strip()
    assert place.startswith("/opt/kvloop/models/")
    assert place.endswith("/bfloat16")


def test_the_operators_image_starts_the_operator(namespace: Namespace, images: Images) -> None:
    told = run_pod(namespace, images.operator, "python", "-m", "kvloop.operator", "--help")
    assert "--node-image" in told
