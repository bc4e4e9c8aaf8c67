"""Of a MultiTurnBenchmark: its Job, what the Job may write, and the ConfigMap that it writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from kvloop.operator.build import pod
from kvloop.operator.build.owned import owned
from kvloop.operator.names import labels
from kvloop.operator.settings import Settings
from kvloop.operator.types.benchmark import MultiTurnBenchmark, Workload, WorkloadFile

KIND = "MultiTurnBenchmark"
CONTAINER = "bench"
RUN = "kvloop.dev/run"
"""Label of a run's Job and pod, annotation of its ConfigMap: which spec it is of."""
INPUT_DIR = "/input"
STOP_S = 90
"""A run that is stopped still writes its report: 60 s for the ConfigMap, and some for the page."""
_NOT_OF_A_RUN = {"ttlSecondsAfterFinished", "deleteAfterSeconds"}

Manifest = dict[str, Any]


def digest(benchmark: MultiTurnBenchmark) -> str:
    """Names a run: of equal ones there is one, of one resource and one spec."""
    spec = benchmark.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    kept = {name: value for name, value in spec.items() if name not in _NOT_OF_A_RUN}
    text = json.dumps([benchmark.metadata.uid, kept], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def job_name(benchmark: MultiTurnBenchmark) -> str:
    """A label's length at most: pods carry it as one."""
    return f"{benchmark.metadata.name[:50].rstrip('-.')}-{digest(benchmark)}"


def report_name(benchmark: MultiTurnBenchmark) -> str:
    """Of the ConfigMap."""
    return f"{benchmark.metadata.name}-report"


def account_name(benchmark: MultiTurnBenchmark) -> str:
    """Of the ServiceAccount, its Role and their RoleBinding."""
    return f"{benchmark.metadata.name}-bench"


def run_labels(benchmark: MultiTurnBenchmark) -> dict[str, str]:
    """Of the Job and its pod."""
    return _labels(benchmark) | {RUN: digest(benchmark)}


def build_report(benchmark: MultiTurnBenchmark) -> Manifest:
    """Empty and to be created: the Job fills it, and whom it belongs to stays as it is."""
    return _owned(
        benchmark,
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": report_name(benchmark),
                "labels": _labels(benchmark),
                "annotations": {RUN: digest(benchmark)},
            },
        },
    )


def build_rights(benchmark: MultiTurnBenchmark) -> list[Manifest]:
    """To be applied: the Job's pod may change its own ConfigMap, and nothing else."""
    metadata = {"name": account_name(benchmark), "labels": _labels(benchmark)}
    rule = {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": [report_name(benchmark)],
        "verbs": ["patch"],
    }
    rbac, group = "rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io"
    binding = {
        "roleRef": {"apiGroup": group, "kind": "Role", "name": metadata["name"]},
        "subjects": [
            {
                "kind": "ServiceAccount",
                "name": metadata["name"],
                "namespace": benchmark.metadata.namespace,
            }
        ],
    }
    manifests: list[Manifest] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": rbac, "kind": "Role", "metadata": metadata, "rules": [rule]},
        {"apiVersion": rbac, "kind": "RoleBinding", "metadata": metadata, **binding},
    ]
    return [_owned(benchmark, manifest) for manifest in manifests]


def build_job(benchmark: MultiTurnBenchmark, url: str, settings: Settings) -> Manifest:
    """To be created: a Job is never changed. `url` is where the load goes."""
    spec = benchmark.spec
    template = {
        "metadata": {"labels": run_labels(benchmark)},
        "spec": _pod(benchmark, url, settings),
    }
    return _owned(
        benchmark,
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": job_name(benchmark), "labels": run_labels(benchmark)},
            "spec": {
                "backoffLimit": 0,  # a run that failed is a result, too
                "activeDeadlineSeconds": spec.timeout_seconds,
                "template": pod.overlaid(template, spec.pod_template),
            },
        },
    )


def command(benchmark: MultiTurnBenchmark, url: str) -> list[str]:
    """What the container runs."""
    spec = benchmark.spec
    words = ["kvloop", "bench", spec.workload.kind, url, f"--seed={spec.workload.seed}"]
    words.append(f"--config-map={report_name(benchmark)}")
    if spec.target.model is not None:
        words.append(f"--model={spec.target.model}")
    if spec.arms:
        words.append(f"--arms={','.join(spec.arms)}")
    if spec.repeats is not None:
        words.append(f"--rounds={spec.repeats}")
    return [*words, *_workload_flags(spec.workload), *spec.extra_args]


def _workload_flags(workload: Workload) -> Iterator[str]:
    if workload.file is not None:
        yield f"--{workload.kind}={INPUT_DIR}/{workload.file.path}"
    for flag, value in workload.flags.items():
        yield f"--{flag}={value}" if value else f"--{flag}"


def _pod(benchmark: MultiTurnBenchmark, url: str, settings: Settings) -> Manifest:
    spec = benchmark.spec
    return {
        "restartPolicy": "Never",
        "serviceAccountName": account_name(benchmark),
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": STOP_S,
        "securityContext": pod.pod_security(),
        "containers": [_container(benchmark, url, settings)],
        "volumes": [{"name": "tmp", "emptyDir": {}}, *_input_volume(spec.workload.file)],
        **pod.scheduling(spec),
        **pod.pull_secrets(spec.image),
    }


def _container(benchmark: MultiTurnBenchmark, url: str, settings: Settings) -> Manifest:
    spec = benchmark.spec
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    if spec.workload.file is not None:
        mounts.append({"name": "input", "mountPath": INPUT_DIR})
    return {
        "name": CONTAINER,
        "image": spec.image.reference or settings.node_image,
        "imagePullPolicy": spec.image.pull_policy,
        "command": command(benchmark, url),
        # What the parser refuses is in no termination message: the last lines of the log say it.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "env": [*_environment(benchmark), *spec.env],
        "resources": pod.resources(spec.resources),
        "securityContext": pod.container_security(),
        "volumeMounts": mounts,
    }


def _environment(benchmark: MultiTurnBenchmark) -> Iterator[Manifest]:
    """Without KVLOOP_JOB_NAME: the ConfigMap is the resource's, and outlives the Job."""
    yield {"name": "KVLOOP_TERMINATION_LOG", "value": "/dev/termination-log"}
    yield {"name": "HOME", "value": "/tmp"}
    if (secret := benchmark.spec.target.api_key_secret) is not None:
        source = {"secretKeyRef": {"name": secret.name, "key": secret.key}}
        yield {"name": "KVLOOP_API_KEY", "valueFrom": source}


def _input_volume(file: WorkloadFile | None) -> Iterator[Manifest]:
    if file is None:
        return
    if file.volume is not None:
        yield {"name": "input", **pod.volume_source(file.volume, read_only=True)}
    else:
        yield {"name": "input", "configMap": {"name": file.config_map}}


def _labels(benchmark: MultiTurnBenchmark) -> dict[str, str]:
    return labels(kind="mtb", name=benchmark.metadata.name, component="benchmark")


def _owned(benchmark: MultiTurnBenchmark, manifest: Manifest) -> Manifest:
    return owned(manifest, KIND, benchmark.metadata)
