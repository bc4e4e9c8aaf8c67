# ruff: noqa: INP001
"""From an OCI layout into a containerd: only the blobs that it does not have yet."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

IMPORT_S = 600
NAME = "io.containerd.image.name"
TAG = "org.opencontainers.image.ref.name"


def manifest_of(layout: Path, tag: str) -> dict[str, Any]:
    """The descriptor of a tagged image in the layout's index."""
    index = json.loads((layout / "index.json").read_bytes())
    for entry in index["manifests"]:
        if entry.get("annotations", {}).get(TAG) == tag:
            return dict(entry)
    raise SystemExit(f"{layout}/index.json has no image tagged {tag}")


def blob(layout: Path, digest: str) -> Path:
    kind, _, value = digest.partition(":")
    return layout / "blobs" / kind / value


def blobs_of(layout: Path, manifest: dict[str, Any]) -> list[str]:
    """Digests of the manifest, its configuration and its layers."""
    content = json.loads(blob(layout, manifest["digest"]).read_bytes())
    parts = [content["config"], *content["layers"]]
    return [manifest["digest"], *dict.fromkeys(part["digest"] for part in parts)]


def write_archive(layout: Path, tag: str, name: str, known: Iterable[str], out: IO[bytes]) -> None:
    """An OCI archive of one image under `name`, without the blobs that are `known`."""
    manifest = manifest_of(layout, tag)
    entry = {key: manifest[key] for key in ("mediaType", "digest", "size")}
    index = {"schemaVersion": 2, "manifests": [{**entry, "annotations": {NAME: name}}]}
    wanted = [digest for digest in blobs_of(layout, manifest) if digest not in set(known)]
    # The manifest says what belongs to the image: it is always sent.
    wanted = list(dict.fromkeys([manifest["digest"], *wanted]))
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT) as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(archive, "index.json", json.dumps(index).encode())
        for digest in wanted:
            file = blob(layout, digest)
            archive.add(file, arcname=str(file.relative_to(layout)))


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def import_image(layout: Path, tag: str, name: str, socket: Path) -> bool:
    """Whether anything had to be sent. The socket is a containerd's that the kubelet uses."""
    ctr = ["ctr", "-a", str(socket), "-n", "k8s.io"]
    digest = manifest_of(layout, tag)["digest"]
    if digest in _ask([*ctr, "images", "ls", f"name=={name}"]):
        return False
    known = _ask([*ctr, "content", "ls", "-q"]).split()
    with subprocess.Popen([*ctr, "images", "import", "-"], stdin=subprocess.PIPE) as importing:
        assert importing.stdin is not None
        with importing.stdin as out:
            write_archive(layout, tag, name, known, out)
        status = importing.wait(IMPORT_S)
    if status != 0:
        raise SystemExit(f"ctr images import of {name} ended with {status}")
    return True


def _ask(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_S)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
