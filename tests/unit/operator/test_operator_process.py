"""Flags, logs, health and what the process is made of."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from kvloop.operator import __main__ as command
from kvloop.operator.api import configuration
from kvloop.operator.controllers.base import Event
from kvloop.operator.names import FIELD_MANAGER
from kvloop.operator.runtime import logs, process
from kvloop.operator.runtime.events import event_manifest, event_name
from kvloop.operator.runtime.health import Checks, serving
from kvloop.operator.runtime.metrics import Metrics
from kvloop.operator.runtime.process import CONTROLLERS, load_controllers, version_of
from kvloop.operator.runtime.watch import OWNED, kopf_settings
from kvloop.operator.settings import Settings


def settings_of(*words: str) -> Settings:
    """Of a command line."""
    flags = command.parser().parse_args(["--node-image", "i", *words])
    return command.settings_of(flags)


def test_without_a_namespace_all_are_watched() -> None:
    assert settings_of().namespaces == ()


def test_namespaces_are_watched_once_each_and_the_lease_lies_in_the_first() -> None:
    made = settings_of("--namespace", "b", "--namespace", "a", "--namespace", "b")
    assert made.namespaces == ("b", "a")
    assert made.own_namespace == "b"


def test_every_flag_reaches_the_settings() -> None:
    made = settings_of(
        *("--operator-image", "o", "--own-namespace", "own", "--port", "1"),
        *("--api-timeout", "2", "--node-timeout", "3", "--resync", "4"),
    )
    assert made == Settings(
        node_image="i",
        operator_image="o",
        own_namespace="own",
        port=1,
        api_timeout_s=2.0,
        node_timeout_s=3.0,
        resync_s=4.0,
    )


@pytest.mark.parametrize(
    "words",
    [("--resync", "0"), ("--api-timeout", "-1"), ("--node-timeout", "nan"), ("--port", "70000")],
    ids=lambda words: words[0],
)
def test_a_number_out_of_range_is_refused_by_its_flag(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        settings_of(*words)
    assert f"{words[0]}: {words[1]} is not" in capsys.readouterr().err


def test_the_node_image_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main([])
    assert "--node-image" in capsys.readouterr().err


def test_a_kubeconfig_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "none"
    assert command.main(["--node-image", "i", "--kubeconfig", str(missing)]) == 2
    assert f"--kubeconfig {missing}" in capsys.readouterr().err


async def test_outside_of_a_cluster_a_kubeconfig_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", "/never/read")
    with pytest.raises(ValueError, match="no --kubeconfig, and not in a pod"):
        await configuration(None)


def test_there_is_a_controller_of_each_kind_and_it_knows_its_kind() -> None:
    loaded = load_controllers(Settings(node_image="i"))
    assert {kind: controller.kind for kind, controller in loaded.items()} == {
        kind: kind for kind in CONTROLLERS
    }


async def test_who_leads_no_more_ends_what_controllers_run_beside_their_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[str] = []

    class Closing:
        def __init__(self, kind: str) -> None:
            self.kind = kind

        async def close(self) -> None:
            closed.append(self.kind)

    class Ending:
        stuck = not_ready = staticmethod(list)

        def __init__(self, *_: object) -> None: ...

        async def run(self) -> None:
            raise RuntimeError("ended")

    monkeypatch.setattr(process, "load_controllers", lambda _: {k: Closing(k) for k in CONTROLLERS})
    monkeypatch.setattr(process, "Operator", Ending)
    parts = process._Parts(
        settings=Settings(node_image="i"),
        configured=cast(Any, None),
        api=cast(Any, None),
        metrics=Metrics(),
        checks=Checks(),
    )
    with pytest.raises(RuntimeError, match="ended"):
        await process._operate(parts)
    assert closed == list(CONTROLLERS)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ({"major": "1", "minor": "20"}, (1, 20)),
        ({"major": "1", "minor": "27+"}, (1, 27)),
        ({}, (1, 27)),
        ({"major": "", "minor": "x"}, (1, 27)),
    ],
)
def test_versions_are_read_as_servers_write_them(
    said: dict[str, str], version: tuple[int, int]
) -> None:
    assert version_of(said) == version


def test_kopf_only_watches() -> None:
    made = kopf_settings()
    assert made.scanning.disabled and made.peering.standalone and not made.posting.enabled
    assert made.watching.server_timeout is not None
    assert made.networking.request_timeout is not None


@pytest.mark.parametrize("kind", OWNED, ids=lambda kind: kind.kind)
def test_of_kinds_that_others_use_too_only_ours_are_watched(kind: object) -> None:
    chosen = {
        (selector.group, selector.version, selector.any_name): label
        for selector, label in kopf_settings().watching.label_selectors.items()
    }
    key = (kind.group, kind.version, kind.plural)  # type: ignore[attr-defined]
    assert chosen[key] == f"app.kubernetes.io/managed-by={FIELD_MANAGER}"


async def test_health_tells_what_is_wrong_now() -> None:
    checks, metrics = Checks(), Metrics()
    wrong: list[str] = []
    checks.ready = [lambda: wrong]
    async with serving(0, checks, metrics) as port, aiohttp.ClientSession() as client:

        async def ask(path: str) -> tuple[int, str]:
            async with client.get(f"http://127.0.0.1:{port}{path}") as answer:
                return answer.status, await answer.text()

        assert await ask("/readyz") == (200, "ok")
        wrong.append("no CRDs")
        assert await ask("/readyz") == (503, "no CRDs")
        assert await ask("/healthz") == (200, "ok")
        checks.alive = [lambda: ["stuck"]]
        assert await ask("/healthz") == (503, "stuck")
        metrics.leader.set(1)
        assert "kvloop_operator_leader 1.0" in (await ask("/metrics"))[1]


def test_conditions_of_a_resource_that_is_gone_are_shown_no_longer() -> None:
    metrics = Metrics()
    metrics.show_conditions("PDCluster", "n", "c", [{"type": "Ready", "status": "Unknown"}])
    labels = {"kind": "PDCluster", "namespace": "n", "name": "c", "type": "Ready"}

    def value(status: str) -> float | None:
        return metrics.registry.get_sample_value(
            "kvloop_resource_condition", {**labels, "status": status}
        )

    assert (value("True"), value("False"), value("Unknown")) == (0.0, 0.0, 1.0)
    metrics.show_conditions("PDCluster", "n", "c", [])
    assert value("Unknown") is None
    metrics.forget("PDCluster", "n", "c")


def test_a_json_log_is_an_object_a_line() -> None:
    record = logging.LogRecord("kvloop", logging.INFO, "f", 1, "said %s", ("it",), None)
    told = json.loads(logs.JsonFormatter().format(record))
    assert (told["level"], told["logger"], told["message"]) == ("INFO", "kvloop", "said it")
    assert told["time"].endswith("+00:00")


RESOURCE = {
    "apiVersion": "kvloop.dev/v1alpha1",
    "kind": "PDCluster",
    "metadata": {"name": "c", "namespace": "n", "uid": "u", "resourceVersion": "1"},
}


def test_the_same_event_has_the_same_name_and_another_has_another() -> None:
    one = Event(type="Normal", reason="Ready", message="m")
    assert event_name(RESOURCE, one) == event_name(RESOURCE, one)
    other = Event(type="Normal", reason="Ready", message="n")
    assert event_name(RESOURCE, one) != event_name(RESOURCE, other)


def test_an_event_is_about_its_resource_and_no_longer_than_the_api_takes() -> None:
    event = Event(type="Warning", reason="Failed", message="x" * 5000)
    made = event_manifest(RESOURCE, event, event_name(RESOURCE, event), "2026-01-01T00:00:00Z")
    assert made["involvedObject"]["uid"] == "u"
    assert made["involvedObject"]["kind"] == "PDCluster"
    assert len(made["message"]) < 1024
    assert (made["type"], made["reason"], made["count"]) == ("Warning", "Failed", 1)


async def test_who_leads_no_more_shows_no_conditions_of_resources(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = SimpleNamespace(
        settings=None, configured=None, api=None, metrics=Metrics(), checks=Checks()
    )
    labels = {"kind": "PDCluster", "namespace": "n", "name": "c", "type": "Ready", "status": "True"}

    class Leads:
        stuck = not_ready = staticmethod(list)

        async def run(self) -> None:
            condition = {"type": "Ready", "status": "True"}
            parts.metrics.show_conditions("PDCluster", "n", "c", [condition])

    monkeypatch.setattr(process, "load_controllers", lambda _: {})
    monkeypatch.setattr(process, "Operator", lambda *_: Leads())
    await process._operate(cast(Any, parts))
    registry = parts.metrics.registry
    assert registry.get_sample_value("kvloop_resource_condition", labels) is None
    assert registry.get_sample_value("kvloop_operator_leader") == 0
