"""A PDCluster is changed while people chat with it, and its operator is killed in the midst of it.

No request fails.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.pd_trial import PDTrial, demo, pd_trial
from cluster.steady_chats import SteadyChats

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def trial(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PDTrial]:
    with pd_trial(kubeconfig, tmp_path_factory.mktemp("operator")) as made:
        made.apply(demo())
        made.wait_whole()
        yield made


@pytest.fixture
def chats(trial: PDTrial) -> Iterator[SteadyChats]:
    with SteadyChats(trial.url) as going:
        going.wait_more(2)
        yield going
    assert going.faults == []


def _ready(trial: PDTrial, role: str, count: int) -> bool:
    status = trial.get("pdc", "demo")["status"][role]
    return (status["ready"], status["replicas"]) == (count, count)


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_role_is_scaled_up_and_down_under_load(
    trial: PDTrial, chats: SteadyChats, role: str
) -> None:
    for count in (2, 1):
        trial.kubectl("scale", "deployment", f"demo-{role}", f"--replicas={count}")
        trial.replace_operator()
        trial.wait(lambda count=count: _ready(trial, role, count), f"{role}: {count}")  # type: ignore[misc]
        chats.wait_more(3)
    chosen = f"app.kubernetes.io/component={role}"
    gone = lambda: len(trial.get("pods", "", "-l", chosen)["items"]) == 1  # noqa: E731
    trial.wait(gone, "the pod that was taken away has ended")
    trial.wait_whole()


def test_pods_move_to_another_cache_and_back_without_a_restart(
    trial: PDTrial, chats: SteadyChats
) -> None:
    before = trial.identities()
    for cache in ("pool", "files"):
        trial.patch(sharedCacheRef={"name": cache})
        trial.replace_operator()
        attached = lambda cache=cache: (  # noqa: E731
            trial.get("pdc", "demo")["status"].get("attachedCache") == cache
        )
        trial.wait(attached, f"attached to {cache}")
        trial.wait_whole()
        chats.wait_more(3)
    assert trial.identities() == before


def test_another_image_rolls_without_a_lost_request(trial: PDTrial, chats: SteadyChats) -> None:
    """The same image by its id: to Kubernetes another one."""
    before = trial.identities()
    (pod,) = trial.pods("decode")
    image = pod["status"]["containerStatuses"][0]["imageID"]
    trial.patch(image={"reference": image})
    told = lambda: trial.condition("Progressing") == ("True", "RolloutRequired")  # noqa: E731
    trial.wait(told, "RolloutRequired")
    trial.replace_operator()
    pairs: list[set[str]] = []
    deadline = time.monotonic() + 900
    while not trial.is_whole():
        assert time.monotonic() < deadline, trial.state()
        pairs.append(_generations_served(trial))
        time.sleep(1)
    assert all(pairs), "at every moment a prefill and a decode of one generation served"
    chats.wait_more(3)
    after = trial.identities()
    assert not {uid for uid, _ in before} & {uid for uid, _ in after}


def _generations_served(trial: PDTrial) -> set[str]:
    """Of running prefills and of running decodes."""
    found: list[set[str]] = []
    for role in ("prefill", "decode"):
        running = [pod for pod in trial.pods(role) if _runs(pod)]
        found.append({pod["metadata"]["labels"]["kvloop.dev/revision"] for pod in running})
    return found[0] & found[1]


def _runs(pod: dict[str, object]) -> bool:
    conditions = pod["status"]["conditions"]  # type: ignore[index]
    return any(one["type"] == "ContainersReady" and one["status"] == "True" for one in conditions)
