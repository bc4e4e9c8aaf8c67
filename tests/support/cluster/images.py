"""The images that tests run on a cluster: named by a variable, or built here and imported."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "KVLOOP_TEST_IMAGES"
"""REPOSITORY:TAG of images that the cluster has or can pull, as REPOSITORY-node:TAG."""
BUILT = "localhost/kvloop:test"
BUILD_S = 2400
_ROOT = Path(__file__).parents[3]


class NoImagesError(Exception):
    """Why there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Of one build."""

    repository: str
    tag: str

    @property
    def node(self) -> str:
        return f"{self.repository}-node:{self.tag}"

    @property
    def operator(self) -> str:
        return f"{self.repository}-operator:{self.tag}"


def images_for(kubeconfig: Path) -> Images:
    """Those that the cluster runs; NoImagesError says what is missing.

    A cluster of the test script keeps its containerd beside its kubeconfig: images go there.
    """
    if named := os.environ.get(VARIABLE):
        return _named(named)
    socket = kubeconfig.parent / "containerd" / "containerd.sock"
    if not socket.exists():
        raise NoImagesError(f"{VARIABLE} is not set, and images can be imported into no {socket}")
    missing = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]
    if missing:
        raise NoImagesError(f"{VARIABLE} is not set, and there is no {' nor '.join(missing)}")
    _build(socket)
    return _named(BUILT)


def _named(value: str) -> Images:
    repository, _, tag = value.rpartition(":")
    if not repository or "/" in tag:
        raise ValueError(f"{VARIABLE} must be REPOSITORY:TAG such as {BUILT}, got {value!r}")
    return Images(repository=repository, tag=tag)


def _build(socket: Path) -> None:
    command = [sys.executable, str(_ROOT / "scripts/build_images.py"), "--import-socket"]
    done = subprocess.run([*command, str(socket)], capture_output=True, text=True, timeout=BUILD_S)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
