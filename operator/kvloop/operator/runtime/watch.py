"""Watching by kopf: an event only puts a key into our queue.

kopf runs in a thread and a loop of its own: when it ends it cancels every task that its loop
has. What it misses is found by the list of all resources that is made again and again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

import kopf
from kubernetes.aio import client as kubernetes_client

from kvloop.operator.kinds import RESOURCES, Kind, kind_of
from kvloop.operator.names import FIELD_MANAGER, MANAGED_BY
from kvloop.operator.runtime.metrics import Metrics
from kvloop.operator.runtime.session import session
from kvloop.operator.settings import Settings

log = logging.getLogger(__name__)
OWNED = (
    kind_of("apps/v1", "Deployment"),
    kind_of("apps/v1", "StatefulSet"),
    kind_of("apps/v1", "DaemonSet"),
    kind_of("batch/v1", "Job"),
    kind_of("v1", "Pod"),
)
"""Watched by our label. No Secrets: a list of them would show all that a namespace has."""
SERVER_S = 240
"""A watch is opened anew after that: proxies let idle ones go silent."""
SILENT_S = 90.0
"""Without even a bookmark, which the API server sends each minute."""
BACKOFFS_S = (0.5, 1.0, 1.0, 2.0, 2.0, 3.0)
STOP_S = 10.0

Notify = Callable[[str | None, Mapping[str, Any]], None]
"""Event type (None: of the first list) and the object; called from the watching thread."""


class Watching:
    """One run of kopf, until it ends by itself or by `stop`."""

    def __init__(
        self,
        settings: Settings,
        configured: kubernetes_client.Configuration,
        metrics: Metrics,
        notify: Notify,
    ) -> None:
        self._settings = settings
        self._configured = configured
        self._metrics = metrics
        self._notify = notify
        self._thread = threading.Thread(target=self._run, name="watching", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self.error: BaseException | None = None
        """Why it ended."""

    def start(self) -> None:
        """Once."""
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether kopf lives."""
        return self._thread.is_alive()

    async def stop(self) -> None:
        """Wait for its end, not for ever: the thread dies with the process."""
        if self._loop is not None and self._stop is not None and self.is_running:
            try:
                self._loop.call_soon_threadsafe(self._stop.set)
            except RuntimeError:
                log.debug("the watching loop is closed already")
        await asyncio.to_thread(self._thread.join, STOP_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._operator())
        except BaseException as error:
            self.error = error

    async def _operator(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await kopf.operator(
            registry=self._registry(),
            settings=kopf_settings(),
            clusterwide=not self._settings.namespaces,
            namespaces=list(self._settings.namespaces),
            standalone=True,
            stop_flag=self._stop,
        )

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        async def login(**_: Any) -> kopf.AiohttpSession:
            opened = await session(self._configured, self._metrics)
            return kopf.AiohttpSession(server=self._configured.host, aiohttp_session=opened)

        kopf.on.login(registry=registry)(login)
        for kind in (*RESOURCES, *OWNED):
            kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)(
                self._handler(kind)
            )
        return registry

    def _handler(self, kind: Kind) -> Callable[..., Any]:
        named = {"apiVersion": kind.api_version, "kind": kind.kind}

        async def seen(type: str | None, event: Mapping[str, Any], **_: Any) -> None:  # noqa: A002
            self._notify(type, {**named, **event["object"]})

        return seen


def kopf_settings() -> kopf.OperatorSettings:
    """Only watching: no events, no peering, no CRDs and namespaces observed; nothing is written."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.watching.server_timeout = SERVER_S
    settings.watching.inactivity_timeout = SILENT_S
    settings.watching.connect_timeout = 10.0
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = 10.0
    settings.networking.error_backoffs = BACKOFFS_S
    settings.process.ultimate_exiting_timeout = None  # it kills; the kubelet does that better
    settings.queueing.idle_timeout = 1.0
    for kind in OWNED:
        chosen = f"{MANAGED_BY}={FIELD_MANAGER}"
        settings.watching.label_selectors[kind.group, kind.version, kind.plural] = chosen
    return settings
