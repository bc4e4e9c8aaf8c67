"""What an engine process is made of: model, pools, shared cache, metrics, identity."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from kvloop.engine.event_recorder import EventRecorder
from kvloop.engine.host_size import host_size
from kvloop.engine.kv_pool import KVPool
from kvloop.engine.loaded_model import LoadedModel, load_engine_model
from kvloop.engine.metrics import NodeMetrics
from kvloop.engine.node_config import NodeConfig
from kvloop.engine.page_mover import PageMover, make_mover
from kvloop.engine.transformer import Transformer
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.guard import GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.manifest import Manifest
from kvloop.shared_cache.memory_limit import available_memory
from kvloop.shared_cache.namespace import NamespaceSpec
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.page_store import PageStore
from kvloop.shared_cache.pod_variables import expanded


@dataclass(frozen=True, slots=True)
class Identity:
    """Which nodes this one may exchange pages with, and which start of it this is."""

    incarnation: str
    namespace: str
    generation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeParts:
    """Built once at the start of an engine process."""

    config: NodeConfig
    loaded: LoadedModel
    kv: KVPool
    """L1."""
    pool: HostPool
    """L2; on decode it only stages pages on their way to L3."""
    mover: PageMover
    """Between the two."""
    shape: PageShape
    store: PageStore
    metrics: NodeMetrics
    identity: Identity
    events: EventRecorder | None = None
    """Observes the tree's tiers; None: nobody is told."""

    @property
    def model(self) -> Transformer:
        return self.loaded.model

    @property
    def enough_tokens(self) -> int:
        """Prompt tokens that keep the device busy in one step: a CPU is at 64, a GPU at a chunk."""
        return 128 if self.kv.device.type == "cpu" else self.config.chunk_tokens

    @property
    def num_layers(self) -> int:
        return self.loaded.config.layers

    @property
    def max_context(self) -> int:
        """Tokens, prompt and answer together."""
        limit = self.loaded.config.max_position_embeddings
        return min(self.config.context_length or limit, limit)

    def device_mark(self) -> Callable[[], None]:
        """A wait for all that the device was told up to now."""
        if self.kv.device.type != "cuda":
            return _nothing
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return event.synchronize

    def render_metrics(self) -> bytes:
        """The exposition text, the shared cache's counters included."""
        self.metrics.take_storage(self.store.counters.snapshot(), self.store.status())
        return self.metrics.render()


def _nothing() -> None:
    return None


def build_parts(config: NodeConfig, events: EventRecorder | None = None) -> NodeParts:
    """Load the model and make the pools; raises ConfigError for what the user must change."""
    loaded = load_engine_model(
        config.model,
        dtype=config.dtype,
        load_format=config.load_format,
        device=config.device,
        seed=config.seed,
    )
    if config.context_length and config.context_length > loaded.config.max_position_embeddings:
        raise ConfigError(
            f"--context-length {config.context_length} is over the model's "
            f"{loaded.config.max_position_embeddings}"
        )
    kv = KVPool(loaded.config, config.num_pages, config.page_size, loaded.dtype, loaded.device)
    shape = PageShape(
        num_layers=loaded.config.layers,
        page_size=config.page_size,
        num_kv_heads=loaded.config.kv_heads,
        head_size=loaded.config.head_size,
        itemsize=loaded.dtype.itemsize,
        codec=config.hicache_codec,
    )
    pool, staging = _host_pools(config, shape, kv)
    namespace = _namespace(config, loaded)
    metrics = NodeMetrics()
    store = PageStore(
        _guard(config, staging or pool, _manifest(config, loaded, shape, namespace)),
        pool,
        namespace=namespace,
        writer=config.role,
        staging=staging,
    )
    identity = Identity(secrets.token_hex(8), namespace.hex(), config.generation)
    return NodeParts(
        config=config,
        loaded=loaded,
        kv=kv,
        pool=pool,
        mover=make_mover(kv, pool, config.hicache_io_backend),
        shape=shape,
        store=store,
        metrics=metrics,
        identity=identity,
        events=events,
    )


def _host_pools(
    config: NodeConfig, shape: PageShape, kv: KVPool
) -> tuple[HostPool, HostPool | None]:
    """L2, and what its pages are converted through where they are no page objects."""
    # The device pool of a CPU is memory that nothing has touched yet.
    reserved = kv.num_bytes if kv.device.type == "cpu" else 0
    size = host_size(config, shape, available=available_memory(), reserved=reserved)
    pool = HostPool(shape, size.num_slots, size.layout)
    staging = HostPool(shape, size.num_staging) if size.num_staging else None
    return pool, staging


def _guard(config: NodeConfig, pool: HostPool, manifest: Manifest) -> GuardedBackend:
    name, namespace = config.hicache_storage_backend, bytes.fromhex(manifest.namespace)
    if name is None:
        return GuardedBackend(None, pool, name="none", namespace=namespace, manifest=manifest)
    opener = backend_opener(
        name,
        expanded(config.hicache_storage_backend_extra_config),
        pool,
        namespace,
        config.hicache_dynamic_modules,
    )
    return GuardedBackend(opener, pool, name=name, namespace=namespace, manifest=manifest)


def _namespace(config: NodeConfig, loaded: LoadedModel) -> bytes:
    return NamespaceSpec(
        model_config=loaded.config.identity(),
        weights_fingerprint=loaded.fingerprint,
        kv_dtype=_dtype_name(loaded),
        page_size=config.page_size,
        codec=config.hicache_codec,
        release_tag=config.release_tag,
    ).digest()


def _manifest(
    config: NodeConfig, loaded: LoadedModel, shape: PageShape, namespace: bytes
) -> Manifest:
    return Manifest(
        namespace=namespace.hex(),
        shape=shape,
        model=config.served_model_name or Path(config.model).name,
        kv_dtype=_dtype_name(loaded),
        release_tag=config.release_tag,
    )


def _dtype_name(loaded: LoadedModel) -> str:
    return str(loaded.dtype).removeprefix("torch.")
