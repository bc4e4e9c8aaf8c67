"""Which configuration is attached, told without telling its secrets."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any


def config_digest(
    admin_key: str | None, backend: str | None, extra_config: Mapping[str, Any]
) -> str | None:
    """Equal for equal configurations as given, before variables are put in; hexadecimal.

    Keyed by the admin key: without it a digest of short secrets could be guessed. None where
    there is no key or no backend.
    """
    if not admin_key or backend is None:
        return None
    given = {"backend": backend, "extra_config": extra_config}
    text = json.dumps(given, sort_keys=True, separators=(",", ":"))
    return hmac.new(admin_key.encode(), text.encode(), hashlib.sha256).hexdigest()
