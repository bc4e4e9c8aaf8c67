"""The parts put together, and their lives."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from kubernetes.aio import client as kubernetes_client

from kvloop.operator.api import KubernetesApi
from kvloop.operator.controllers.base import Controller
from kvloop.operator.errors import ApiError
from kvloop.operator.runtime.events import EventWriter
from kvloop.operator.runtime.mapping import References, key_of, owners
from kvloop.operator.runtime.metrics import Metrics
from kvloop.operator.runtime.queue import Key
from kvloop.operator.runtime.reconciler import LOOK_S, Reconciler
from kvloop.operator.runtime.watch import Watching
from kvloop.operator.runtime.workers import Workers
from kvloop.operator.settings import Settings
from kvloop.operator.types.base import API_VERSION

log = logging.getLogger(__name__)
LIST_S = 30.0
"""All resources are listed so often: nothing is lost where watching was."""
MISSING_S = 3.0
"""Between looks for CRDs that are not there yet."""
STUCK_S = LOOK_S + 30.0
"""A look or a due key older than this tells of a fault that a restart may mend."""
SILENT_S = 60.0
"""Without an answer of the API server it is not ready."""


class Operator:
    """What the leader does."""

    def __init__(
        self,
        settings: Settings,
        configured: kubernetes_client.Configuration,
        controllers: Mapping[str, Controller],
        api: KubernetesApi,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._configured = configured
        self._kinds = tuple(controllers)
        self._api = api
        self._metrics = metrics
        self._references = References()
        reconciler = Reconciler(
            controllers,
            api,
            references=self._references,
            events=EventWriter(api),
            metrics=metrics,
        )
        self.workers = Workers(reconciler.look, metrics)
        self._watching: Watching | None = None
        self._listed = time.monotonic()
        self._wrong = "resources were not listed yet"

    async def run(self) -> None:
        """Until cancelled or something fails that no second try mends."""
        await self._wait_for_crds()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.workers.run())
            group.create_task(self._list_always())
            group.create_task(self._watch_always())

    def stuck(self) -> list[str]:
        """For /healthz."""
        now = time.monotonic()
        queue = self.workers.queue
        found = []
        if (age := queue.longest_s(now)) > STUCK_S:
            found.append(f"a look takes {age:.0f} s")
        if (age := queue.oldest_s(now)) > STUCK_S:
            found.append(f"a resource waits for {age:.0f} s")
        return found

    def not_ready(self) -> list[str]:
        """For /readyz."""
        found = [self._wrong] if self._wrong else []
        if (age := time.monotonic() - self._listed) > LIST_S + SILENT_S:
            found.append(f"the API server listed nothing for {age:.0f} s")
        return found

    async def _wait_for_crds(self) -> None:
        while not await self._list():
            await asyncio.sleep(MISSING_S)

    async def _list_always(self) -> None:
        while True:
            await asyncio.sleep(LIST_S)
            await self._list()

    async def _list(self) -> bool:
        """Whether it went well; what did not is told once, and by /readyz."""
        try:
            await self._list_once()
            wrong = ""
        except ApiError as error:
            is_gone = error.status == 404
            wrong = f"CRDs of {API_VERSION} are not installed" if is_gone else str(error)
        if wrong and wrong != self._wrong:
            log.warning("resources were not listed: %s", wrong)
        self._wrong = wrong
        return not wrong

    async def _list_once(self) -> None:
        for kind in self._kinds:
            for namespace in self._settings.namespaces or ("",):
                for resource in await self._api.list(API_VERSION, kind, namespace):
                    self._references.see(resource)
                    self.workers.add([key_of(resource)])
        self._listed = time.monotonic()

    async def _watch_always(self) -> None:
        loop = asyncio.get_running_loop()

        def notify(type_: str | None, manifest: Mapping[str, Any]) -> None:
            loop.call_soon_threadsafe(self.see, type_, manifest)

        while True:
            watching = Watching(self._settings, self._configured, self._metrics, notify)
            watching.start()
            try:
                while watching.is_running:
                    await asyncio.sleep(1.0)
                log.warning("watching ended, and begins anew: %r", watching.error)
            finally:
                await watching.stop()
            self._metrics.watch_restarts.inc()
            await asyncio.sleep(MISSING_S)

    def see(self, type_: str | None, manifest: Mapping[str, Any]) -> None:
        """An event: look at those that it concerns."""
        body = dict(manifest)
        if body["apiVersion"] != API_VERSION:
            self.workers.add(key for key in owners(body) if key.kind in self._kinds)
            return
        key = key_of(body)
        if type_ != "DELETED":
            self._references.see(body)
        about: set[Key] = {key, *self._references.to(key)}
        self.workers.add(one for one in about if one.kind in self._kinds)
