# ruff: noqa: INP001
"""The Debian that images are built on where no registry is reached: debootstrap makes it once."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
MAKE_S = 900
_RECIPE = "1"
"""Part of the key: raise it when `make_rootfs` does something else."""
_LEFT_OUT = ("debootstrap", "var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What a base is made of."""

    packages: tuple[str, ...]
    mirror: str = MIRROR

    @property
    def key(self) -> str:
        """Equal where a base made earlier will do."""
        made_of = "\n".join((_RECIPE, SUITE, *self.packages))
        return hashlib.sha256(made_of.encode()).hexdigest()[:16]

    @property
    def image(self) -> str:
        return f"localhost/kvloop-base:{self.key}"


def packages_of(dockerfile: str) -> tuple[str, ...]:
    """Those that the Dockerfile would install, from its ARG PACKAGES."""
    for line in dockerfile.splitlines():
        if line.startswith("ARG PACKAGES="):
            return tuple(line.partition("=")[2].strip('"').split())
    raise ValueError('the Dockerfile has no line ARG PACKAGES="…"')


def make_base(base: Base, buildah: Sequence[str], within: Path) -> None:
    """Put the image `base.image` into buildah's storage; needs root."""
    within.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=within) as folder:
        rootfs = Path(folder) / "rootfs"
        make_rootfs(base, rootfs)
        archive = Path(folder) / "rootfs.tar"
        _run(["tar", "-C", str(rootfs), "-cf", str(archive), "."])
        container = _run([*buildah, "from", "scratch"]).strip()
        _run([*buildah, "add", "--quiet", container, str(archive), "/"])
        _run([*buildah, "commit", "--quiet", "--rm", container, base.image])


def make_rootfs(base: Base, rootfs: Path) -> None:
    """A minimal Debian with the packages, less what a package manager keeps for itself."""
    include = "--include=" + ",".join(base.packages)
    _run(["debootstrap", "--variant=minbase", include, SUITE, str(rootfs), base.mirror])
    for name in _LEFT_OUT:
        place = rootfs / name
        shutil.rmtree(place, ignore_errors=True)
        if name.startswith("var"):
            place.mkdir()


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=MAKE_S)
    if done.returncode != 0:
        told = (done.stdout + done.stderr)[-2000:]
        raise SystemExit(f"{command[0]} failed: {' '.join(command)}\n{told}")
    return done.stdout
