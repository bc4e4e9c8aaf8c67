"""What images are made of, and what is sent of them: decided before buildah runs."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import tomllib
from base64 import b64encode
from pathlib import Path
from typing import Any

import image_pip
import pytest
from build_images import ROOT, digest_of, inputs
from image_base import Base, packages_of
from image_import import NAME, write_archive
from image_requirements import requirements
from image_storage import Stored, layer_parts, text_blob

DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = {
    re.split(r"[\[=]", line)[0].lower().replace("_", "-")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if "==" in line
}


def name_of(requirement: str) -> str:
    return re.split(r"[\[=<>; ]", requirement)[0].lower().replace("_", "-")


def test_an_extra_brings_those_that_it_stands_for() -> None:
    project = {
        "dependencies": ["a>=1"],
        "optional-dependencies": {"x": ["b"], "y": ["kvloop[x]", "a>=1", "c; os_name == 'nt'"]},
    }
    assert requirements(project, ["y"]) == ["a>=1", "b", "c; os_name == 'nt'"]


def test_an_extra_that_is_not_there_is_named() -> None:
    with pytest.raises(SystemExit, match=r"no extra 'nodes'; there are:.*node"):
        requirements(PROJECT, ["nodes"])


@pytest.mark.parametrize("extras", [("node", "router", "bench"), ("operator",)])
def test_all_that_an_image_installs_is_pinned(extras: tuple[str, ...]) -> None:
    assert " ".join(extras) in DOCKERFILE
    names = {name_of(requirement) for requirement in requirements(PROJECT, extras)}
    assert names <= PINNED


def test_the_operators_image_installs_nothing_of_the_models() -> None:
    names = {name_of(requirement) for requirement in requirements(PROJECT, ["operator"])}
    assert not names & {"torch", "transformers", "safetensors", "gguf"}
    parents = {stage: on for on, stage in re.findall(r"(?m)^FROM (\S+) AS (\S+)$", DOCKERFILE)}
    assert parents["operator"] == "operator-packages"
    assert parents["operator-packages"] == "base"


def test_both_images_run_as_a_user_that_is_told_by_number() -> None:
    for target in ("operator", "node"):
        stage = re.split(rf"^FROM \S+ AS {target}$", DOCKERFILE, flags=re.MULTILINE)[1]
        assert "\nUSER 65532:65532\n" in stage.partition("\nFROM ")[0]


def test_the_base_is_pinned_by_its_digest() -> None:
    assert re.search(r"^ARG BASE=\S+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)


def test_what_the_dockerfile_copies_is_let_through_and_counts_as_input() -> None:
    copied = re.findall(r"^COPY (?!--from)((?:[^\\\n]|\\\n)+)$", DOCKERFILE, re.MULTILINE)
    sources = {word for line in copied for word in line.replace("\\\n", " ").split()[:-1]}
    found = set(inputs(ROOT))
    assert sources
    assert "." in sources
    for source in sources - {"."}:
        place = ROOT / source
        assert place.exists(), source
        assert place in found or any(file.is_relative_to(place) for file in found), source


def write_context(root: Path) -> Path:
    (root / "Dockerfile").write_text("FROM scratch\n")
    (root / ".dockerignore").write_text("*\n!code\n!one.txt\n")
    (root / "code" / "__pycache__").mkdir(parents=True)
    (root / "code" / "a.py").write_text("1")
    (root / "one.txt").write_text("1")
    return root


@pytest.mark.parametrize(
    "changed", ["Dockerfile", ".dockerignore", "code/a.py", "one.txt", "code/b"]
)
def test_a_changed_input_is_a_new_build(tmp_path: Path, changed: str) -> None:
    before = digest_of(write_context(tmp_path), "base")
    with (tmp_path / changed).open("a") as file:
        file.write("\n!more\n")
    assert digest_of(tmp_path, "base") != before


def test_another_base_or_flavour_is_a_new_build(tmp_path: Path) -> None:
    root = write_context(tmp_path)
    assert digest_of(root, "base", "cpu") != digest_of(root, "base", "cuda")


def test_what_is_no_input_builds_nothing_anew(tmp_path: Path) -> None:
    before = digest_of(write_context(tmp_path))
    (tmp_path / "docs.md").write_text("words")
    (tmp_path / "code" / "__pycache__" / "a.pyc").write_text("bytes")
    assert digest_of(tmp_path) == before


def test_the_base_has_the_packages_that_the_dockerfile_would_install() -> None:
    packages = packages_of(DOCKERFILE)
    assert {"python3", "libibverbs1", "librdmacm1", "libnuma1", "libcurl4"} <= set(packages)
    assert Base(packages=packages).key != Base(packages=(*packages, "vim")).key
    with pytest.raises(ValueError, match="no line ARG PACKAGES"):
        packages_of("FROM scratch\n")


LISTED = """global.index-url='https://mirror.example/simple'
global.find-links='\\n/wheels\\n/no-such-folder'
install.timeout='9'
list.format='columns'
global.target='/elsewhere'
:env:.timeout='180'
"""


def test_pips_settings_are_this_machines_with_the_environment_over_its_files() -> None:
    values = image_pip.settings(LISTED)
    assert values["timeout"] == "180"
    assert values["index-url"] == "https://mirror.example/simple"
    assert not values.keys() & {"format", "target"}
    assert "find-links = /wheels /no-such-folder\n" in image_pip.as_file(values)


def test_folders_that_pips_settings_name_are_seen_by_the_build(tmp_path: Path) -> None:
    (tmp_path / "index" / "simple").mkdir(parents=True)
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "ca.crt").write_text("")
    values = {
        "extra-index-url": f"file://{tmp_path}/index/simple https://mirror.example/simple",
        "cert": f"{tmp_path}/certs/ca.crt",
        "find-links": "/no-such-folder",
        "timeout": "180",
    }
    assert image_pip.folders(values) == [tmp_path / "certs", tmp_path / "index"]


def image(*layers: bytes) -> Stored:
    blobs = [text_blob(content) for content in (b"manifest", b"config", *layers)]
    manifest = {"mediaType": "type", "digest": blobs[0].digest, "size": blobs[0].size}
    return Stored(manifest=manifest, blobs=blobs)


def sent(one: Stored, known: set[str]) -> tuple[dict[str, Any], set[str]]:
    out = io.BytesIO()
    write_archive(one, "localhost/x:test", known, out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        files = {name: archive.extractfile(name) for name in archive.getnames()}
        contents = {name: file.read() for name, file in files.items() if file}
    digests = {f"sha256:{hashlib.sha256(content).hexdigest()}" for content in contents.values()}
    named = {name for name in contents if name.startswith("blobs/")}
    assert {f"blobs/{digest.replace(':', '/')}" for digest in digests} >= named
    index: dict[str, Any] = json.loads(contents["index.json"])
    return index, {name.removeprefix("blobs/").replace("/", ":") for name in named}


def test_of_an_image_only_those_blobs_are_sent_that_are_not_there() -> None:
    one = image(b"base" * 300, b"packages", b"code")
    digests = [blob.digest for blob in one.blobs]
    index, all_sent = sent(one, set())
    assert all_sent == set(digests)
    (entry,) = index["manifests"]
    assert entry["digest"] == digests[0]
    assert entry["annotations"] == {NAME: "localhost/x:test"}
    assert sent(one, set(digests[:-1]))[1] == {digests[0], digests[-1]}


def test_a_layer_is_made_of_its_record_and_its_files(tmp_path: Path) -> None:
    tar = io.BytesIO()
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "a").write_bytes(b"content")
    with tarfile.open(fileobj=tar, mode="w") as archive:
        archive.add(tmp_path / "dir", arcname="./dir")
    whole = tar.getvalue()
    at = whole.index(b"content")
    between = [whole[:at], whole[at + len(b"content") :]]
    entries = [
        {"type": 2, "payload": b64encode(between[0]).decode(), "position": 0},
        {"type": 1, "name": "./dir/", "payload": None, "position": 1},
        {"type": 1, "name": "./dir/a", "size": 7, "payload": "crc", "position": 2},
        {"type": 2, "payload": b64encode(between[1]).decode(), "position": 3},
    ]
    record = tmp_path / "layer.tar-split.gz"
    record.write_bytes(gzip.compress("\n".join(map(json.dumps, entries)).encode()))
    assert b"".join(layer_parts(record, tmp_path)) == whole
