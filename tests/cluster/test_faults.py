"""Pods die: the conditions tell it within half a minute, and the cluster mends itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.pd_trial import TOLD_S, PDTrial, demo, pd_trial
from cluster.steady_chats import SteadyChats

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def trial(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PDTrial]:
    with pd_trial(kubeconfig, tmp_path_factory.mktemp("operator")) as made:
        made.apply(demo())
        made.wait_whole()
        yield made


def _is_told(trial: PDTrial) -> bool:
    ready, reuse = trial.condition("Ready"), trial.condition("ReuseVerified")
    return ready[0] == "False" and reuse[0] != "True"


def test_a_killed_decode_pod_is_told_and_comes_back(trial: PDTrial) -> None:
    (pod,) = trial.pods("decode")
    trial.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
    trial.wait(lambda: _is_told(trial), "Ready is False", TOLD_S, pause_s=0.3)
    trial.wait_whole()
    with SteadyChats(trial.url) as chats:
        chats.wait_more(2)
    assert chats.faults == []


def test_all_pods_restarted_at_once_is_told_and_they_come_back(trial: PDTrial) -> None:
    chosen = "app.kubernetes.io/part-of=kvloop"
    trial.kubectl("delete", "pods", "-l", chosen, "--grace-period=0", "--force", "--wait=false")
    trial.wait(lambda: _is_told(trial), "Ready is False", TOLD_S, pause_s=0.3)
    trial.wait_whole()
    with SteadyChats(trial.url) as chats:
        chats.wait_more(2)
    assert chats.faults == []


def test_an_image_that_is_nowhere_is_told_and_the_old_pods_go_on(trial: PDTrial) -> None:
    before = trial.identities()
    trial.patch(image={"reference": "localhost/none:1"})
    reasons = lambda: trial.condition("Progressing")  # noqa: E731
    trial.wait(lambda: reasons() == ("True", "RolloutRequired"), "RolloutRequired", TOLD_S)
    with SteadyChats(trial.url) as chats:
        chats.wait_more(2)
    assert chats.faults == []
    assert before <= trial.identities() | before
    trial.patch(image=None)
    trial.wait_whole()


def test_a_cache_that_was_deleted_is_told_and_requests_go_on(trial: PDTrial) -> None:
    trial.kubectl("delete", "shc", "pool")
    told = lambda: trial.condition("Ready") == ("False", "CacheNotReady")  # noqa: E731
    trial.wait(told, "CacheNotReady", TOLD_S)
    with SteadyChats(trial.url) as chats:
        chats.wait_more(2)
    assert chats.faults == []


def test_a_field_that_is_wrong_is_told_and_the_pods_stay(trial: PDTrial) -> None:
    before = trial.identities()
    trial.patch(offload={"sizeGb": 0.05}, sharedCacheRef={"name": "elsewhere"})
    told = lambda: trial.condition("Ready") == ("False", "InvalidConfig")  # noqa: E731
    trial.wait(told, "InvalidConfig", TOLD_S)
    assert trial.identities() == before
