"""API keys and the tenants they stand for."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

from kvloop.router.errors import ApiError
from kvloop.shared_cache.errors import ConfigError

EVERYBODY_ELSE = "*"
"""No tenant's name: in `--hicache-tenant-quotas` it stands for all that are not named."""


class Tenants:
    """Looks keys up by their digest, so that time tells nothing about a key."""

    def __init__(self, keys: dict[str, str] | None) -> None:
        self._keys = None if keys is None else {_digest(k): tenant for k, tenant in keys.items()}

    def tenant_of(self, authorization: str | None) -> str | None:
        """The tenant of a request; None where no keys are configured. Raises a 401 ApiError."""
        if self._keys is None:
            return None
        key = bearer(authorization)
        tenant = self._keys.get(_digest(key)) if key is not None else None
        if tenant is None:
            what = "Missing" if key is None else "Incorrect"
            raise ApiError(
                401,
                f"{what} API key: send it as 'Authorization: Bearer KEY'",
                param="Authorization",
                code="invalid_api_key",
            )
        return tenant


def read_tenants(path: str | None) -> Tenants:
    """Read `{"key": "tenant"}` or lines of `key tenant`; raises ConfigError naming the line."""
    if path is None:
        return Tenants(None)
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--api-keys: cannot read {path!r}: {error}") from None
    keys = _parse_json(path, text) if text.lstrip().startswith("{") else _parse_lines(path, text)
    if not keys:
        raise ConfigError(f"--api-keys: {path!r} holds no key; write one 'key tenant' a line")
    if EVERYBODY_ELSE in keys.values():
        raise ConfigError(
            f"--api-keys: {path!r} names a tenant {EVERYBODY_ELSE!r}, which means every other one "
            "where quotas are given; choose another name"
        )
    return Tenants(keys)


def bearer(authorization: str | None) -> str | None:
    """The key of an Authorization header, if it has one."""
    scheme, _, key = (authorization or "").partition(" ")
    return key.strip() or None if scheme.lower() == "bearer" else None


def equal_secrets(given: str | None, expected: str) -> bool:
    """Compare in constant time."""
    return given is not None and hmac.compare_digest(given.encode(), expected.encode())


def _parse_json(path: str, text: str) -> dict[str, str]:
    try:
        keys = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--api-keys: {path!r} is not valid JSON: {error}") from None
    for key, tenant in keys.items():
        if not isinstance(tenant, str) or not key or not tenant:
            raise ConfigError(f"--api-keys: {path!r} must map keys to tenant names, both not empty")
    return dict(keys)


def _parse_lines(path: str, text: str) -> dict[str, str]:
    keys = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise ConfigError(f"--api-keys: {path!r} line {number} must be 'key tenant'")
        keys[words[0]] = words[1]
    return keys


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
