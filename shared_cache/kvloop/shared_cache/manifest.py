"""A namespace's manifest: the record by which tools without a model learn what its pages are."""

from __future__ import annotations

import time

import msgspec
import xxhash

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.page_object import FORMAT_VERSION, PageShape

RECORD = "manifest"
"""The record's name in every backend."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the pages of one namespace look like, and whose they are."""

    namespace: str
    """Hexadecimal, 64 digits."""
    shape: PageShape
    format_version: int = FORMAT_VERSION
    """Of the page objects."""
    model: str = ""
    """For people; never a path."""
    kv_dtype: str = ""
    release_tag: str = ""
    written_at: float = 0.0
    """Seconds since the epoch."""


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    manifest: msgspec.Raw
    xxh3: str
    """Of the bytes before: with a flipped bit in the shape every page would seem damaged."""


def encode_manifest(manifest: Manifest) -> bytes:
    """The record's content: JSON, a few hundred bytes."""
    body = msgspec.json.encode(manifest)
    return msgspec.json.encode(_Record(manifest=msgspec.Raw(body), xxh3=_sum(body)))


def decode_manifest(record: bytes, namespace: bytes) -> Manifest | None:
    """The manifest; None where the record is damaged or another namespace's."""
    try:
        envelope = msgspec.json.decode(record, type=_Record)
        body = bytes(envelope.manifest)
        if envelope.xxh3 != _sum(body):
            return None
        manifest = msgspec.json.decode(body, type=Manifest)
    except (msgspec.DecodeError, ValueError):  # ValueError: what is no UTF-8
        return None
    return manifest if manifest.namespace == namespace.hex() else None


def keep_manifest(backend: StorageBackend, manifest: Manifest) -> None:
    """Write the record where the namespace has none that can be read; raises what the store does.

    One that is there stays: all nodes of a namespace agree on what tools need of it.
    """
    record = backend.get_small(RECORD)
    if record is not None and decode_manifest(record, bytes.fromhex(manifest.namespace)):
        return
    now = msgspec.structs.replace(manifest, written_at=time.time())
    backend.put_small(RECORD, encode_manifest(now))


def _sum(body: bytes) -> str:
    return xxhash.xxh3_64_hexdigest(body)
