"""SGLang's page keys as this project's: 32 bytes, whatever string comes."""

from __future__ import annotations

import hashlib
import re

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_SEED = b"kvloop-sglang-key-v1\x00"


def page_key(key: str) -> bytes:
    """The 32 bytes that 64 lower-case hexadecimal digits spell; of any other string its hash.

    So no string from outside, however long and whatever is in it, becomes part of a name.
    """
    if _DIGEST.fullmatch(key):
        return bytes.fromhex(key)
    return hashlib.sha256(_SEED + key.encode("utf-8", "surrogatepass")).digest()
