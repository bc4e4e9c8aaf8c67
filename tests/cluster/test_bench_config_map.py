"""A benchmark's ConfigMap on a real API server, under exactly the rights that the manual names."""

import gzip
import json
import re
import secrets
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench_reports import make_report
from cluster_namespace import Namespace

from kvloop.benchmark.outlets.config_map import ConfigMapTarget
from kvloop.benchmark.outlets.files import to_json
from kvloop.benchmark.outlets.publish import publish
from kvloop.benchmark.outlets.wanted import Wanted, open_outlets
from kvloop.benchmark.results.document import Report

pytestmark = pytest.mark.cluster
MANUAL = Path(__file__).parents[2] / "docs" / "bench-job.md"
RIGHTS, JOB = re.findall(r"```yaml\n(.*?)```", MANUAL.read_text(), re.DOTALL)
SMALL = make_report(1, arms=("on",), conversations=5, turns=2)


@pytest.fixture
def namespace(kubeconfig: Path) -> Iterator[Namespace]:
    """One of its own, with the manual's rights in it."""
    one = Namespace(name=f"bench-{secrets.token_hex(4)}", kubeconfig=kubeconfig)
    one.kubectl("create", "namespace", one.name)
    try:
        one.apply(RIGHTS)
        assert eventually(lambda: one.can("kvloop-bench", "patch", "configmaps"))
        yield one
    finally:
        one.kubectl("delete", "namespace", one.name, "--wait=false")


def publish_to(
    namespace: Namespace, folder: Path, report: Report, page: str = "<p>", **env: str
) -> tuple[int, list[str], dict[str, Any]]:
    """As a pod would: exit status, what was complained of, the termination message."""
    environment = {**namespace.mount("kvloop-bench", folder), **env}
    wanted = Wanted(config_map="run-1", termination_file=folder / "end")
    told: list[str] = []
    outlets = open_outlets(wanted, environment, folder)
    status = publish(report, outlets, lambda _: page, told.append)
    return status, told, json.loads((folder / "end").read_bytes())


def eventually(holds: Callable[[], bool], within_s: float = 60.0) -> bool:
    """Controllers take their time."""
    ends_at = time.monotonic() + within_s
    while not (done := holds()) and time.monotonic() < ends_at:
        time.sleep(0.5)
    return done


def test_the_report_is_created_and_replaced_under_the_manuals_rights(
    namespace: Namespace, tmp_path: Path
) -> None:
    assert publish_to(namespace, tmp_path, SMALL)[:2] == (0, [])
    written = namespace.get("configmap", "run-1")
    assert json.loads(written["data"]["report.json"]) == json.loads(to_json(SMALL))
    assert written["data"]["report.html"] == "<p>"
    assert json.loads(written["data"]["summary.json"])["phase"] == "Succeeded"
    assert written["metadata"]["labels"]["app.kubernetes.io/component"] == "benchmark"
    assert written["metadata"]["annotations"]["kvloop.dev/left-out"] == ""

    # About 3 MB of samples, and a page that has room only when it is zipped.
    large = make_report(2, arms=("on",), conversations=400, turns=8)
    page = "<p>" + "a word " * 200_000
    assert publish_to(namespace, tmp_path, large, page)[:2] == (0, [])
    replaced = namespace.get("configmap", "run-1")
    assert json.loads(replaced["data"]["report.json"])["samples"] == []
    assert "report.html" not in replaced["data"]
    assert gzip.decompress(b64decode(replaced["binaryData"]["report.html.gz"])).decode() == page
    assert replaced["metadata"]["annotations"]["kvloop.dev/left-out"] == "samples"


def test_a_report_as_large_as_the_limit_is_taken(namespace: Namespace, tmp_path: Path) -> None:
    page = secrets.token_hex(490_000)
    assert publish_to(namespace, tmp_path, SMALL, page)[:2] == (0, [])
    assert namespace.get("configmap", "run-1")["data"]["report.html"] == page


def test_it_is_owned_by_its_job_and_goes_with_it(namespace: Namespace, tmp_path: Path) -> None:
    namespace.apply(JOB)
    uid = namespace.get("job", "kvloop-bench")["metadata"]["uid"]
    owner = {"KVLOOP_JOB_NAME": "kvloop-bench", "KVLOOP_JOB_UID": uid}
    assert publish_to(namespace, tmp_path, SMALL, **owner)[:2] == (0, [])
    (reference,) = namespace.get("configmap", "run-1")["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["uid"]) == ("Job", uid)
    namespace.kubectl("delete", "job", "kvloop-bench", "--wait=false")
    assert eventually(lambda: "run-1" not in namespace.kubectl("get", "configmap", "-o", "name"))


@pytest.mark.parametrize("missing", ["create", "patch"])
def test_a_missing_right_is_told_with_those_that_are_needed(
    namespace: Namespace, tmp_path: Path, missing: str
) -> None:
    kept = {"create": "patch", "patch": "create"}[missing]
    namespace.apply(RIGHTS.replace("[create, patch]", f"[{kept}]"))
    assert eventually(lambda: not namespace.can("kvloop-bench", missing, "configmaps"))
    _, (told,), end = publish_to(namespace, tmp_path, SMALL)
    assert told.startswith(f"--config-map {namespace.name}/run-1: HTTP 403: ")
    assert "needs the verbs create and patch on configmaps" in told
    assert (end["phase"], end["reason"]) == ("Failed", "OutletFailed")
    assert "HTTP 403" in end["message"]


def test_a_namespace_that_is_not_there_is_told(namespace: Namespace, tmp_path: Path) -> None:
    environment = namespace.mount("kvloop-bench", tmp_path)
    outlets = open_outlets(Wanted(config_map="no-such-one/run-1"), environment, tmp_path)
    assert isinstance(outlets.config_map, ConfigMapTarget)
    told: list[str] = []
    assert publish(SMALL, outlets, lambda _: "<p>", told.append) == 1
    assert "no-such-one" in told[0] and "HTTP 403" in told[0]
