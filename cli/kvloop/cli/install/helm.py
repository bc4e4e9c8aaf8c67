"""Helm, as a library: calls that Ctrl-C ends, and its errors in words."""

from __future__ import annotations

import argparse
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future
from typing import Any, TypeVar

from kvloop.shared_cache.errors import ConfigError, KVLoopError

Result = TypeVar("Result")
_STOPPING_S = 15.0
"""After a cancel, for helm to write down what became of the release."""
_OVERRUN_S = 15.0


def library() -> Any:
    """The module helm_python."""
    try:
        import helm_python
    except ImportError as error:
        raise ConfigError(
            f"helm-python-sdk is missing ({error}): pip install 'kvloop[install]'"
        ) from error
    return helm_python


@contextlib.contextmanager
def connected(args: argparse.Namespace) -> Iterator[Any]:
    """helm_python's Config of the flags; its errors come out as ours."""
    helm = library()
    path = None if args.kubeconfig is None else str(args.kubeconfig)
    try:
        with helm.Config(
            kubeconfig_path=path, kube_context=args.context, namespace=args.namespace
        ) as config:
            yield config
    except helm.HelmError as error:
        raise in_words(error, args) from error


def run(args: argparse.Namespace, work: Callable[[Any], Result]) -> Result:
    """`work` with a context that cancels it; in a thread, so that Ctrl-C is not held up by it.

    KVLoopError where helm overruns --timeout by much: it has no deadline of its own everywhere.
    """
    context = library().HelmContext()
    future: Future[Result] = Future()

    def call() -> None:
        try:
            future.set_result(work(context))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True, name="helm").start()
    try:
        futures.wait([future], timeout=args.timeout + _OVERRUN_S)
    except KeyboardInterrupt:
        _cancel(context, future)
        raise
    if not future.done():
        _cancel(context, future)
        raise KVLoopError(f"helm did not end within --timeout {args.timeout:g}s")
    return future.result()


def _cancel(context: Any, future: Future[Any]) -> None:
    context.cancel()
    with contextlib.suppress(Exception):
        future.result(timeout=_STOPPING_S)


def in_words(error: Any, args: argparse.Namespace) -> KVLoopError:
    """What a user can do about an error of helm."""
    helm, text = library(), str(error).strip()
    where = f"release {args.release!r} in namespace {args.namespace!r}"
    if isinstance(error, helm.HelmNotFoundError) or "has no deployed releases" in text:
        return KVLoopError(f"there is no {where}: name another, or run kvloop install")
    if isinstance(error, helm.HelmKubeError):
        return KVLoopError(f"the cluster cannot be reached: {_after(text, 'unreachable: ')}")
    if isinstance(error, helm.HelmValuesError) or "specifications of the schema" in text:
        return ConfigError(f"--values or --set: {_findings(text)}")
    if isinstance(error, helm.HelmInvalidArgError | helm.HelmChartLoadError):
        return ConfigError(text)
    return KVLoopError(_release_words(text, args, where))


def _release_words(text: str, args: argparse.Namespace, where: str) -> str:
    if "cannot reuse a name" in text or "cannot re-use a name" in text:
        return f"there is a {where} already: change it by kvloop upgrade"
    if f'namespaces "{args.namespace}" not found' in text:
        return f"there is no namespace {args.namespace!r}: make it, or add --create-namespace"
    if "another operation" in text and "in progress" in text:
        return (
            f"{where} is being changed: wait for that; where it was killed, kvloop uninstall "
            "and install, or helm rollback, end it"
        )
    if "context deadline exceeded" in text or "timed out" in text.lower():
        return f"{where} was not ready within --timeout {args.timeout:g}s: {text}"
    if "invalid ownership metadata" in text:
        return (
            f"{text}\nThese objects are there already and belong to no or another release; "
            "where they are the custom resource definitions, add --set crds.enabled=false"
        )
    return text


def _after(text: str, mark: str) -> str:
    return text.partition(mark)[2] or text


def _findings(text: str) -> str:
    """The schema's findings on one line."""
    lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
    found = [line for line in lines if line.startswith("at ")]
    return "; ".join(found) or text
