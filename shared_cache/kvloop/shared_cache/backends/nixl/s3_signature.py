"""AWS Signature Version 4 of one S3 request. Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote

_ALGORITHM = "AWS4-HMAC-SHA256"
_SERVICE = "s3"


class Credentials(NamedTuple):
    """Of one account, for one region."""

    access_key: str
    secret_key: str
    session_token: str
    region: str

    def __repr__(self) -> str:
        return "Credentials(***)"


def query_string(query: Mapping[str, str]) -> str:
    """The query as it is signed and sent: sorted, and quoted as AWS wants it."""
    return "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in sorted(query.items()))


def signed_headers(
    credentials: Credentials,
    method: str,
    host: str,
    path: str,
    query: Mapping[str, str],
    body: bytes,
    now: datetime,
) -> dict[str, str]:
    """The headers to send, `host` included; `path` is quoted already and `now` has a time zone."""
    time = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    body_sum = hashlib.sha256(body).hexdigest()
    headers = {"host": host, "x-amz-content-sha256": body_sum, "x-amz-date": time}
    if credentials.session_token:
        headers["x-amz-security-token"] = credentials.session_token
    names = ";".join(sorted(headers))
    lines = [f"{name}:{value}\n" for name, value in sorted(headers.items())]
    request = "\n".join([method, path, query_string(query), "".join(lines), names, body_sum])
    scope = f"{time[:8]}/{credentials.region}/{_SERVICE}/aws4_request"
    request_sum = hashlib.sha256(request.encode()).hexdigest()
    signature = _signature(credentials, "\n".join([_ALGORITHM, time, scope, request_sum]), time[:8])
    headers["authorization"] = (
        f"{_ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={names}, "
        f"Signature={signature}"
    )
    return headers


def _signature(credentials: Credentials, text: str, day: str) -> str:
    key = f"AWS4{credentials.secret_key}".encode()
    for part in (day, credentials.region, _SERVICE, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()
