import hashlib
import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from kvloop.shared_cache.page_object import (
    TRAILER_BYTES,
    Fault,
    PageShape,
    check,
    object_name,
    seal,
)

SHAPE = PageShape(
    num_layers=3, page_size=16, num_kv_heads=4, head_size=8, itemsize=2, head_groups=2
)
KEY, NAMESPACE = b"k" * 32, b"n" * 32


CODED = replace(SHAPE, codec="int8")


def sealed(shape: PageShape = SHAPE, group: int = 1) -> memoryview:
    view = memoryview(bytearray(os.urandom(shape.object_bytes)))
    seal(view, shape, KEY, NAMESPACE, group, "decode")
    return view


def fault(view: memoryview, key: bytes = KEY, namespace: bytes = NAMESPACE) -> Fault | None:
    return check(view, SHAPE, key, namespace, 1).fault


def test_sizes_follow_the_format() -> None:
    assert SHAPE.payload_bytes == 3 * 2 * 16 * 2 * 8 * 2
    assert SHAPE.object_bytes % 4096 == 0
    assert 0 <= SHAPE.object_bytes - SHAPE.payload_bytes - TRAILER_BYTES < 4096
    assert SHAPE.slot_bytes == 2 * SHAPE.object_bytes


def test_heads_that_do_not_split_into_the_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="head_groups must divide num_kv_heads=3, got 2"):
        PageShape(num_layers=1, page_size=1, num_kv_heads=3, head_size=1, itemsize=2, head_groups=2)


def test_a_size_of_zero_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="page_size must be positive, got 0"):
        PageShape(num_layers=1, page_size=0, num_kv_heads=1, head_size=1, itemsize=2)


def test_a_sealed_object_names_its_writer_and_keeps_its_payload() -> None:
    view = memoryview(bytearray(os.urandom(SHAPE.object_bytes)))
    payload = bytes(view[: SHAPE.payload_bytes])
    seal(view, SHAPE, KEY, NAMESPACE, 1, "prefill")
    assert check(view, SHAPE, KEY, NAMESPACE, 1) == ("prefill", None)
    assert bytes(view[: SHAPE.payload_bytes]) == payload


def test_equal_payloads_make_equal_objects() -> None:
    first = sealed()
    second = memoryview(bytearray(b"\xff" * SHAPE.object_bytes))
    second[: SHAPE.payload_bytes] = first[: SHAPE.payload_bytes]
    seal(second, SHAPE, KEY, NAMESPACE, 1, "decode")
    assert bytes(first) == bytes(second)


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (0, Fault.PAYLOAD),
        (SHAPE.payload_bytes - 1, Fault.PAYLOAD),
        (SHAPE.payload_bytes, Fault.MAGIC),
        (SHAPE.payload_bytes + 8, Fault.VERSION),
        (SHAPE.payload_bytes + 10, Fault.TRAILER),
        (SHAPE.payload_bytes + TRAILER_BYTES - 1, Fault.TRAILER),
    ],
)
def test_a_flipped_bit_is_a_fault(offset: int, expected: Fault) -> None:
    view = sealed()
    view[offset] ^= 1
    assert fault(view) is expected


def test_every_byte_of_payload_and_trailer_is_covered() -> None:
    view = sealed()
    for offset in range(SHAPE.payload_bytes - 40, SHAPE.payload_bytes + TRAILER_BYTES):
        view[offset] ^= 0x10
        assert fault(view) is not None, offset
        view[offset] ^= 0x10
    assert fault(view) is None


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (lambda view: check(view, SHAPE, b"x" * 32, NAMESPACE, 1), Fault.KEY),
        (lambda view: check(view, SHAPE, KEY, b"x" * 32, 1), Fault.NAMESPACE),
        (lambda view: check(view, SHAPE, KEY, NAMESPACE, 0), Fault.SHAPE),
    ],
)
def test_an_object_of_another_page_is_a_fault(
    break_it: Callable[[memoryview], tuple[object, Fault]], expected: Fault
) -> None:
    assert break_it(sealed())[1] is expected


def test_zeros_are_not_an_object() -> None:
    assert fault(memoryview(bytearray(SHAPE.object_bytes))) is Fault.MAGIC


def test_names_say_namespace_key_and_group() -> None:
    assert object_name(NAMESPACE, KEY, 3) == f"kvl1-{'6e' * 32}-{'6b' * 32}-3"


def test_an_object_without_a_codec_is_the_same_bytes_as_ever() -> None:
    view = memoryview(bytearray(i % 251 for i in range(SHAPE.object_bytes)))
    seal(view, SHAPE, KEY, NAMESPACE, 1, "decode")
    known = "5c8ca49c6a84c05e0edc090c1aabaabe39918d2f075a073d8b814e20c1546645"
    assert hashlib.sha256(view).hexdigest() == known


def test_a_codec_stores_a_byte_an_element_and_a_float_a_head() -> None:
    assert CODED.payload_bytes == SHAPE.payload_bytes // 2 == 3 * 2 * 16 * 2 * 8
    assert CODED.scales_bytes == 3 * 2 * 2 * 4 and SHAPE.scales_bytes == 0
    large = replace(CODED, num_layers=40)
    used = large.payload_bytes + TRAILER_BYTES + large.scales_bytes
    assert 0 <= large.object_bytes - used < 4096


def test_scales_that_do_not_fit_behind_the_trailer_make_the_object_longer() -> None:
    shape = PageShape(
        num_layers=1, page_size=1, num_kv_heads=2, head_size=994, itemsize=2, codec="fp8"
    )
    assert shape.payload_bytes + TRAILER_BYTES <= 4096 < shape.object_bytes


def test_a_payload_that_would_misalign_the_scales_is_refused() -> None:
    with pytest.raises(ValueError, match=r"codec int8 .* multiple of 4; page_size=1 makes it 6"):
        PageShape(num_layers=1, page_size=1, num_kv_heads=1, head_size=3, itemsize=2, codec="int8")


def test_sealing_keeps_payload_and_scales_and_zeroes_the_rest() -> None:
    view = memoryview(bytearray(b"\xff" * CODED.object_bytes))
    seal(view, CODED, KEY, NAMESPACE, 1, "prefill")
    assert check(view, CODED, KEY, NAMESPACE, 1) == ("prefill", None)
    scales = CODED.payload_bytes + TRAILER_BYTES
    padding = scales + CODED.scales_bytes
    assert bytes(view[: CODED.payload_bytes]) == b"\xff" * CODED.payload_bytes
    assert bytes(view[scales:padding]) == b"\xff" * CODED.scales_bytes
    assert bytes(view[padding:]) == bytes(CODED.object_bytes - padding)


def test_every_byte_of_the_scales_is_covered() -> None:
    view = sealed(CODED)
    scales = CODED.payload_bytes + TRAILER_BYTES
    for offset in range(scales, scales + CODED.scales_bytes):
        view[offset] ^= 0x10
        assert check(view, CODED, KEY, NAMESPACE, 1).fault is Fault.TRAILER, offset
        view[offset] ^= 0x10
    assert check(view, CODED, KEY, NAMESPACE, 1).fault is None


def test_an_object_with_another_number_of_scales_is_a_fault() -> None:
    fewer = replace(CODED, num_kv_heads=2, page_size=32)
    assert (fewer.payload_bytes, fewer.object_bytes) == (CODED.payload_bytes, CODED.object_bytes)
    assert check(sealed(fewer), CODED, KEY, NAMESPACE, 1).fault is Fault.SHAPE
