"""A node's KV events: what its tree reports, published on each of its streams."""

from __future__ import annotations

import logging
from urllib.parse import urlsplit

from prometheus_client import Counter

from kvloop.engine.event_config import EventsConfig, StreamConfig, events_config
from kvloop.engine.event_publisher import EventPublisher
from kvloop.engine.event_recorder import EventRecorder, Record, Removed, Stored
from kvloop.engine.node_config import NodeConfig
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.kv_events import EventSource

log = logging.getLogger("kvloop.events")


class Publication:
    """Owned by the loop thread."""

    def __init__(self, config: NodeConfig) -> None:
        """Open the streams; raises ConfigError naming the flag."""
        secret = config.node_secret()
        events = events_config(config.kv_events_config, config.host, has_secret=secret is not None)
        self._page_size, self._secret = config.page_size, secret
        self._counter: Counter | None = None
        self._publishers: list[EventPublisher] = []
        self._public = self._open(events.public) if events.public is not None else None
        self._own = self._open_own(events)
        self.recorder: EventRecorder | None = None
        """The tree's observer; None: there is nobody to tell."""
        if self._publishers:
            wants_tokens = any(stream.token_ids for stream in events.streams)
            self.recorder = EventRecorder(config.page_size, wants_tokens=wants_tokens)
        self.url = ""
        """For the node's record."""
        if self._own is not None and events.own is not None:
            self.url = _source(self._own, events.own, config.url).url
        self.info: dict[str, str | int | float | bool | None] = {}
        """For /server_info: where others subscribe."""
        if self._public is not None:
            self.info["kv_events_endpoint"] = self._public.endpoint
            self.info["kv_events_replay_endpoint"] = self._public.replay_endpoint

    def count_on(self, counter: Counter) -> None:
        """Pages by kind, from now on."""
        self._counter = counter

    def turn(self) -> None:
        """Hand on what the loop's turn has done to the tiers; never waits."""
        records = self.recorder.take() if self.recorder is not None else []
        if not records:
            return
        for publisher in self._publishers:
            publisher.publish(records)
        for record in records:
            self._count(record)

    def close(self) -> None:
        """Send what is left."""
        self.turn()
        for publisher in self._publishers:
            publisher.close()

    def _open_own(self, events: EventsConfig) -> EventPublisher | None:
        """A node that finds no ports for it goes without: the router has what it routed."""
        if events.own is None:
            return None
        try:
            return self._open(events.own)
        except ConfigError as error:
            if events.needs_own:
                for publisher in self._publishers:
                    publisher.close()
                raise
            log.warning("no KV events for the router: %s", error)
            return None

    def _open(self, stream: StreamConfig) -> EventPublisher:
        publisher = EventPublisher(stream, self._page_size, self._secret, self._dropped)
        self._publishers.append(publisher)
        return publisher

    def _count(self, record: Record) -> None:
        if self._counter is None:
            return
        if isinstance(record, Stored | Removed):
            kind = "stored" if isinstance(record, Stored) else "removed"
            self._counter.labels(kind).inc(len(record.keys))
        else:
            self._counter.labels("cleared").inc()

    def _dropped(self, pages: int) -> None:
        log.warning("events of %d pages are dropped: subscribers begin anew", pages)
        if self._counter is not None:
            self._counter.labels("dropped").inc(pages)


def _source(publisher: EventPublisher, stream: StreamConfig, url: str) -> EventSource:
    """Under the host by which others reach the node."""
    assert publisher.replay_endpoint is not None
    host = urlsplit(url).hostname or "127.0.0.1"
    host = f"[{host}]" if ":" in host else host
    return EventSource(
        endpoint=f"tcp://{host}:{publisher.endpoint.rpartition(':')[2]}",
        replay_endpoint=f"tcp://{host}:{publisher.replay_endpoint.rpartition(':')[2]}",
        is_encrypted=stream.is_encrypted,
    )
