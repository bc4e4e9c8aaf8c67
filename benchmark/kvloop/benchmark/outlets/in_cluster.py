"""How a pod reaches its cluster's API server: what the kubelet puts into every container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kvloop.shared_cache.errors import ConfigError

MOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
HOST, PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"


@dataclass(frozen=True, slots=True, kw_only=True)
class InCluster:
    """An API server and who asks it."""

    url: str
    mount: Path
    """Holds `token`, `ca.crt` and `namespace`; the kubelet replaces the token before it ends."""

    @classmethod
    def found(
        cls, environment: Mapping[str, str], mount: Path = MOUNT, *, flag: str = "--config-map"
    ) -> InCluster:
        """Raises ConfigError, naming the flag, outside a pod, or where its service account is not
        mounted."""
        host, port = environment.get(HOST), environment.get(PORT, "443")
        if not host:
            instead = "; elsewhere use --json FILE" if flag == "--config-map" else ""
            raise ConfigError(f"{flag} works in a pod only: {HOST} is not set{instead}")
        missing = [name for name in ("token", "ca.crt") if not (mount / name).is_file()]
        if missing:
            raise ConfigError(
                f"{flag}: {mount} has no {' and no '.join(missing)}; the pod needs a service "
                "account (automountServiceAccountToken not false)"
            )
        return cls(url=f"https://{f'[{host}]' if ':' in host else host}:{port}", mount=mount)

    @property
    def token(self) -> str:
        """Read anew each time: it changes while a long run goes on."""
        return (self.mount / "token").read_text().strip()

    def is_in(self, namespace: str) -> bool:
        """Whether that is the pod's own namespace; False where the mount does not say."""
        file = self.mount / "namespace"
        return file.is_file() and file.read_text().strip() == namespace

    @property
    def namespace(self) -> str:
        """The pod's own. Raises ConfigError if the mount does not say."""
        try:
            return (self.mount / "namespace").read_text().strip()
        except OSError as error:
            raise ConfigError(
                f"--config-map: {self.mount}/namespace: {error.strerror}; "
                "give NAMESPACE/NAME instead of NAME"
            ) from error
