"""What one prefill or decode node is told at its start; fields are the command's flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from kvloop.shared_cache.errors import ConfigError

DType = Literal["auto", "bfloat16", "float32"]
_POSITIVE = (
    "page_size",
    "max_total_tokens",
    "max_running_requests",
    "max_queued_requests",
    "chunked_prefill_size",
    "hicache_size",
    "hand_off_stall_s",
    "reserve_timeout_s",
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
    hicache_size: float = 0.5
    """GB of host memory for the pool between device and shared cache."""
    hicache_storage_backend: str | None = None
    hicache_storage_backend_extra_config: dict[str, Any] = {}
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

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} must be above 0, got {getattr(self, name)}")
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
