"""The report as a ConfigMap: what has room, its names, and where a pod puts it."""

import gzip
import json
import random
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import pytest
from bench_reports import make_report

from kvloop.benchmark.outlets.apply import as_yaml
from kvloop.benchmark.outlets.config_map import Owner, build_config_map, parse_target
from kvloop.benchmark.outlets.content import LIMIT_BYTES, Content, fit
from kvloop.benchmark.outlets.files import to_json
from kvloop.benchmark.outlets.in_cluster import InCluster
from kvloop.benchmark.sample import Failure
from kvloop.shared_cache.errors import ConfigError

REPORT = make_report(1, arms=("on",), conversations=5, turns=2)
SUMMARY = b'{"phase": "Succeeded"}'
PAGE = "<html>" + "word " * 40_000 + "</html>"
WHOLE = len(to_json(REPORT, indent=0))
SUMS = len(to_json(REPORT, with_samples=False, indent=0))
ZIPPED = len(gzip.compress(PAGE.encode()))


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    """What the kubelet mounts."""
    for name, content in (("token", "t0\n"), ("ca.crt", "pem"), ("namespace", "bench\n")):
        (tmp_path / name).write_text(content)
    return tmp_path


ENVIRONMENT = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}


def test_all_of_it_goes_in_where_there_is_room() -> None:
    content = fit(REPORT, PAGE, SUMMARY)
    assert json.loads(content.texts["report.json"])["samples"]
    assert content.texts["report.html"] == PAGE
    assert content.texts["summary.json"] == SUMMARY.decode()
    assert content.left_out == () and not content.binaries


def test_values_leave_room_for_the_rest_of_what_kubernetes_takes() -> None:
    assert 900_000 < LIMIT_BYTES < 1_048_576 - 10_000


def test_a_large_page_is_zipped_before_anything_is_left_out() -> None:
    content = fit(REPORT, PAGE, SUMMARY, limit=WHOLE + ZIPPED + len(SUMMARY))
    assert json.loads(content.texts["report.json"])["samples"]
    assert gzip.decompress(content.binaries["report.html.gz"]).decode() == PAGE
    assert content.left_out == ()


def test_samples_go_before_the_page_does() -> None:
    content = fit(REPORT, PAGE, SUMMARY, limit=SUMS + ZIPPED + len(SUMMARY))
    assert json.loads(content.texts["report.json"])["samples"] == []
    assert "report.html.gz" in content.binaries and content.left_out == ("samples",)


def test_without_samples_the_page_is_plain_where_that_has_room() -> None:
    page = "".join(random.Random(0).choices("abcdefgh", k=WHOLE))
    content = fit(REPORT, page, SUMMARY, limit=SUMS + len(page) + len(SUMMARY))
    assert content.texts["report.html"] == page and content.left_out == ("samples",)


def test_a_thousand_failures_are_cut_to_a_hundred() -> None:
    failure = Failure(conversation=1, turn=1, kind="connect", message="m" * 100)
    report = replace(REPORT, failures=(failure,) * 1000)
    content = fit(report, PAGE, SUMMARY, limit=SUMS + 40_000 + ZIPPED)
    assert len(json.loads(content.texts["report.json"])["failures"]) == 100
    assert content.left_out == ("samples", "failures beyond 100")
    assert "report.html.gz" in content.binaries


def test_the_page_goes_before_the_report_and_the_summary_always_stays() -> None:
    small = fit(REPORT, PAGE, SUMMARY, limit=SUMS + len(SUMMARY))
    assert "report.json" in small.texts and not small.binaries
    assert small.left_out == ("samples", "page")
    least = fit(REPORT, PAGE, SUMMARY, limit=100)
    assert list(least.texts) == ["summary.json"] and least.left_out == ("report", "page")


def test_no_choice_is_larger_than_the_limit() -> None:
    for limit in range(100, 300_000, 7919):
        assert fit(REPORT, PAGE, SUMMARY, limit=limit).num_bytes <= limit


def test_a_page_that_could_not_be_made_is_left_out() -> None:
    content = fit(REPORT, "", SUMMARY)
    assert "report.html" not in content.texts and not content.binaries
    assert content.left_out == ("page",) and json.loads(content.texts["report.json"])["samples"]


def test_sizes_are_counted_in_bytes() -> None:
    content = Content(texts={"a": "≤≤"}, binaries={"b": b"123"})
    assert content.num_bytes == 9


def test_the_object_has_labels_data_and_says_what_was_left_out() -> None:
    content = Content(
        texts={"summary.json": "{}"}, binaries={"report.html.gz": b"\x1f"}, left_out=("samples",)
    )
    built = build_config_map(REPORT, content, "bench", "run-1", None)
    assert (built["apiVersion"], built["kind"]) == ("v1", "ConfigMap")
    metadata = built["metadata"]
    assert (metadata["namespace"], metadata["name"]) == ("bench", "run-1")
    assert metadata["labels"] == {
        "app.kubernetes.io/name": "kvloop",
        "app.kubernetes.io/component": "benchmark",
        "app.kubernetes.io/managed-by": "kvloop-bench",
        "kvloop.dev/workload": "multi-turn",
    }
    assert metadata["annotations"] == {
        "kvloop.dev/schema": "kvloop.bench/2",
        "kvloop.dev/started-at": REPORT.started_at,
        "kvloop.dev/left-out": "samples",
    }
    assert "ownerReferences" not in metadata
    assert built["data"] == {"summary.json": "{}"}
    assert b64decode(built["binaryData"]["report.html.gz"]) == b"\x1f"


