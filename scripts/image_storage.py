# ruff: noqa: INP001
"""An image in buildah's storage as its blobs, uncompressed and with the digests it was made with.

`buildah push` to an archive compresses all layers anew each time, which takes minutes. The storage
keeps each layer's files beside a record of all that was in its tar between the files ("tar-split").
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

CHUNK = 1 << 20
ASK_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Of a manifest: itself, its configuration, or a layer."""

    digest: str
    size: int
    write: Callable[[IO[bytes]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An image: its manifest's descriptor and all its blobs, the manifest first."""

    manifest: Mapping[str, Any]
    blobs: Sequence[Blob]


def stored_image(buildah: Sequence[str], storage: Path, driver: str, name: str) -> Stored:
    """`storage` is what buildah was given by --root, `driver` by --storage-driver."""
    command = [*buildah, "inspect", "--type", "image", name]
    told = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=True)
    found = json.loads(told.stdout)
    manifest = json.loads(found["Manifest"])
    texts = [text_blob(found[which].encode()) for which in ("Manifest", "Config")]
    assert [text.digest for text in texts] == [
        found["FromImageDigest"],
        manifest["config"]["digest"],
    ]
    layers = _layers(storage, driver, found["FromImageID"])
    told_layers = zip(manifest["layers"], layers, strict=True)
    return Stored(
        manifest={
            "mediaType": manifest["mediaType"],
            "digest": texts[0].digest,
            "size": texts[0].size,
        },
        blobs=[*texts, *(_layer(told, *layer) for told, layer in told_layers)],
    )


def text_blob(content: bytes) -> Blob:
    """One that is at hand."""

    def write(out: IO[bytes]) -> None:
        out.write(content)

    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return Blob(digest=digest, size=len(content), write=write)


def _layer(told: Mapping[str, Any], record: Path, files: Path) -> Blob:
    def write(out: IO[bytes]) -> None:
        for part in layer_parts(record, files):
            out.write(part)

    return Blob(digest=told["digest"], size=told["size"], write=write)


def _layers(storage: Path, driver: str, image_id: str) -> list[tuple[Path, Path]]:
    """Record and files of each, from the base up."""
    images = json.loads((storage / f"{driver}-images" / "images.json").read_bytes())
    places = storage / f"{driver}-layers"
    parents = {
        layer["id"]: layer.get("parent", "")
        for layer in json.loads((places / "layers.json").read_bytes())
    }
    found = []
    layer = next(image["layer"] for image in images if image["id"] == image_id)
    while layer:
        files = Path("dir", layer) if driver == "vfs" else Path(layer, "diff")
        found.append((places / f"{layer}.tar-split.gz", storage / driver / files))
        layer = parents[layer]
    return found[::-1]


def layer_parts(record: Path, files: Path) -> Iterator[bytes]:
    """The layer's tar: what was between the files from the record, the files from their folder."""
    with gzip.open(record, "rb") as lines:
        for line in lines:
            entry = json.loads(line)
            if entry["type"] == 2:
                yield base64.b64decode(entry["payload"])
            elif entry.get("size"):
                yield from _content(files / _name(entry))


def _name(entry: Mapping[str, Any]) -> str:
    raw = entry.get("name_raw")
    name = base64.b64decode(raw).decode(errors="surrogateescape") if raw else entry["name"]
    return str(name).lstrip("/")


def _content(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            yield chunk
