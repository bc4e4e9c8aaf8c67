"""A real Kubernetes: KVLOOP_TEST_KUBECONFIG's, or one that a script beside us starts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.keeper import Keeper
from cluster.mended import unpack_mended

VARIABLE = "KVLOOP_TEST_KUBECONFIG"
SCRIPTS = Path(__file__).parents[2].parent / "shared" / "cluster"
START_S = 400
"""With the packages that it may have to install."""


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[Path]:
    """Of an administrator; a cluster that was started here is stopped in the end."""
    if given := os.environ.get(VARIABLE):
        yield Path(given)
        return
    if not (SCRIPTS / "up").is_file():
        pytest.skip(f"{VARIABLE} is not set, and there is no {SCRIPTS}/up")
    state = Path(os.environ.get("CLUSTER_DIR", "/tmp/kvloop-cluster"))
    unpack_mended(SCRIPTS / "bin/kubenode.xz", state / "bin/kubenode")
    started = subprocess.run([SCRIPTS / "up"], capture_output=True, text=True, timeout=START_S)
    try:
        assert started.returncode == 0, started.stderr
        kubeconfig = Path(started.stdout.split()[-1])
        with Keeper(SCRIPTS / "up", kubeconfig.parent):
            yield kubeconfig
    finally:
        subprocess.run([SCRIPTS / "down"], capture_output=True, timeout=START_S)
