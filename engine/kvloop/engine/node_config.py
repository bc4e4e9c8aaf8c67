"""What one prefill or decode node is told at its start; fields are the command's flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.hicache_names import (
    BackPressure,
    Codec,
    EvictionPolicy,
    HostLayout,
    OffloadPolicy,
    PrefetchPolicy,
    WritePolicy,
)

DType = Literal["auto", "bfloat16", "float32"]
IOBackend = Literal["kernel", "direct"]
_NOT_NEGATIVE = (
    "hicache_prefetch_threshold",
    "hicache_prefetch_timeout_base",
    "hicache_prefetch_timeout_per_ki_token",
    "offload_retries",
    "finish_timeout_s",
)
_POSITIVE = (
    "page_size",
    "max_total_tokens",
    "max_running_requests",
    "max_queued_requests",
    "chunked_prefill_size",
    "hicache_ratio",
    "hicache_size",
    "hicache_write_through_threshold",
    "hicache_prefetch_cap_s",
    "hicache_prefetch_share",
    "hand_off_stall_s",
    "reserve_timeout_s",
    "offload_staging_pages",
    "offload_deadline_s",
    "drain_timeout_s",
)


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One node's settings; errors name the flag."""

    role: Literal["prefill", "decode"]
    model: str
    """Directory, FILE.gguf, or `smollm2`."""
    served_model_name: str = ""
    host: str = "127.0.0.1"
    port: int = 30000
    dtype: DType = "auto"
    load_format: Literal["auto", "dummy"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    page_size: int = 64
    max_total_tokens: int = 32768
    """Tokens that the device pool (L1) holds."""
    max_running_requests: int = 16
    max_queued_requests: int = 256
    chunked_prefill_size: int = 512
    """Tokens one prefill step computes at most."""
    context_length: int | None = None
    threads: int | None = None
    hicache_ratio: float = 2.0
    """Prefill: host pages (L2) for each device page, where `hicache_size` is not given."""
    hicache_size: float | None = None
    """GB of host memory (L2); unset: by ratio on prefill, half a GB of staging on decode."""
    hicache_write_policy: WritePolicy = "write_through"
    hicache_write_through_threshold: int = 2
    """Uses of a page that make write_through_selective copy it."""
    hicache_io_backend: IOBackend = "kernel"
    hicache_mem_layout: HostLayout = "page_first_direct"
    hicache_codec: Codec = "none"
    hicache_storage_backend: str | None = None
    hicache_storage_backend_extra_config: dict[str, Any] = {}
    hicache_dynamic_modules: tuple[str, ...] = ()
    """Modules that a `dynamic` backend may be loaded from; none: no `dynamic`."""
    hicache_storage_prefetch_policy: PrefetchPolicy = "best_effort"
    hicache_prefetch_threshold: int = 1
    """Tokens: a shorter rest of a prompt is not looked for in L3."""
    hicache_prefetch_timeout_base: float = 1.0
    """Seconds that policy timeout waits at most, and for each 1,024 tokens in addition:"""
    hicache_prefetch_timeout_per_ki_token: float = 0.25
    hicache_prefetch_cap_s: float = 30.0
    """Seconds that wait_complete waits at most."""
    hicache_prefetch_share: float = 0.5
    """Share of L2 that pages on their way from L3 may hold."""
    hicache_tenant_quotas: dict[str, int] = {}
    """Tenant to host pages (L2); `*`: every tenant that is not named."""
    radix_eviction_policy: EvictionPolicy = "lru"
    hicache_eviction_policy: EvictionPolicy | None = None
    """Of L2; unset: as L1."""
    router: tuple[str, ...] = ()
    advertise_url: str | None = None
    transfer_host: str = "127.0.0.1"
    transfer_protocol: Literal["tcp", "rdma"] = "tcp"
    transfer_device: str = ""
    generation: str = ""
    zone: str = ""
    release_tag: str = ""
    node_secret_file: str | None = None
    admin_api_key: str | None = None
    log_level: str = "info"
    seed: int = 0
    hand_off_stall_s: float = 10.0
    """Decode: silence after which a prefill attempt is given up."""
    reserve_timeout_s: float = 60.0
    """Decode: a request that got no pages for so long is answered 429."""
    offload_policy: OffloadPolicy = "answer"
    """Decode: which of its full pages deserve storing."""
    offload_staging_pages: int | None = None
    """Decode: host pages on their way to L3 at once; unset: all of its host pool."""
    offload_back_pressure: BackPressure = "delay"
    """Decode: what happens to a full page while all staging is in use."""
    offload_retries: int = 4
    """Decode: further attempts at a page that L3 did not take, with growing pauses."""
    offload_deadline_s: float = 10.0
    """Decode: so long after a request's end what is not stored of it is given up."""
    tail_objects: bool = False
    """Decode stores the last partial page of a finished turn, prefill looks for it."""
    finish_timeout_s: float = 0.0
    """How long SIGTERM waits for answers that have begun; new ones are refused meanwhile."""
    drain_timeout_s: float = 20.0
    """How long SIGTERM waits for full pages to be stored."""
    kv_events_config: dict[str, Any] = {}
    """How page-stored and page-removed events are published; vLLM's field names."""

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"--{_flag(name)} must be above 0, got {value}")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ConfigError(f"--{_flag(name)} must not be below 0, got {getattr(self, name)}")
        if self.hicache_prefetch_share > 1:
            raise ConfigError(
                "--hicache-prefetch-share is a share of L2: above 0 and at most 1, "
                f"got {self.hicache_prefetch_share}"
            )
        for tenant, pages in self.hicache_tenant_quotas.items():
            # bool is a kind of int
            if type(pages) is not int or pages < 0:
                raise ConfigError(
                    f"--hicache-tenant-quotas: {tenant!r} must have a whole number of pages, "
                    f"0 or above, got {pages!r}"
                )
        if self.page_size & (self.page_size - 1):
            raise ConfigError(f"--page-size must be a power of two, got {self.page_size}")
        if self.max_total_tokens < 2 * self.page_size:
            raise ConfigError(
                f"--max-total-tokens must hold two pages of {self.page_size} tokens at least, "
                f"got {self.max_total_tokens}"
            )

    @property
    def url(self) -> str:
        """Where other parts reach this node."""
        return (self.advertise_url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def num_pages(self) -> int:
        return self.max_total_tokens // self.page_size

    @property
    def chunk_tokens(self) -> int:
        """A whole number of pages, so that only a prompt's last chunk ends inside one."""
        return max(self.chunked_prefill_size // self.page_size, 1) * self.page_size

    def node_secret(self) -> str | None:
        """The secret that nodes share, from its file; None where none is set."""
        return read_secret(self.node_secret_file)


def _flag(name: str) -> str:
    return name.replace("_", "-")


def read_secret(path: str | None) -> str | None:
    """Read `--node-secret-file`; raises ConfigError when it is missing or empty."""
    if path is None:
        return None
    try:
        secret = Path(path).read_text().strip()
    except OSError as error:
        raise ConfigError(f"--node-secret-file {path}: {error.strerror}") from error
    if not secret:
        raise ConfigError(f"--node-secret-file {path} is empty; it must hold the shared secret")
    return secret
