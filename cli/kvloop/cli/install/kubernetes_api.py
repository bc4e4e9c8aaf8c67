"""The cluster beside helm: the operator's Deployment, custom resources, and their pods."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvloop.shared_cache.errors import ConfigError, KVLoopError

GROUP = "kvloop.dev"
VERSION = "v1alpha1"
CALL_S = 20
"""Longest time of one call."""
PART_OF = "app.kubernetes.io/part-of=kvloop"
"""On all that the operator makes."""
Resource = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One of the custom resources."""

    plural: str
    name: str
    short: str


SHARED_CACHE = Kind(plural="sharedcaches", name="SharedCache", short="shc")
PD_CLUSTER = Kind(plural="pdclusters", name="PDCluster", short="pdc")
BENCHMARK = Kind(plural="multiturnbenchmarks", name="MultiTurnBenchmark", short="mtb")
KINDS = (SHARED_CACHE, PD_CLUSTER, BENCHMARK)


class Cluster:
    """Calls of the API server, each with a deadline. Closed by `opened`."""

    def __init__(self, client: Any) -> None:
        from kubernetes import client as api

        self._apps = api.AppsV1Api(client)
        self._core = api.CoreV1Api(client)
        self._custom = api.CustomObjectsApi(client)

    def deployments(self, namespace: str, labels: str) -> list[Any]:
        """Those with all these labels."""
        found = self._apps.list_namespaced_deployment(
            namespace, label_selector=labels, _request_timeout=CALL_S
        )
        return list(found.items)

    def resources(self, kind: Kind, namespaces: Sequence[str]) -> list[Resource] | None:
        """Of these namespaces, or of all; None where the definition is not installed."""
        with _absent():
            if not namespaces:
                found = self._custom.list_cluster_custom_object(
                    GROUP, VERSION, kind.plural, _request_timeout=CALL_S
                )
                return list(found["items"])
            return [
                item
                for namespace in namespaces
                for item in self._custom.list_namespaced_custom_object(
                    GROUP, VERSION, namespace, kind.plural, _request_timeout=CALL_S
                )["items"]
            ]
        return None

    def delete(self, kind: Kind, resource: Resource) -> None:
        """In the background; no error where it is gone already."""
        metadata = resource["metadata"]
        with _absent():
            self._custom.delete_namespaced_custom_object(
                GROUP,
                VERSION,
                metadata["namespace"],
                kind.plural,
                metadata["name"],
                _request_timeout=CALL_S,
            )

    def pods(self, namespaces: Sequence[str], labels: str) -> list[str]:
        """namespace/name of those with all these labels, in these namespaces or in all."""
        wanted: dict[str, Any] = {"label_selector": labels, "_request_timeout": CALL_S}
        if namespaces:
            lists = [self._core.list_namespaced_pod(one, **wanted) for one in namespaces]
        else:
            lists = [self._core.list_pod_for_all_namespaces(**wanted)]
        found = (pod.metadata for one in lists for pod in one.items)
        return [f"{metadata.namespace}/{metadata.name}" for metadata in found]


def operator_labels(release: str) -> str:
    """Of the operator's Deployment and pods, as the chart gives them."""
    return f"app.kubernetes.io/instance={release},app.kubernetes.io/component=operator"


@contextlib.contextmanager
def opened(args: argparse.Namespace) -> Iterator[Cluster]:
    """The cluster that the flags name; errors of its API come out as ours."""
    try:
        from kubernetes import client as api
        from kubernetes import config
        from urllib3.exceptions import HTTPError
    except ImportError as error:
        raise ConfigError(
            f"the client of Kubernetes is missing ({error}): pip install 'kvloop[install]'"
        ) from error
    try:
        with _client(config, api, args) as client:
            yield Cluster(client)
    except config.ConfigException as error:
        raise ConfigError(f"--kubeconfig, --context: {error}") from error
    except api.ApiException as error:
        raise KVLoopError(f"the API server refused: {error.status} {error.reason}") from error
    except HTTPError as error:
        raise KVLoopError(f"the cluster cannot be reached: {error}") from error


def _client(config: Any, api: Any, args: argparse.Namespace) -> Any:
    settings = api.Configuration()
    try:
        config.load_kube_config(
            config_file=None if args.kubeconfig is None else str(args.kubeconfig),
            context=args.context,
            client_configuration=settings,
        )
    except config.ConfigException:
        if args.kubeconfig is not None or args.context is not None:
            raise
        config.load_incluster_config(client_configuration=settings)
    settings.retries = 1
    return api.ApiClient(settings)


@contextlib.contextmanager
def _absent() -> Iterator[None]:
    """What is not there is no error."""
    from kubernetes.client import ApiException

    try:
        yield
    except ApiException as error:
        if error.status != 404:
            raise
