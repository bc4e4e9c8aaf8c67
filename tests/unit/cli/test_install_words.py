"""Helm's errors, as `kvloop install` and its kin tell them."""

from __future__ import annotations

import argparse
import threading
import time

import helm_python as helm
import pytest

from kvloop.cli.install import helm as ours
from kvloop.cli.install.helm import in_words, run
from kvloop.shared_cache.errors import ConfigError, KVLoopError

ARGS = argparse.Namespace(release="loop", namespace="serving", timeout=300.0)

WORDS = [
    (helm.HelmNotFoundError("release: not found"), KVLoopError, "there is no release 'loop'"),
    (
        helm.HelmReleaseError('"loop" has no deployed releases'),
        KVLoopError,
        "there is no release 'loop' in namespace 'serving': name another, or run kvloop install",
    ),
    (
        helm.HelmReleaseError("cannot reuse a name that is still in use"),
        KVLoopError,
        "there is a release 'loop' in namespace 'serving' already: change it by kvloop upgrade",
    ),
    (
        helm.HelmReleaseError('create: failed to create: namespaces "serving" not found'),
        KVLoopError,
        "there is no namespace 'serving': make it, or add --create-namespace",
    ),
    (
        helm.HelmReleaseError("another operation (install/upgrade/rollback) is in progress"),
        KVLoopError,
        "is being changed: wait for that; where it was killed, kvloop uninstall",
    ),
    (
        helm.HelmReleaseError("resource not ready\ncontext deadline exceeded"),
        KVLoopError,
        "was not ready within --timeout 300s",
    ),
    (
        helm.HelmReleaseError("CustomResourceDefinition exists; invalid ownership metadata"),
        KVLoopError,
        "add --set crds.enabled=false",
    ),
    (
        helm.HelmKubeError("kubernetes cluster unreachable: no route"),
        KVLoopError,
        "the cluster cannot be reached: no route",
    ),
    (
        helm.HelmReleaseError(
            "values don't meet the specifications of the schema(s) in the following chart(s):\n"
            "kvloop:\n- at '/crds': additional properties 'x' not allowed\n- at '/a': b\n"
        ),
        ConfigError,
        "--values or --set: at '/crds': additional properties 'x' not allowed; at '/a': b",
    ),
    (helm.HelmChartLoadError("no Chart.yaml"), ConfigError, "no Chart.yaml"),
    (helm.HelmReleaseError("something else"), KVLoopError, "something else"),
]


@pytest.mark.parametrize(("error", "kind", "told"), WORDS, ids=[told for _, _, told in WORDS])
def test_an_error_says_what_to_do(
    error: helm.HelmError, kind: type[KVLoopError], told: str
) -> None:
    said = in_words(error, ARGS)
    assert type(said) is kind
    assert told in str(said)


def test_an_error_of_the_thread_reaches_the_caller() -> None:
    def fail(_: object) -> None:
        raise helm.HelmReleaseError("no")

    with pytest.raises(helm.HelmReleaseError, match="no"):
        run(ARGS, fail)


def test_helm_that_does_not_end_is_cancelled_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "_OVERRUN_S", 0.1)
    monkeypatch.setattr(ours, "_STOPPING_S", 0.1)
    hangs = threading.Event()
    args = argparse.Namespace(release="loop", namespace="serving", timeout=0.1)
    with pytest.raises(KVLoopError, match="helm did not end within --timeout"):
        run(args, lambda _: hangs.wait(30))
    hangs.set()


def test_an_interrupt_cancels_helm_and_waits_for_what_it_writes_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cancelled = threading.Event()

    class Context:
        def cancel(self) -> None:
            cancelled.set()

    class Library:
        HelmContext = Context

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    wrote: list[float] = []

    def work(_: object) -> None:
        assert cancelled.wait(30)
        wrote.append(time.monotonic())

    monkeypatch.setattr(ours, "library", Library)
    monkeypatch.setattr(ours.futures, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(ARGS, work)
    assert wrote
