"""What Prometheus is told of canaries, in the router's registry."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge

from kvloop.router.canary.report import RESULTS, STAGES, STATES, Report


class CanaryMetrics:
    """Before the first canary every stage is `unknown`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._runs = Counter("kvloop_canary_runs", "Canaries", ["result"], registry=registry)
        self._stage = Gauge(
            "kvloop_canary_stage",
            "1 for the state that the last canary found a stage in",
            ["stage", "state"],
            registry=registry,
        )
        self._seconds = Gauge(
            "kvloop_canary_stage_seconds",
            "How long the last canary's stage took",
            ["stage"],
            registry=registry,
        )
        self._last_run = Gauge(
            "kvloop_canary_last_run_timestamp_seconds",
            "When the last canary ended, in seconds since the epoch; 0: never",
            registry=registry,
        )
        for result in RESULTS:
            self._runs.labels(result)
        for stage in STAGES:
            self._seconds.labels(stage)
            for state in STATES:
                self._stage.labels(stage, state).set(state == "unknown")

    def take(self, report: Report) -> None:
        """Count a canary and show what it found."""
        self._runs.labels(report.result).inc()
        self._last_run.set(time.time())
        for one in report.stages:
            self._seconds.labels(one.stage).set(one.seconds)
            for state in STATES:
                self._stage.labels(one.stage, state).set(one.state == state)
