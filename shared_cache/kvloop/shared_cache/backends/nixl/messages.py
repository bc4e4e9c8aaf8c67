"""What the memory server and its clients tell each other: msgpack over ZeroMQ.

A request is two frames, a number and a `Request`; its reply the same number and a `Reply`, or a
`Refusal`. All names are of objects, each of `num_bytes`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from kvloop.shared_cache.backends.nixl.object_table import Listed, Located, Reserved

PROTOCOL = 1


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The first request; all later ones carry the epoch that it brought."""

    protocol: int = PROTOCOL


class Welcome(msgspec.Struct, frozen=True, tag=True):
    """How to reach the segment."""

    epoch: bytes
    """Of this run of the server: its content is another in the next."""
    metadata: bytes
    """Of its NIXL agent."""
    base_address: int
    num_bytes: int


class Exists(msgspec.Struct, frozen=True, tag=True):
    names: list[str]
    num_bytes: int


class Reserve(msgspec.Struct, frozen=True, tag=True):
    names: list[str]
    num_bytes: Annotated[int, msgspec.Meta(ge=1)]


class Commit(msgspec.Struct, frozen=True, tag=True):
    tickets: list[int]


class Abort(msgspec.Struct, frozen=True, tag=True):
    tickets: list[int]


class Locate(msgspec.Struct, frozen=True, tag=True):
    names: list[str]
    num_bytes: int


class Release(msgspec.Struct, frozen=True, tag=True):
    tickets: list[int]


class Delete(msgspec.Struct, frozen=True, tag=True):
    names: list[str]


class PutRecord(msgspec.Struct, frozen=True, tag=True):
    name: str
    value: bytes


class GetRecord(msgspec.Struct, frozen=True, tag=True):
    name: str


class List(msgspec.Struct, frozen=True, tag=True):
    """One part of a listing: objects, or records, of a later serial than this."""

    after: int
    are_records: bool = False


class Clear(msgspec.Struct, frozen=True, tag=True):
    """All objects and records whose names start so."""

    prefix: str


class Flags(msgspec.Struct, frozen=True, tag=True):
    """One for each name or ticket, or a single one."""

    flags: list[bool]


class Grants(msgspec.Struct, frozen=True, tag=True):
    grants: list[Reserved]


class Leases(msgspec.Struct, frozen=True, tag=True):
    leases: list[Located]


class Record(msgspec.Struct, frozen=True, tag=True):
    value: bytes | None


class Listing(msgspec.Struct, frozen=True, tag=True):
    objects: list[Listed]
    """Empty: no more."""


class Refusal(msgspec.Struct, frozen=True, tag=True):
    """The request was not understood, or was meant for an earlier run of the server."""

    reason: str


Body = (
    Hello | Exists | Reserve | Commit | Abort | Locate | Release | Delete | PutRecord | GetRecord
    | List | Clear
)  # fmt: skip
Reply = Welcome | Flags | Grants | Leases | Record | Listing | Refusal


class Request(msgspec.Struct, frozen=True):
    epoch: bytes
    body: Body
