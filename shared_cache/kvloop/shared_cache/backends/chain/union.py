"""The answers of two stores as one; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

from kvloop.shared_cache.backend import StoredObject


def rest_of(found: Sequence[bool] | None, num_keys: int) -> list[int]:
    """Indices of what was not found; all of them where there was no answer."""
    if found is None:
        return list(range(num_keys))
    return [i for i, is_found in enumerate(found) if not is_found]


def either(one: Sequence[bool] | None, other: Sequence[bool] | None) -> list[bool]:
    """Entry by entry; at least one of them answered."""
    if one is None or other is None:
        answer = other if one is None else one
        assert answer is not None
        return list(answer)
    return [a or b for a, b in zip(one, other, strict=True)]


def listed_once(
    first: Iterable[StoredObject], second: Iterable[StoredObject]
) -> Iterator[StoredObject]:
    """All objects of the first listing, and the pages' that only the second has.

    Remembers 16 bytes for each object of the first. Records have no names to tell them apart by,
    so only the first's are listed.
    """
    seen: set[bytes] = set()
    for found in first:
        seen.add(_identity(found))
        yield found
    yield from (o for o in second if o.key is not None and _identity(o) not in seen)


def _identity(found: StoredObject) -> bytes:
    name = found.namespace + (found.key or b"") + found.group.to_bytes(4, "little")
    return blake2b(name, digest_size=16).digest()
