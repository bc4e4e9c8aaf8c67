"""The Helm chart, rendered without a cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[2] / "charts" / "kvloop"
RELEASE = "kvloop"
NAMESPACE = "kvloop-system"
MONITORING = "monitoring.coreos.com/v1"
OLD = ("policy/v1beta1/PodDisruptionBudget", "batch/v1beta1/CronJob")
NEW = ("policy/v1/PodDisruptionBudget", "batch/v1/CronJob")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Ten times as fast, where PyYAML was built with it."""
Manifest = dict[str, Any]


def rendered(
    values: Mapping[str, Any] | None = None,
    *,
    version: str = "v1.27.0",
    apis: Sequence[str] = NEW,
    release: str = RELEASE,
    namespace: str = NAMESPACE,
) -> dict[str, str]:
    """Text by template, for a cluster of that version with those APIs beside the common ones."""
    import helm_python
    from helm_python import _native

    options = {
        "name": release,
        "namespace": namespace,
        "kube_version": version,
        "api_versions": list(apis),
    }
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(dict(values or {}))
        # Chart.render hands on neither version nor APIs; the library below it takes both.
        text = _native.call_string(
            "helm_render", chart._raw(), json.dumps(values or {}), json.dumps(options)
        )
    found: dict[str, str] = json.loads(text)
    return {name.removeprefix("kvloop/templates/"): text for name, text in found.items()}


def manifests(values: Mapping[str, Any] | None = None, **cluster: Any) -> list[Manifest]:
    """All objects of all templates, the test's pod too."""
    return [
        document
        for name, text in rendered(values, **cluster).items()
        if name.endswith(".yaml")
        for document in yaml.load_all(text, LOADER)
        if document
    ]


def of_kind(found: Sequence[Manifest], kind: str) -> list[Manifest]:
    """Those of one kind."""
    return [one for one in found if one["kind"] == kind]


def only(found: Sequence[Manifest], kind: str) -> Manifest:
    """The one of its kind."""
    matches = of_kind(found, kind)
    assert len(matches) == 1, [one["metadata"]["name"] for one in matches]
    return matches[0]


def defaults() -> dict[str, Any]:
    """values.yaml."""
    values: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return values


def pod_specs(found: Sequence[Manifest]) -> list[tuple[str, Manifest]]:
    """(kind/name, pod spec) of everything that runs pods."""
    return [
        (f"{one['kind']}/{one['metadata']['name']}", spec)
        for one in found
        if (spec := pod_spec(one)) is not None
    ]


def pod_spec(manifest: Manifest) -> Manifest | None:
    """Of a pod, or of what makes pods."""
    spec = manifest.get("spec")
    if manifest["kind"] == "Pod":
        return spec
    if manifest["kind"] == "CronJob" and spec:
        spec = spec["jobTemplate"]["spec"]
    template = (spec or {}).get("template")
    return template.get("spec") if isinstance(template, dict) else None
