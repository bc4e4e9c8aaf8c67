"""What `kvloop up` was asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class UpConfig:
    """Fields are the command's flags."""

    model: str = "smollm2"
    prefill: int = 1
    decode: int = 1
    shared_cache: Literal["mooncake", "file"] = "mooncake"
    dtype: str = "auto"
    page_size: int = 16
    host: str = "127.0.0.1"
    port: int = 8000
    once: bool = False
    ready_timeout_s: float = 180.0
    state_dir: Path | None = None
    log_level: str = "info"

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the API."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def directory(self) -> Path:
        """Logs and secrets of this run; the next run with this port writes over them."""
        if self.state_dir is not None:
            return self.state_dir.expanduser().absolute()
        root = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return Path(root) / "kvloop" / f"up-{self.port}"
