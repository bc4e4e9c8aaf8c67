"""`kvloop status` on the screen, or as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from kvloop.cli.cache.screen import console, print_json
from kvloop.cli.install.kubernetes_api import BENCHMARK, PD_CLUSTER, SHARED_CACHE, Kind, Resource
from kvloop.cli.install.screen import release_line
from kvloop.cli.install.seen import Seen, condition

_COLOURS = {"True": "green", "False": "red", "Unknown": "yellow"}
_LOOP = ("TransferVerified", "WriteBackVerified", "ReuseVerified")
Cell = str | Text


def show(seen: Seen, *, as_json: bool) -> None:
    """Print it."""
    if as_json:
        print_json(as_object(seen))
        return
    screen = console()
    screen.print(release_line(seen.release), markup=False, soft_wrap=True)
    screen.print(_operator_line(seen), markup=False, soft_wrap=True)
    for kind in (SHARED_CACHE, PD_CLUSTER, BENCHMARK):
        found = seen.resources[kind]
        if found is None:
            screen.print(f"{kind.name}: its definition is not installed", markup=False)
        elif found:
            screen.print(_table(kind, found))
        else:
            screen.print(f"{kind.name}: none", markup=False)


def as_object(seen: Seen) -> dict[str, Any]:
    """For programs."""
    keys = ("name", "namespace", "status", "revision", "chart_version", "app_version")
    return {
        "release": {key: seen.release[key] for key in keys},
        "operator": None if seen.operator is None else asdict(seen.operator),
        "is_ready": seen.is_ready,
        **{
            kind.plural: None if found is None else [_short(one) for one in found]
            for kind, found in seen.resources.items()
        },
    }


def _short(resource: Resource) -> dict[str, Any]:
    metadata = resource["metadata"]
    return {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "status": resource.get("status") or {},
    }


def _operator_line(seen: Seen) -> str:
    if seen.operator is None:
        return "operator: there is no Deployment of it"
    one = seen.operator
    return f"operator {one.name}: {one.ready} of {one.replicas} pods ready, image {one.image}"


def _table(kind: Kind, found: list[Resource]) -> Table:
    heads, cells = _COLUMNS[kind]
    table = Table(title=kind.name, title_justify="left")
    for head in ("namespace", "name", *heads):
        table.add_column(head, overflow="fold")
    for one in found:
        metadata = one["metadata"]
        table.add_row(metadata["namespace"], metadata["name"], *cells(one))
    return table


def _cache(resource: Resource) -> list[Cell]:
    status = resource.get("status") or {}
    used = " of ".join(text for key in ("used", "capacity") if (text := status.get(key)))
    return [str(resource["spec"].get("backend", "")), *_ready(resource), used]


def _cluster(resource: Resource) -> list[Cell]:
    status = resource.get("status") or {}
    roles = (status.get(role) or {} for role in ("prefill", "decode", "router"))
    pods = " ".join(f"{role.get('ready', 0)}/{role.get('replicas', 0)}" for role in roles)
    loop = [_status(condition(resource, one)) for one in _LOOP]
    return [pods, str(status.get("attachedCache") or ""), *loop, *_ready(resource)]


def _benchmark(resource: Resource) -> list[Cell]:
    status = resource.get("status") or {}
    keys = ("phase", "ttftWithReuse", "ttftWithoutReuse", "speedup", "hit", "message")
    return [str(status.get(key) or "") for key in keys]


def _ready(resource: Resource) -> list[Cell]:
    ready = condition(resource, "Ready")
    return [_status(ready), str(ready.get("reason", "")), str(ready.get("message", ""))]


def _status(one: Any) -> Text:
    status = str(one.get("status", "Unknown"))
    return Text(status, style=_COLOURS.get(status, ""))


_COLUMNS: dict[Kind, tuple[tuple[str, ...], Callable[[Resource], list[Cell]]]] = {
    SHARED_CACHE: (("backend", "ready", "reason", "message", "used"), _cache),
    PD_CLUSTER: (
        (
            "pods ready: prefill decode router",
            "cache",
            "transfer",
            "write-back",
            "reuse",
            "ready",
            "reason",
            "message",
        ),
        _cluster,
    ),
    BENCHMARK: (("phase", "TTFT with", "TTFT without", "speedup", "hit", "message"), _benchmark),
}
