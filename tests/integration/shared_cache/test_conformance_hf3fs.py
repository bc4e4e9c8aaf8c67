"""The conformance suite on hf3fs: POSIX calls, and rings of the library's stand-in, on a mount of
type fuse.hf3fs that behaves as 3FS's client, and on a plain directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hf3fs_library
import pytest
from hf3fs_mount import Hf3fsMount, can_mount

from kvloop.shared_cache.conformance import BackendConformance, BackendSpec

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    hf3fs_library.install(monkeypatch)


class TestHf3fsPosixDirectory(BackendConformance):
    @pytest.fixture
    def spec(self, tmp_path: Path) -> BackendSpec:
        config = {"mount": str(tmp_path), "io": "posix", "require_mount": False}
        return BackendSpec(name="hf3fs", extra_config=config, can_list=True)


@pytest.mark.slow  # the same code as on the mount
class TestHf3fsUsrbioDirectory(BackendConformance):
    @pytest.fixture
    def spec(self, tmp_path: Path) -> BackendSpec:
        hf3fs_library.make_mount(tmp_path)
        config = {"mount": str(tmp_path), "io": "usrbio", "require_mount": False}
        return BackendSpec(name="hf3fs", extra_config=config, can_list=True)


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hf3fsMount]:
    if not can_mount():
        pytest.skip("mounting a FUSE file system needs root and /dev/fuse")
    folder = tmp_path_factory.mktemp("hf3fs")
    mount = Hf3fsMount(folder / "backing", folder / "node")
    yield mount
    mount.close()


@pytest.mark.slow
class TestHf3fsPosixMount(BackendConformance):
    @pytest.fixture
    def spec(self, mount: Hf3fsMount) -> BackendSpec:
        config = {"mount": str(mount.points[0]), "io": "posix"}
        return BackendSpec(name="hf3fs", extra_config=config, can_list=True)


class TestHf3fsUsrbioMount(BackendConformance):
    @pytest.fixture
    def spec(self, mount: Hf3fsMount) -> BackendSpec:
        config = {"mount": str(mount.points[0]), "io": "usrbio"}
        return BackendSpec(name="hf3fs", extra_config=config, can_list=True)
