"""The chart lies in the wheel, whole."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import helm_python
import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
INSIDE = "kvloop/cli/chart/"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this repository with the hatchling that is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    words = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [sys.executable, *words, "--wheel-dir", folder, ROOT],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_file_of_the_chart(wheel: Path) -> None:
    chart = ROOT / "charts" / "kvloop"
    there = {str(path.relative_to(chart)) for path in chart.rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        packed = {
            name.removeprefix(INSIDE) for name in archive.namelist() if name.startswith(INSIDE)
        }
    assert packed == there and "Chart.yaml" in packed


def test_kvloop_install_of_an_unpacked_wheel_finds_its_own_chart(
    wheel: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "from kvloop.cli.install.bundled import bundled_chart; print(bundled_chart())"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = Path(done.stdout.strip())
    assert found == tmp_path / "kvloop" / "cli" / "chart"
    with helm_python.Chart.load(found) as chart:
        assert chart.metadata["name"] == "kvloop"


def test_helm_packs_the_chart_with_its_examples_and_files(tmp_path: Path) -> None:
    archive = helm_python.package(ROOT / "charts" / "kvloop", destination=tmp_path)
    with helm_python.Chart.load(archive) as chart:
        names = {one["name"] for one in chart.files}
        assert {"examples/demo.yaml", "files/dashboard.json", "files/rbac-rules.yaml"} <= names
        assert chart.render({}, name="kvloop", namespace="ns")
