"""kopf's HTTP session: the same server and credentials as ours, and its calls counted."""

from __future__ import annotations

import ssl
from types import SimpleNamespace
from typing import Any

import aiohttp
from kubernetes.aio import client as kubernetes_client

from kvloop.operator.names import FIELD_MANAGER
from kvloop.operator.runtime.calls import classify, count
from kvloop.operator.runtime.metrics import Metrics


async def session(
    configured: kubernetes_client.Configuration, metrics: Metrics
) -> aiohttp.ClientSession:
    """Made in the loop that uses it; its token is as fresh as the file."""
    headers = {"User-Agent": FIELD_MANAGER}
    bearer = (await configured.auth_settings()).get("BearerToken")
    if bearer is not None:
        headers["Authorization"] = bearer["value"]
    connector = aiohttp.TCPConnector(limit=0, ssl=_tls(configured))
    return aiohttp.ClientSession(
        connector=connector, headers=headers, trace_configs=[_counting(metrics)], trust_env=True
    )


def _tls(configured: kubernetes_client.Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configured.ssl_ca_cert)
    if configured.cert_file:
        context.load_cert_chain(configured.cert_file, keyfile=configured.key_file)
    if not configured.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _counting(metrics: Metrics) -> aiohttp.TraceConfig:
    traces = aiohttp.TraceConfig()

    async def answered(
        _: aiohttp.ClientSession, __: SimpleNamespace, end: aiohttp.TraceRequestEndParams
    ) -> None:
        _count(metrics, end.method, end.url, end.response.status)

    async def failed(
        _: aiohttp.ClientSession, __: SimpleNamespace, end: aiohttp.TraceRequestExceptionParams
    ) -> None:
        _count(metrics, end.method, end.url, None)

    traces.on_request_end.append(answered)
    traces.on_request_exception.append(failed)
    return traces


def _count(metrics: Metrics, method: str, url: Any, code: int | None) -> None:
    count(metrics.api_calls, classify(method, url.path, url.query), code)
