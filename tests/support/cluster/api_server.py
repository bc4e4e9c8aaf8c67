"""An API server of a test's own: etcd, kube-apiserver and the garbage collector; no kubelet.

It may be killed and started again, which a shared cluster's may not. The binaries are those of
the cluster that runs the tests: `bin/` beside its kubeconfig.
"""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cluster.mended import mend

START_S = 400.0
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
"""Every call, by whom, and whether it was let pass."""


@dataclass(slots=True, kw_only=True)
class ApiServer:
    """Its processes and files."""

    folder: Path
    binaries: Path
    port: int
    etcd_ports: tuple[int, int]
    tokens: dict[str, str]
    """By user; admin is in system:masters, others have no rights but what RBAC gives."""
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def kubeconfig(self, user: str) -> Path:
        """A file for one user."""
        authority = base64.b64encode((self.folder / "ca.crt").read_bytes()).decode()
        server = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority-data": authority,
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "clusters": [{"name": "c", "cluster": server}],
            "users": [{"name": "u", "user": {"token": self.tokens[user]}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }
        path = self.folder / f"{user}.kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def start(self) -> None:
        """And wait until it serves."""
        self._run("kube-apiserver", _server_flags(self))
        deadline = time.monotonic() + START_S
        admin = self.kubeconfig("admin")
        while not _is_ready(admin):
            assert self._processes["kube-apiserver"].poll() is None, self.log("kube-apiserver")
            assert time.monotonic() < deadline, self.log("kube-apiserver")
            time.sleep(0.3)

    def start_all(self) -> None:
        """etcd first, the garbage collector last."""
        client, peer = (f"http://127.0.0.1:{port}" for port in self.etcd_ports)
        self._run(
            "etcd",
            [
                *("--data-dir", str(self.folder / "etcd"), "--unsafe-no-fsync"),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"default={peer}"),
            ],
        )
        self.start()
        config = self.kubeconfig("admin")
        self._run(
            "kube-controller-manager",
            [
                f"--kubeconfig={config}",
                "--controllers=garbagecollector,namespace",
                *("--leader-elect=false", "--port=0", "--secure-port=0"),
            ],
        )

    def kill(self) -> None:
        """The API server only, as by a crash."""
        self._end("kube-apiserver")

    def start_if_down(self) -> None:
        """After a test that failed between kill and start."""
        if "kube-apiserver" not in self._processes:
            self.start()

    def stop_all(self) -> None:
        """In no order."""
        for name in list(self._processes):
            self._end(name)

    def audit(self, user: str) -> Iterator[dict[str, object]]:
        """Calls that a user made."""
        for line in (self.folder / "audit.log").read_text().splitlines():
            event = json.loads(line)
            if event["user"]["username"] == user:
                yield event

    def log(self, name: str) -> str:
        """The end of it."""
        return (self.folder / f"{name}.log").read_text()[-3000:]

    def _run(self, name: str, flags: Sequence[str]) -> None:
        program = self.binaries / name
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [program if program.exists() else name, *flags], stdout=log, stderr=log
            )

    def _end(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait(30)


@contextmanager
def api_server(folder: Path, kubeconfig: Path, users: Sequence[str]) -> Iterator[ApiServer]:
    """Started; skipped where the cluster's binaries are not here."""
    binary = kubeconfig.parent / "bin" / "kubenode"
    if not binary.exists():
        pytest.skip(f"there is no {binary}: the cluster was not started by shared/cluster/up")
    made = ApiServer(
        folder=folder,
        binaries=_mended_binaries(binary, folder / "bin"),
        port=_free_port(),
        etcd_ports=(_free_port(), _free_port()),
        tokens={user: secrets.token_hex(16) for user in ("admin", *users)},
    )
    _write_files(made)
    try:
        made.start_all()
        yield made
    finally:
        made.stop_all()


def _mended_binaries(binary: Path, folder: Path) -> Path:
    """A copy under the names that it goes by."""
    folder.mkdir()
    copy = Path(shutil.copy(binary, folder))
    mend(copy)
    for name in ("kube-apiserver", "kube-controller-manager"):
        (folder / name).symlink_to(copy)
    return folder


def _write_files(server: ApiServer) -> None:
    folder = server.folder
    groups = {"admin": ',"system:masters"'}
    lines = [
        f"{token},{user},{user}-id{groups.get(user, '')}" for user, token in server.tokens.items()
    ]
    (folder / "tokens.csv").write_text("\n".join(lines) + "\n")
    (folder / "audit.json").write_text(json.dumps(AUDIT))
    subject = ("-subj", "/CN=kvloop-test", "-addext", "subjectAltName=IP:127.0.0.1")
    _openssl(
        folder,
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject),
        *("-keyout", "api.key", "-out", "ca.crt"),
    )
    _openssl(folder, "genrsa", "-out", "sa.key", "2048")


def _openssl(folder: Path, *words: str) -> None:
    done = subprocess.run(
        ["openssl", *words], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def _server_flags(server: ApiServer) -> list[str]:
    folder = server.folder
    return [
        f"--etcd-servers=http://127.0.0.1:{server.etcd_ports[0]}",
        f"--secure-port={server.port}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        f"--tls-cert-file={folder}/ca.crt",
        f"--tls-private-key-file={folder}/api.key",
        f"--token-auth-file={folder}/tokens.csv",
        f"--service-account-key-file={folder}/sa.key",
        f"--service-account-signing-key-file={folder}/sa.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--disable-admission-plugins=ServiceAccount",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.97.0.0/16",
        f"--audit-policy-file={folder}/audit.json",
        f"--audit-log-path={folder}/audit.log",
        "--audit-log-mode=blocking",
    ]


def _is_ready(kubeconfig: Path) -> bool:
    asked = ["kubectl", "--kubeconfig", str(kubeconfig), "get", "--raw", "/readyz"]
    done = subprocess.run(asked, capture_output=True, timeout=200)
    return done.returncode == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
