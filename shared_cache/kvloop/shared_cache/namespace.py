"""The cache namespace: nodes whose digests are equal can read each other's pages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.page_object import FORMAT_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceSpec:
    """Everything that a page's bytes depend on, and nothing of one node's own layout or paths."""

    model_config: Mapping[str, Any]
    """JSON-like; the order of its fields does not matter."""
    weights_fingerprint: str
    kv_dtype: str
    page_size: int
    """Tokens."""
    head_groups: int = 1
    codec: str = "none"
    release_tag: str = ""
    """Set by operators to part releases that must not share pages."""

    def digest(self) -> bytes:
        """32 bytes; raises ConfigError where the model config is not JSON-like."""
        fields = {
            "format": FORMAT_VERSION,
            "model_config": dict(self.model_config),
            "weights": self.weights_fingerprint,
            "kv_dtype": self.kv_dtype,
            "page_size": self.page_size,
            "head_groups": self.head_groups,
            "codec": self.codec,
            "release_tag": self.release_tag,
        }
        try:
            text = json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"namespace: model_config must be JSON-like: {error}") from None
        return hashlib.sha256(b"kvloop-namespace-v1" + text.encode()).digest()

    @property
    def hex(self) -> str:
        """The digest as it appears in messages and status."""
        return self.digest().hex()
