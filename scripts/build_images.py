#!/usr/bin/env python3
"""Build kvloop's images from the Dockerfile with buildah: no Docker engine, no registry.

    build_images.py                            both, as localhost/kvloop-{node,operator}:test
    build_images.py --import-socket SOCKET     and into the containerd of a cluster's node
    build_images.py --target operator --out DIR    one, as the OCI archive DIR/kvloop-operator.tar

Needs root and Debian's buildah and debootstrap. The base is made by debootstrap unless --base names
an image that can be pulled. What was built and imported is kept under build/images: where nothing
changed nothing is done, and where only our own code did, a small layer is built and sent.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from image_base import Base, make_base, packages_of
from image_import import import_image
from image_pip import as_file, folders, settings
from image_storage import stored_image

ROOT = Path(__file__).parents[1]
STATE = ROOT / "build" / "images"
TARGETS = ("operator", "node")
BUILD_S = 1800
LOCK_S = 2400
NEEDED = {"buildah": "buildah", "debootstrap": "debootstrap"}
_IGNORED = {"__pycache__"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Where images are built, and what they are called."""

    storage: Path
    """Of buildah; one of our own."""
    driver: str
    """Of the storage: overlay or vfs."""
    prefix: str = "localhost/kvloop"
    tag: str = "test"

    @property
    def buildah(self) -> tuple[str, ...]:
        """The program, told where its storage is."""
        root, runroot = str(self.storage), f"{self.storage}-run"
        return ("buildah", "--root", root, "--runroot", runroot, "--storage-driver", self.driver)

    def name(self, target: str) -> str:
        return f"{self.prefix}-{target}:{self.tag}"


def inputs(root: Path) -> Iterator[Path]:
    """Files that images are made of: the Dockerfile and what .dockerignore lets through."""
    yield root / "Dockerfile"
    yield root / ".dockerignore"
    for line in (root / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if line.startswith("!"):
            place = root / line[1:]
            yield from sorted(place.rglob("*")) if place.is_dir() else [place]


def digest_of(root: Path, *also: str) -> str:
    """Of all inputs by name and content; of `also` too."""
    digest = hashlib.sha256("\0".join(also).encode())
    for file in inputs(root):
        if file.is_file() and not _IGNORED & set(file.parts):
            digest.update(f"\0{file.relative_to(root)}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def run(command: Sequence[str], *, timeout_s: float = BUILD_S) -> str:
    """Standard output of a command that succeeds; its errors go where ours go."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=timeout_s, cwd=ROOT)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} ended with {done.returncode}: {' '.join(command)}")
    return done.stdout


def images_here(state: Path) -> Images:
    """With layers mounted over each other, or copied where such mounts are refused."""
    for driver in ("overlay", "vfs"):
        images = Images(storage=state / "storage" / driver, driver=driver)
        images.storage.mkdir(parents=True, exist_ok=True)
        if (
            subprocess.run([*images.buildah, "info"], capture_output=True, timeout=60).returncode
            == 0
        ):
            return images
    raise SystemExit(f"buildah can keep images below {state} neither by overlay nor by vfs")


def has(images: Images, name: str) -> bool:
    """Whether buildah's storage holds an image."""
    asked = subprocess.run([*images.buildah, "images", "-q", name], capture_output=True, timeout=60)
    return asked.returncode == 0 and bool(asked.stdout.strip())


def pip_options(state: Path) -> list[str]:
    """What lets pip inside see the indexes that pip here sees; none of it stays in an image."""
    values = settings(run([sys.executable, "-m", "pip", "config", "list"], timeout_s=60))
    file = state / "pip.conf"
    file.touch(mode=0o600)
    file.write_text(as_file(values), encoding="utf-8")
    mounts = [f"{path}:{path}:ro" for path in folders(values)]
    return [f"--secret=id=pip,src={file}", *(f"--volume={mount}" for mount in mounts)]


def build(images: Images, target: str, options: Sequence[str]) -> None:
    """One stage of the Dockerfile, tagged."""
    command = [*images.buildah, "build", "--isolation=chroot", "--layers", "--quiet"]
    run([*command, *options, "--target", target, "--tag", images.name(target), str(ROOT)])


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """One build at a time: the others wait and find it done."""
    ends_at = time.monotonic() + LOCK_S
    with file.open("w") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > ends_at:
                    raise SystemExit(f"another build has held {file} for {LOCK_S} s") from None
                time.sleep(0.5)
        yield


def ensure(images: Images, targets: Sequence[str], base: str | None, flavour: str) -> None:
    """Build those whose inputs changed since they were built last."""
    made = Base(packages=packages_of((ROOT / "Dockerfile").read_text(encoding="utf-8")))
    digest = digest_of(ROOT, base or made.key, flavour)
    record = STATE / "built.json"
    built = json.loads(record.read_bytes()) if record.is_file() else {}
    wanted = [t for t in targets if built.get(t) != digest or not has(images, images.name(t))]
    if wanted and base is None and not has(images, made.image):
        say(f"the base {made.image} by debootstrap")
        make_base(made, images.buildah, STATE)
    options = [f"--build-arg=BASE={base or made.image}", f"--build-arg=FLAVOUR={flavour}"]
    options += ["--pull-never"] if base is None else []
    for target in wanted:
        say(f"{images.name(target)} by buildah")
        build(images, target, [*options, *pip_options(STATE)])
        built[target] = digest
        record.write_text(json.dumps(built), encoding="utf-8")


def deliver(images: Images, target: str, out: Path | None, socket: Path | None) -> None:
    """Write an archive, import into a containerd, or neither."""
    if out:
        out.mkdir(parents=True, exist_ok=True)
        archive = out / f"kvloop-{target}.tar"
        archive.unlink(missing_ok=True)
        run([*images.buildah, "push", "--quiet", images.name(target),
             f"oci-archive:{archive}:{images.name(target)}"])  # fmt: skip
        say(f"{archive} written")
    if socket:
        name = images.name(target)
        stored = stored_image(images.buildah, images.storage, images.driver, name)
        sent = import_image(stored, name, socket)
        say(f"{name} {'imported' if sent else 'was there already'}")


def say(what: str) -> None:
    print(f"images: {time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    summary, _, more = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", choices=TARGETS, help="only this one (default: both)")
    parser.add_argument("--out", type=Path, help="folder for OCI archives")
    parser.add_argument("--import-socket", type=Path, help="containerd's socket to import into")
    parser.add_argument("--base", help="image to build on (default: made by debootstrap)")
    parser.add_argument("--flavour", choices=("cpu", "cuda"), default="cpu")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments(argv)
    missing = [package for program, package in NEEDED.items() if shutil.which(program) is None]
    if missing:
        raise SystemExit(f"missing: apt-get install --no-install-recommends {' '.join(missing)}")
    if os.geteuid() != 0:
        raise SystemExit("buildah and debootstrap make root file systems: run this as root")
    targets = (args.target,) if args.target else TARGETS
    STATE.mkdir(parents=True, exist_ok=True)
    with locked(STATE / "lock"):
        images = images_here(STATE)
        ensure(images, targets, args.base, args.flavour)
        for target in targets:
            deliver(images, target, args.out, args.import_socket)


if __name__ == "__main__":
    main()
