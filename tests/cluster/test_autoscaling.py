"""Autoscaling on a real cluster: a queue brings a prefill node, quiet takes it away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.pd_trial import PDTrial, demo, pd_trial
from cluster.steady_chats import SteadyChats

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(3600)]
SCALED = "kvloop.dev/scaled"


AUTOSCALING = {
    "prefill": {"maxReplicas": 2},
    "objectives": {"queueSeconds": 0.3},
    "scaleDownSeconds": 20,
}


@pytest.fixture
def trial(kubeconfig: Path, tmp_path: Path) -> Iterator[PDTrial]:
    wanted = demo(attachableCaches=[], canary={"intervalSeconds": 60})
    wanted["spec"]["prefill"] = {**wanted["spec"]["prefill"], "maxRunningRequests": 1}
    with pd_trial(kubeconfig, tmp_path) as made:
        made.kubectl("delete", "shc", "pool")
        made.apply(wanted)
        made.wait_whole()
        made.patch(autoscaling=AUTOSCALING)
        yield made


def prefill(trial: PDTrial) -> Any:
    return trial.get("deployment", "demo-prefill")


def test_a_queue_brings_a_prefill_node_and_quiet_takes_it_away(trial: PDTrial) -> None:
    assert prefill(trial)["spec"]["replicas"] == 1
    with SteadyChats(trial.url, chatters=6) as chats:
        trial.wait(lambda: prefill(trial)["spec"]["replicas"] == 2, "a second prefill node")
        assert "2 by autoscaling: prompts wait" in prefill(trial)["metadata"]["annotations"][SCALED]
        trial.replace_operator()
        ready = lambda: trial.get("pdc", "demo")["status"]["prefill"]["ready"] == 2  # noqa: E731
        trial.wait(ready, "the second node serves")
        chats.wait_more(6)
    assert chats.faults == []
    events = [one["message"] for one in trial.get("events")["items"] if one["reason"] == "Scaled"]
    assert any(message.startswith("prefill 1 -> 2: prompts wait") for message in events), events
    trial.wait(lambda: prefill(trial)["spec"]["replicas"] == 1, "the second node is taken away")
    told = trial.get("pdc", "demo")["status"]["autoscaling"]["prefill"]
    assert told["wanted"] == 1 and "would have done" in told["reason"]
    trial.wait_whole()
