# ruff: noqa: INP001
"""Into a containerd, of an image only the blobs that are not there yet."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import IO

from image_storage import Blob, Stored, text_blob

IMPORT_S = 900
NAME = "io.containerd.image.name"


def import_image(image: Stored, name: str, socket: Path) -> bool:
    """Whether anything had to be sent. The socket is that of the kubelet's containerd."""
    ctr = ["ctr", "-a", str(socket), "-n", "k8s.io"]
    if str(image.manifest["digest"]) in _ask([*ctr, "images", "ls", f"name=={name}"]):
        return False
    known = _ask([*ctr, "content", "ls", "-q"]).split()
    # What was listed may be cleared away meanwhile: then all is sent.
    if not _send(ctr, image, name, known) and not _send(ctr, image, name, ()):
        raise SystemExit(f"ctr images import of {name} failed")
    return True


def _send(ctr: Sequence[str], image: Stored, name: str, known: Collection[str]) -> bool:
    command = [*ctr, "images", "import", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as importing:
        assert importing.stdin is not None
        try:
            with importing.stdin as out:
                write_archive(image, name, known, out)
        except BrokenPipeError:
            pass  # its own message went to our standard error
        return importing.wait(IMPORT_S) == 0


def write_archive(image: Stored, name: str, known: Collection[str], out: IO[bytes]) -> None:
    """An OCI archive of the image under `name`, less the blobs that are `known`."""
    entry = {**image.manifest, "annotations": {NAME: name}}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    _add(out, "oci-layout", text_blob(b'{"imageLayoutVersion":"1.0.0"}'))
    _add(out, "index.json", text_blob(index))
    for blob in image.blobs:
        # The manifest is always sent: it says what belongs together.
        if blob.digest == image.manifest["digest"] or blob.digest not in known:
            _add(out, f"blobs/{blob.digest.replace(':', '/')}", blob)
    out.write(bytes(2 * tarfile.BLOCKSIZE))


def _add(out: IO[bytes], name: str, blob: Blob) -> None:
    info = tarfile.TarInfo(name)
    info.size = blob.size
    out.write(info.tobuf(tarfile.GNU_FORMAT))
    blob.write(out)
    out.write(bytes(-blob.size % tarfile.BLOCKSIZE))


def _ask(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_S)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