def test_a_kind_that_is_no_label_is_made_one() -> None:
    odd = replace(REPORT, workload={"kind": "-a kind: " + "x" * 90})
    built = build_config_map(odd, Content(texts={}), "bench", "run-1", None)
    label = built["metadata"]["labels"]["kvloop.dev/workload"]
    assert label == "a-kind--" + "x" * 54


def test_the_owner_is_the_job_before_the_pod() -> None:
    pod = {"KVLOOP_POD_NAME": "p", "KVLOOP_POD_UID": "u1"}
    job = {"KVLOOP_JOB_NAME": "j", "KVLOOP_JOB_UID": "u2"}
    assert Owner.found({}) is None and Owner.found({"KVLOOP_JOB_NAME": "j"}) is None
    assert Owner.found(pod) == Owner(api_version="v1", kind="Pod", name="p", uid="u1")
    owner = Owner.found(pod | job)
    assert owner == Owner(api_version="batch/v1", kind="Job", name="j", uid="u2")
    built = build_config_map(REPORT, Content(texts={}), "bench", "run-1", owner)
    assert built["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "u2"}
    ]


@pytest.mark.parametrize("odd", ["\x7f", "\x80", "\x85", "\u2028", "\u2029", "\ufeff", "\uffff"])
def test_what_is_sent_reads_the_same_as_yaml(odd: str) -> None:
    sent = as_yaml({"data": {"report.json": f"a{odd}b\n\U0001f600"}})
    assert odd not in sent.decode(), "a YAML reader refuses it, or takes it for the end of a line"
    assert json.loads(sent) == {"data": {"report.json": f"a{odd}b\n\U0001f600"}}


def test_a_pod_finds_its_api_server_and_its_namespace(mount: Path) -> None:
    cluster = InCluster.found(ENVIRONMENT, mount)
    assert (cluster.url, cluster.token) == ("https://10.0.0.1:6443", "t0")
    target = parse_target("run-1", ENVIRONMENT, cluster)
    assert (target.namespace, target.name, target.owner) == ("bench", "run-1", None)
    assert parse_target("other/run-1", ENVIRONMENT, cluster).namespace == "other"


def test_the_token_is_read_anew_as_the_kubelet_replaces_it(mount: Path) -> None:
    cluster = InCluster.found(ENVIRONMENT, mount)
    (mount / "token").write_text("t1")
    assert cluster.token == "t1"


def test_an_address_of_ipv6_stands_in_brackets(mount: Path) -> None:
    cluster = InCluster.found({"KUBERNETES_SERVICE_HOST": "fd00::1"}, mount)
    assert cluster.url == "https://[fd00::1]:443"


def test_outside_a_pod_it_is_refused_with_what_would_be_right(mount: Path) -> None:
    with pytest.raises(ConfigError, match=r"--config-map works in a pod only.*--json FILE"):
        InCluster.found({}, mount)


def test_a_pod_without_a_service_account_is_told(mount: Path) -> None:
    (mount / "token").unlink()
    with pytest.raises(ConfigError, match="has no token; the pod needs a service account"):
        InCluster.found(ENVIRONMENT, mount)


def test_an_owner_owns_nothing_in_another_namespace(mount: Path) -> None:
    cluster = InCluster.found(ENVIRONMENT, mount)
    job = {**ENVIRONMENT, "KVLOOP_JOB_NAME": "j", "KVLOOP_JOB_UID": "u"}
    assert parse_target("other/run-1", job, cluster).owner is None
    assert parse_target("bench/run-1", job, cluster).owner is not None
    assert parse_target("run-1", job, cluster).owner is not None
    (mount / "namespace").unlink()
    assert parse_target("bench/run-1", job, cluster).owner is None


def test_a_mount_without_a_namespace_asks_for_one(mount: Path) -> None:
    (mount / "namespace").unlink()
    cluster = InCluster.found(ENVIRONMENT, mount)
    with pytest.raises(ConfigError, match="give NAMESPACE/NAME"):
        parse_target("run-1", ENVIRONMENT, cluster)


@pytest.mark.parametrize(
    "text", ["", "Run", "a/b/c", "/x", "ns/", "a_b", "x" * 254, "a.b/x", "a..b", "n" * 64 + "/x"]
)
def test_what_is_no_name_of_kubernetes_is_refused(text: str, mount: Path) -> None:
    cluster = InCluster.found(ENVIRONMENT, mount)
    with pytest.raises(ConfigError, match=r"--config-map .* of Kubernetes"):
        parse_target(text, ENVIRONMENT, cluster)
