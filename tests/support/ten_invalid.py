"""Ten resources that are not right, and what their users see."""

from __future__ import annotations

from dataclasses import dataclass

HEAD = "apiVersion: kvloop.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invalid:
    """One of them."""

    kind: str
    name: str
    spec: str
    """YAML in one line of flow."""
    said: str
    """By `kubectl apply` where the schema refuses it, else in the resource's condition."""
    is_refused: bool = False
    """By the schema, on every version of Kubernetes."""
    is_quantity: bool = False
    """About quantities, which CEL of older clusters cannot compare: told by the operator alone."""

    @property
    def manifest(self) -> str:
        """As a user applies it."""
        return HEAD.format(kind=self.kind, name=self.name) + f"  {self.spec}\n"


TEN = (
    Invalid(
        kind="PDCluster",
        name="misspelt",
        spec="{model: {demo: smollm2}, hicach: {pageSize: 16}}",
        said='unknown field "hicach"',
        is_refused=True,
    ),
    Invalid(
        kind="PDCluster",
        name="no-model",
        spec="{prefill: {replicas: 2}}",
        said='missing required field "model"',
        is_refused=True,
    ),
    Invalid(
        kind="PDCluster",
        name="policy",
        spec="{model: {demo: smollm2}, hicache: {writePolicy: write-through}}",
        said='spec.hicache.writePolicy: Unsupported value: "write-through": supported values: '
        '"write_through", "write_through_selective", "write_back"',
        is_refused=True,
    ),
    Invalid(
        kind="PDCluster",
        name="port",
        spec="{model: {demo: smollm2}, router: {port: 70000}}",
        said="spec.router.port in body should be less than or equal to 65535",
        is_refused=True,
    ),
    Invalid(
        kind="SharedCache",
        name="memory",
        spec="{backend: mooncake, mooncake: {stores: {segmentSize: 4 GB}}}",
        said="spec.mooncake.stores.segmentSize in body should match "
        r"'^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$'",
        is_refused=True,
    ),
    Invalid(
        kind="SharedCache",
        name="segment",
        spec="{backend: mooncake, mooncake: {stores: {segmentSize: 4Gi, "
        "resources: {limits: {memory: 4Gi}}}}}",
        said="spec.mooncake.stores.resources.limits.memory: the memory limit must be 256Mi above "
        "segmentSize at least: raise it, or leave it out",
        is_quantity=True,
    ),
    Invalid(
        kind="SharedCache",
        name="masters",
        spec="{backend: mooncake, mooncake: {masters: {replicas: 3}, stores: {}}}",
        said="spec.mooncake.masters.replicas: masters without highAvailability know nothing of "
        "each other: set replicas to 1, or highAvailability to lease or etcd",
    ),
    Invalid(
        kind="PDCluster",
        name="elsewhere",
        spec="{model: {demo: smollm2}, sharedCacheRef: {name: fast}, "
        "attachableCaches: [{name: files}]}",
        said="spec.sharedCacheRef.name: sharedCacheRef must be one of attachableCaches, whose "
        "volumes the pods mount; add it there (pods are replaced once), or leave "
        "attachableCaches empty",
    ),
    Invalid(
        kind="PDCluster",
        name="flags",
        spec='{model: {demo: smollm2}, prefill: {extraArgs: ["--page-size=32"]}}',
        said="spec.prefill.extraArgs: extraArgs must not set what fields of the resource or the "
        "operator set, such as --model, --page-size, --release-tag or "
        "--hicache-storage-backend: nodes would disagree; use the fields",
    ),
    Invalid(
        kind="MultiTurnBenchmark",
        name="targets",
        spec='{target: {clusterRef: {name: demo}, url: "http://elsewhere:8000"}}',
        said="spec.target: set exactly one of clusterRef and url",
    ),
)
