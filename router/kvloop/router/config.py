"""What the router is told at launch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kvloop.shared_cache.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterConfig:
    """Checked once, at construction; raises ConfigError naming the flag."""

    host: str = "127.0.0.1"
    port: int = 8000
    model: str | None = None
    """Directory or GGUF file of the tokenizer; None: the first ready node's model_path."""
    served_model_name: str | None = None
    """The name clients ask for; None: the first ready node's model."""
    prefill: tuple[str, ...] = ()
    """URLs of prefill nodes to poll; more may register by heartbeat."""
    decode: tuple[str, ...] = ()
    """URLs of decode nodes to poll; more may register by heartbeat."""
    api_keys: str | None = None
    """File of API keys and their tenants; None: no key is asked for."""
    admin_api_key: str | None = None
    """Bearer key of the router's admin calls; None: they are refused."""
    node_secret_file: str | None = None
    """File whose content nodes must send, and which is sent to nodes."""
    max_queued: int = 1024
    """Prompts in flight, all endpoints together; more get 429."""
    request_timeout_s: float = 600.0
    """From arrival to the last token."""
    finish_timeout_s: float = 5.0
    """How long SIGTERM waits for requests that are open."""
    settle_s: float = 0.0
    """How long SIGTERM goes on taking requests before that, until balancers know of it."""
    max_body_bytes: int = 4 << 20
    connect_timeout_s: float = 2.0
    """To open a connection to a node."""
    stall_timeout_s: float = 15.0
    """Silence after which a request whose node no longer answers is given up."""
    node_expiry_s: float = 5.0
    """A node that was not heard of for so long gets no requests."""
    poll_interval_s: float = 1.0
    """Between two looks at a node named by URL."""
    index_pages: int = 400_000
    """Page keys whose holders the router remembers."""
    history_tokens: int = 8_000_000
    """Token ids of past chats that the router remembers, 4 bytes each."""
    history_read_s: float = 0.1
    """A prompt waits no longer for an earlier answer's ids from the shared cache."""
    session_horizon_s: float = 900.0
    """A session whose next turn takes longer counts as one that did not return."""
    zone: str = ""
    """The router's own zone: decode nodes in it are preferred."""
    hicache_storage_backend: str | None = None
    """The shared cache, for the records by which any router finds an answer's ids; None: none."""
    hicache_storage_backend_extra_config: Mapping[str, Any] = field(default_factory=dict)
    hicache_dynamic_modules: tuple[str, ...] = ()
    kv_events: bool = True
    """Whether the index follows the nodes' KV events, besides what was routed."""
    canary_interval_s: float = 0.0
    """Seconds between two canaries of the router's own accord; 0: on demand only."""
    canary_timeout_s: float = 60.0
    """For one canary, both turns and its checks."""

    def __post_init__(self) -> None:
        for flag, urls in (("--prefill", self.prefill), ("--decode", self.decode)):
            for url in urls:
                check_node_url(flag, url)
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port must be from 0 to 65535, got {self.port}")
        for flag, number in self._positive():
            if number <= 0:
                raise ConfigError(f"{flag} must be positive, got {number}")
        for flag, number in self._not_negative():
            if number < 0:
                raise ConfigError(f"{flag} must not be below 0, got {number}")
        for flag, path in (
            ("--api-keys", self.api_keys),
            ("--node-secret-file", self.node_secret_file),
        ):
            if path is not None and not Path(path).is_file():
                raise ConfigError(f"{flag}: there is no file {path!r}")
        if self.model is not None and not Path(self.model).exists():
            raise ConfigError(
                f"--model: there is no directory {self.model!r}; "
                "name one with tokenizer.json and tokenizer_config.json"
            )

    def _not_negative(self) -> tuple[tuple[str, float], ...]:
        return (
            ("--finish-timeout-s", self.finish_timeout_s),
            ("--settle-s", self.settle_s),
            ("--canary-interval-s", self.canary_interval_s),
        )

    def _positive(self) -> tuple[tuple[str, float], ...]:
        return (
            ("--max-queued", self.max_queued),
            ("--request-timeout-s", self.request_timeout_s),
            ("max_body_bytes", self.max_body_bytes),
            ("connect_timeout_s", self.connect_timeout_s),
            ("stall_timeout_s", self.stall_timeout_s),
            ("node_expiry_s", self.node_expiry_s),
            ("poll_interval_s", self.poll_interval_s),
            ("index_pages", self.index_pages),
            ("history_tokens", self.history_tokens),
            ("--history-read-s", self.history_read_s),
            ("--session-horizon-s", self.session_horizon_s),
            ("--canary-timeout-s", self.canary_timeout_s),
        )


def check_node_url(flag: str, url: str) -> None:
    """Raise ConfigError unless `url` is http(s)://host:port without a path."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname)
        valid = valid and parts.path in ("", "/") and not parts.query
        _ = parts.port
    except ValueError:
        valid = False
    if not valid:
        raise ConfigError(f"{flag} must be a URL such as http://127.0.0.1:30001, got {url!r}")


def read_secret(flag: str, path: str | None) -> str | None:
    """The file's content without surrounding blanks; raises ConfigError if there is none."""
    if path is None:
        return None
    try:
        secret = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{flag}: cannot read {path!r}: {error}") from None
    if not secret:
        raise ConfigError(
            f"{flag}: {path!r} is empty; it must hold a secret of at least one character"
        )
    return secret
