"""A real Kubernetes: KVLOOP_TEST_KUBECONFIG's, or one that a script beside us starts.

`KUBECONFIG` is never looked at.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.images import Images, NoImagesError, images_for
from cluster.keeper import Keeper
from cluster.mended import unpack_mended
from cluster.programs import on_path
from cluster_namespace import Namespace

VARIABLE = "KVLOOP_TEST_KUBECONFIG"
SCRIPTS = Path(__file__).parents[2].parent / "shared" / "cluster"
START_S = 400
"""With the packages that it may have to install."""
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"

# Before test modules are imported: they ask for helm and kubectl then.
on_path()


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[Path]:
    """Of an administrator; a cluster that was started here is stopped in the end."""
    if given := os.environ.get(VARIABLE):
        yield Path(given)
        return
    if not (SCRIPTS / "up").is_file():
        pytest.skip(f"{VARIABLE} is not set, and there is no {SCRIPTS}/up")
    if os.geteuid() != 0:
        pytest.skip(f"{VARIABLE} is not set, and {SCRIPTS}/up needs root")
    state = Path(os.environ.get("CLUSTER_DIR", "/tmp/kvloop-cluster"))
    state.mkdir(parents=True, exist_ok=True)
    # One process has it: another that would start it too waits until it is stopped.
    with (state.parent / f"{state.name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield from _started(state)


def _started(state: Path) -> Iterator[Path]:
    was_up = _is_up(state / "run")
    unpack_mended(SCRIPTS / "bin/kubenode.xz", state / "bin/kubenode")
    started = subprocess.run([SCRIPTS / "up"], capture_output=True, text=True, timeout=START_S)
    try:
        if started.returncode != 0:
            pytest.skip(f"{SCRIPTS}/up starts no cluster on this machine: {started.stderr[-500:]}")
        kubeconfig = Path(started.stdout.split()[-1])
        with Keeper(SCRIPTS / "up", kubeconfig.parent):
            yield kubeconfig
    finally:
        if not was_up:
            subprocess.run([SCRIPTS / "down"], capture_output=True, timeout=START_S)


def _is_up(run: Path) -> bool:
    """Whether somebody's cluster is there already: it is used, and stays."""
    return any(Path("/proc", file.read_text().strip()).exists() for file in run.glob("*.pid"))


@pytest.fixture(scope="session")
def images(kubeconfig: Path) -> Images:
    """Of this tree, on the cluster's node."""
    try:
        return images_for(kubeconfig)
    except NoImagesError as error:
        pytest.skip(str(error))


@pytest.fixture
def namespace(kubeconfig: Path) -> Iterator[Namespace]:
    """A fresh one that lets only restricted pods in; nothing of it is left."""
    one = Namespace(name=f"test-{secrets.token_hex(4)}", kubeconfig=kubeconfig)
    one.kubectl("create", "namespace", one.name)
    one.kubectl("label", "namespace", one.name, RESTRICTED)
    try:
        yield one
    finally:
        one.kubectl("delete", "namespace", one.name, "--wait=false")
