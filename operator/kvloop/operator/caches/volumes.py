"""Of caches whose pages lie in a volume or another's service: what can be seen without mounting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvloop.operator.caches.seen import Verdict

NOT_OBSERVABLE = Verdict(
    status="Unknown",
    reason="NotObservable",
    message="nothing runs for it here: whether it serves is told by the PDClusters that attach it",
)


def of_claim(name: str, claim: Mapping[str, Any] | None) -> Verdict:
    """A bound claim is there for pods to mount; whether they can is told by their PDCluster."""
    if claim is None:
        words = f"there is no PersistentVolumeClaim {name} in this namespace"
        return Verdict(status="False", reason="VolumeNotFound", message=words)
    phase = claim.get("status", {}).get("phase", "Pending")
    if phase == "Lost":
        words = f"PersistentVolumeClaim {name} has lost its volume"
        return Verdict(status="False", reason="VolumeLost", message=words)
    if phase != "Bound":
        words = (
            f"PersistentVolumeClaim {name} is {phase}: it is bound once a pod mounts it, "
            "or waits for a volume or a provisioner"
        )
        return Verdict(status="Unknown", reason="VolumeNotBound", message=words)
    words = f"PersistentVolumeClaim {name} is bound"
    if "ReadWriteMany" not in (claim.get("spec", {}).get("accessModes") or ()):
        words += "; without ReadWriteMany only pods of one machine can share it"
    return Verdict(status="True", reason="Ready", message=words)


def claimed_bytes(claim: Mapping[str, Any] | None) -> str | None:
    """The volume's size, as a quantity."""
    found = ((claim or {}).get("status", {}).get("capacity") or {}).get("storage")
    return str(found) if found else None
