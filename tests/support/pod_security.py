"""The restricted level of Kubernetes' Pod Security Standards, as a function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PodSpec = dict[str, Any]
VOLUMES = frozenset(
    {
        *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"),
        *("projected", "secret"),
    }
)
"""What restricted pods may mount."""
SECCOMP = ("RuntimeDefault", "Localhost")
SYSCTLS = frozenset(
    {
        *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range"),
        *("net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_syncookies"),
        *("net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"),
        *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout"),
        *("net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes"),
        *("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
    }
)


def violations(pod: PodSpec) -> list[str]:
    """What a namespace with the restricted level would refuse; empty: it runs there."""
    found = list(_of_pod(pod))
    for container in containers(pod):
        found += [f"{container['name']}: {what}" for what in _of_container(container, pod)]
    return found


def containers(pod: PodSpec) -> list[dict[str, Any]]:
    """Of all three lists."""
    lists = ("initContainers", "containers", "ephemeralContainers")
    return [container for name in lists for container in pod.get(name) or []]


def _of_pod(pod: PodSpec) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield field
    for volume in pod.get("volumes") or []:
        for kind in set(volume) - {"name"} - VOLUMES:
            yield f"volume {volume['name']} is a {kind}"
    security = pod.get("securityContext") or {}
    for sysctl in security.get("sysctls") or []:
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    yield from _of_context(security, "pod")


def _of_container(container: dict[str, Any], pod: PodSpec) -> Iterator[str]:
    above, security = pod.get("securityContext") or {}, container.get("securityContext") or {}
    yield from _of_context(security, "container")
    if security.get("privileged"):
        yield "privileged"
    if security.get("procMount", "Default") != "Default":
        yield "procMount"
    if security.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if security.get("runAsNonRoot", above.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot is not true"
    seccomp = security.get("seccompProfile", above.get("seccompProfile")) or {}
    if seccomp.get("type") not in SECCOMP:
        yield "seccompProfile is not RuntimeDefault"
    capabilities = security.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or []):
        yield "capabilities ALL are not dropped"
    for added in set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield f"capability {added} is added"
    for port in container.get("ports") or []:
        if port.get("hostPort"):
            yield f"hostPort {port['hostPort']}"


def _of_context(security: dict[str, Any], whose: str) -> Iterator[str]:
    if security.get("runAsUser") == 0:
        yield f"runAsUser of the {whose} is 0"
    if (security.get("windowsOptions") or {}).get("hostProcess"):
        yield f"hostProcess of the {whose}"
    options = security.get("seLinuxOptions") or {}
    kinds = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
    if options.get("type", "") not in kinds or options.get("user") or options.get("role"):
        yield f"seLinuxOptions of the {whose}"
