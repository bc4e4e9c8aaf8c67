"""A namespace of a real cluster, by kubectl."""

from __future__ import annotations

import json
import subprocess
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CALL_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """Where a test's objects are."""

    name: str
    kubeconfig: Path

    def kubectl(self, *words: str, stdin: str = "") -> str:
        """Standard output of a call that succeeds."""
        done = self._run(words, stdin)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def can(self, account: str, verb: str, resource: str) -> bool:
        """Whether a service account may do this here."""
        who = f"--as=system:serviceaccount:{self.name}:{account}"
        return self._run(("auth", "can-i", verb, resource, who), "").stdout.strip() == "yes"

    def _run(self, words: Sequence[str], stdin: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["kubectl", "--kubeconfig", self.kubeconfig, "-n", self.name, *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=CALL_S,
        )

    def apply(self, manifests: str) -> None:
        """YAML documents."""
        self.kubectl("apply", "-f", "-", stdin=manifests)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """One object."""
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, name, "-o", "json"))
        return found

    def mount(self, account: str, folder: Path) -> Mapping[str, str]:
        """Put into `folder` what a kubelet mounts, and return a pod's environment."""
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        path = f"/api/v1/namespaces/{self.name}/serviceaccounts/{account}/token"
        answer = self.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(request))
        config = json.loads(self.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
        cluster = config["clusters"][0]["cluster"]
        (folder / "token").write_text(json.loads(answer)["status"]["token"])
        (folder / "ca.crt").write_bytes(b64decode(cluster["certificate-authority-data"]))
        (folder / "namespace").write_text(self.name)
        server = urlsplit(cluster["server"])
        return {
            "KUBERNETES_SERVICE_HOST": server.hostname or "",
            "KUBERNETES_SERVICE_PORT": str(server.port or 443),
        }
