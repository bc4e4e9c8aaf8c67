"""The test cluster's binary is mended before it is started, and nothing else is touched."""

from __future__ import annotations

import lzma
import os
from pathlib import Path

import numpy as np
import pytest
from cluster.mended import mend, unpack_mended

PACKED = Path(__file__).parents[3].parent / "shared" / "cluster" / "bin" / "kubenode.xz"


def test_a_file_that_is_no_such_binary_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"#!/bin/sh\n")
    assert not mend(other)
    assert other.read_bytes() == b"#!/bin/sh\n"


def test_a_binary_that_is_there_is_not_unpacked_again(tmp_path: Path) -> None:
    there = tmp_path / "kubenode"
    there.write_text("there")
    unpack_mended(tmp_path / "none.xz", there)
    assert there.read_text() == "there"


@pytest.mark.skipif(not PACKED.is_file(), reason=f"there is no {PACKED.name}")
def test_the_binary_differs_in_one_jump_only(tmp_path: Path) -> None:
    mended = tmp_path / "bin" / "kubenode"
    unpack_mended(PACKED, mended)
    original = np.frombuffer(lzma.decompress(PACKED.read_bytes()), np.uint8)
    changed = np.flatnonzero(original != np.fromfile(mended, np.uint8))
    assert 0 < len(changed) <= 11
    assert changed[-1] - changed[0] < 11
    assert os.access(mended, os.X_OK)
    assert not mend(mended)
