"""The page object, format 1: one head group of one KV page as every backend stores it.

    payload   [layer, k|v, token, kv head of the group, head size], contiguous
    trailer   header and its sum, straight after the payload
    scales    float32 [layer, k|v, kv head of the group]; only with codec int8 or fp8
    padding   zeros up to a multiple of 4 KiB

The trailer names the page, so that a misplaced, torn or foreign object is seen and never served.
"""

from __future__ import annotations

import enum
import re
import struct
from dataclasses import dataclass
from typing import NamedTuple

import xxhash

from kvloop.shared_cache.hicache_names import Codec
from kvloop.shared_cache.wire import Role

FORMAT_VERSION = 1
ALIGNMENT = 4096

_MAGIC = b"KVLPAGE\x00"
# magic, version, writer, reserved, group, head groups, scales length, payload length, key,
# namespace, xxh3 of the payload; then the xxh3 of all of this and of the scales.
_HEADER = struct.Struct("<8sHBBHHIQ32s32sQ4x")
_HEADER_SUM = struct.Struct("<Q")
TRAILER_BYTES = _HEADER.size + _HEADER_SUM.size
_SCALE = 4  # bytes
_NAME = re.compile(r"kvl1-([0-9a-f]{64})-([0-9a-f]{64})-(0|[1-9][0-9]{0,4})", re.ASCII)
_ROLES: tuple[Role, ...] = ("prefill", "decode")


class Fault(enum.Enum):
    """Why an object was not accepted."""

    MAGIC = "magic"
    VERSION = "version"
    TRAILER = "trailer"
    KEY = "key"
    NAMESPACE = "namespace"
    SHAPE = "shape"
    PAYLOAD = "payload"


class Verdict(NamedTuple):
    """Exactly one of the two is set."""

    writer: Role | None
    fault: Fault | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PageShape:
    """The sizes of one page; all nodes of a namespace agree on them."""

    num_layers: int
    page_size: int
    """Tokens per page."""
    num_kv_heads: int
    """Of the whole model; `head_groups` divides it."""
    head_size: int
    """Elements per head."""
    itemsize: int
    """Bytes per element of the KV dtype."""
    head_groups: int = 1
    """Parts that the KV heads are split into; each is an object of its own."""
    codec: Codec = "none"
    """How elements are stored outside of the device: as they are, or as one byte with scales."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if name != "codec" and getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.num_kv_heads % self.head_groups:
            raise ValueError(
                f"head_groups must divide num_kv_heads={self.num_kv_heads}, got {self.head_groups}"
            )
        if self.codec != "none" and self.payload_bytes % _SCALE:
            raise ValueError(
                f"codec {self.codec} keeps 4-byte scales behind the payload, whose length must be "
                f"a multiple of 4; page_size={self.page_size} makes it {self.payload_bytes}"
            )

    @property
    def group_heads(self) -> int:
        """KV heads of one group."""
        return self.num_kv_heads // self.head_groups

    @property
    def payload_itemsize(self) -> int:
        """Bytes per stored element."""
        return self.itemsize if self.codec == "none" else 1

    @property
    def payload_bytes(self) -> int:
        """Bytes of K and V of one page and one head group."""
        elements = self.num_layers * 2 * self.page_size * self.group_heads * self.head_size
        return elements * self.payload_itemsize

    @property
    def scales_bytes(self) -> int:
        """Bytes of one group's scales; 0 where the codec is none."""
        return 0 if self.codec == "none" else self.num_layers * 2 * self.group_heads * _SCALE

    @property
    def object_bytes(self) -> int:
        """Bytes of one stored object: payload, trailer, scales and padding."""
        used = self.payload_bytes + TRAILER_BYTES + self.scales_bytes
        return -(-used // ALIGNMENT) * ALIGNMENT

    @property
    def slot_bytes(self) -> int:
        """Bytes of one whole page in the host pool: its groups' objects, one after the other."""
        return self.head_groups * self.object_bytes


def object_name(namespace: bytes, key: bytes, group: int) -> str:
    """The object's name in every backend: letters, digits and dashes, about 136 characters."""
    return f"kvl1-{namespace.hex()}-{key.hex()}-{group}"


class ObjectName(NamedTuple):
    """What an object's name says."""

    namespace: bytes
    key: bytes
    group: int


def parse_object_name(name: str) -> ObjectName | None:
    """The parts of a name that `object_name` made; None for any other."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        return None
    return ObjectName(bytes.fromhex(parts[1]), bytes.fromhex(parts[2]), int(parts[3]))


def seal(
    view: memoryview, shape: PageShape, key: bytes, namespace: bytes, group: int, writer: Role
) -> None:
    """Write the trailer and zero the padding of the object in `view`.

    Payload and scales must be complete; they stay as they are.
    """
    assert view.nbytes == shape.object_bytes, (view.nbytes, shape.object_bytes)
    end = shape.payload_bytes
    header = _HEADER.pack(
        _MAGIC,
        FORMAT_VERSION,
        _ROLES.index(writer),
        0,
        group,
        shape.head_groups,
        shape.scales_bytes,
        end,
        key,
        namespace,
        xxhash.xxh3_64_intdigest(view[:end]),
    )
    scales = end + TRAILER_BYTES
    padding = scales + shape.scales_bytes
    view[end:scales] = header + _HEADER_SUM.pack(_header_sum(header, view[scales:padding]))
    view[padding:] = bytes(shape.object_bytes - padding)


def check(view: memoryview, shape: PageShape, key: bytes, namespace: bytes, group: int) -> Verdict:
    """Say who wrote the object in `view`, or why it must not be served."""
    assert view.nbytes == shape.object_bytes, (view.nbytes, shape.object_bytes)
    end = shape.payload_bytes
    header = bytes(view[end : end + _HEADER.size])
    (header_sum,) = _HEADER_SUM.unpack_from(view, end + _HEADER.size)
    fields = _Trailer(*_HEADER.unpack(header))
    scales = view[end + TRAILER_BYTES :][: fields.scales_bytes]
    if fields.magic != _MAGIC:
        return Verdict(None, Fault.MAGIC)
    if fields.version != FORMAT_VERSION:
        return Verdict(None, Fault.VERSION)
    if header_sum != _header_sum(header, scales) or fields.writer >= len(_ROLES):
        return Verdict(None, Fault.TRAILER)
    if fields.namespace != namespace:
        return Verdict(None, Fault.NAMESPACE)
    if fields.key != key:
        return Verdict(None, Fault.KEY)
    if fields.shape() != (group, shape.head_groups, shape.scales_bytes, end):
        return Verdict(None, Fault.SHAPE)
    if fields.payload_sum != xxhash.xxh3_64_intdigest(view[:end]):
        return Verdict(None, Fault.PAYLOAD)
    return Verdict(_ROLES[fields.writer], None)


def _header_sum(header: bytes, scales: memoryview) -> int:
    digest = xxhash.xxh3_64(header)
    digest.update(scales)
    return digest.intdigest()


class _Trailer(NamedTuple):
    magic: bytes
    version: int
    writer: int
    reserved: int
    group: int
    head_groups: int
    scales_bytes: int
    payload_bytes: int
    key: bytes
    namespace: bytes
    payload_sum: int

    def shape(self) -> tuple[int, int, int, int]:
        return self.group, self.head_groups, self.scales_bytes, self.payload_bytes
