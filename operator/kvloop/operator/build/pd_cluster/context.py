"""What the manifests of one PDCluster have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kvloop.operator.build.sglang.revision import sglang_generation
from kvloop.operator.build.sglang.storage import Storage, storage_of
from kvloop.operator.connect.merged import Merged, merged
from kvloop.operator.connection import Connection
from kvloop.operator.names import ROUTER_PORT, labels
from kvloop.operator.revision import generation, release_tag
from kvloop.operator.settings import Settings
from kvloop.operator.types.base import LocalReference
from kvloop.operator.types.pd_cluster import PDCluster, PDClusterSpec

SHORT = "pdc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What opens nodes and routers; never shown."""

    admin_key: str
    node_secret: str

    @property
    def digest(self) -> str:
        """Changes when one of them does. Keyed by the random one, so that it tells nothing."""
        text = f"{self.node_secret}\0{self.admin_key}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One PDCluster and what was derived of it."""

    cluster: PDCluster
    settings: Settings
    keys: Keys
    caches: Merged
    """What pods have for all attachable caches."""
    attached: Connection | None
    release_tag: str
    generation: str
    storage: Storage | None = None
    """Of engine sglang: `attached` in its words."""

    @property
    def name(self) -> str:
        return self.cluster.metadata.name

    @property
    def spec(self) -> PDClusterSpec:
        return self.cluster.spec

    @property
    def image(self) -> str:
        return self.spec.image.reference or self.settings.node_image

    @property
    def router_url(self) -> str:
        """Its name resolves to every router pod, also before they are ready."""
        return f"http://{peers_name(self.name)}.{self.cluster.metadata.namespace}.svc:{ROUTER_PORT}"

    def labels(self, component: str) -> dict[str, str]:
        """Of an object of this cluster."""
        return labels(kind=SHORT, name=self.name, component=component)


def context_of(
    cluster: PDCluster, connections: Mapping[str, Connection], keys: Keys, settings: Settings
) -> Context:
    """ConnectError where the caches cannot be in one pod, or the engine cannot use them."""
    spec = cluster.spec
    image = spec.image.reference or settings.node_image
    caches = merged([connections[one.name] for one in attachable(spec)])
    reference = spec.shared_cache_ref
    context = Context(
        cluster=cluster,
        settings=settings,
        keys=keys,
        caches=caches,
        attached=connections[reference.name] if reference is not None else None,
        release_tag=release_tag(spec),
        generation=generation(spec, image, caches, keys.digest),
    )
    return _of_sglang(context) if spec.engine == "sglang" else context


def _of_sglang(context: Context) -> Context:
    spec, attached, storage = context.spec, context.attached, None
    if attached is not None:
        storage = storage_of(attached, context.release_tag, spec)
    made = sglang_generation(spec, context.generation, storage)
    return replace(context, storage=storage, generation=made)


def attachable(spec: PDClusterSpec) -> list[LocalReference]:
    """The caches that pods are made for."""
    if spec.attachable_caches or spec.shared_cache_ref is None:
        return list(spec.attachable_caches)
    return [spec.shared_cache_ref]


def peers_name(cluster: str) -> str:
    """The headless Service of the router's pods."""
    return f"{cluster}-router-peers"


def keys_name(cluster: str) -> str:
    """The Secret of keys."""
    return f"{cluster}-keys"


def attach_name(cluster: str) -> str:
    """The Secret of what pods attach when they start."""
    return f"{cluster}-attach"
