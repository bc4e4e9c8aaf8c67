"""Values of `kvloop install` and `upgrade`, and what is told of wrong ones."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from kvloop.cli.install.bundled import bundled_chart
from kvloop.cli.install.flags import duration
from kvloop.cli.install.values import merged, over
from kvloop.cli.main import build_parser, main
from kvloop.shared_cache.errors import ConfigError


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_later_files_win_over_earlier_ones_and_sets_over_files(tmp_path: Path) -> None:
    first = written(tmp_path, "a.yaml", "operator: {replicas: 2, port: 9000}\ncrds: {keep: true}")
    second = written(tmp_path, "b.yaml", "operator: {replicas: 3, namespaces: [a, b]}")
    assert merged([first, second], ["operator.port=9001", "operator.namespaces={c}"]) == {
        "operator": {"replicas": 3, "port": 9001, "namespaces": ["c"]},
        "crds": {"keep": True},
    }


def test_several_sets_of_one_list_make_one_list() -> None:
    assert merged([], ["a[0]=x", "a[1]=y"]) == {"a": ["x", "y"]}


def test_a_null_stays_so_that_the_charts_default_is_removed() -> None:
    assert over({"a": {"b": 1}}, {"a": {"b": None}}) == {"a": {"b": None}}


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert merged([written(tmp_path, "e.yaml", "")], []) == {}


def test_a_file_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--values .*bad\.yaml"):
        merged([written(tmp_path, "bad.yaml", "a: [")], [])


def test_a_set_without_a_value_is_named() -> None:
    with pytest.raises(ConfigError, match=r"--set must be KEY=VALUE, got 'crds\.keep'"):
        merged([], ["crds.keep"])


@pytest.mark.parametrize(
    ("text", "seconds"), [("300", 300), ("300s", 300), ("5m", 300), ("1h30m", 5400)]
)
def test_times_are_written_as_helm_writes_them(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "soon", "-5m", "5d", "m"])
def test_a_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="300s or 5m"):
        duration(text)


def test_the_chart_of_the_repository_is_the_one_that_is_installed() -> None:
    assert (bundled_chart() / "templates" / "deployment.yaml").is_file()


@pytest.mark.parametrize("command", ["install", "upgrade", "uninstall", "status"])
def test_each_command_explains_its_flags(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args([command, "--help"])
    told = capsys.readouterr().out
    for flag in ("--release", "--namespace", "--kubeconfig", "--context", "--timeout"):
        assert flag in told
    assert "exit status" in told


def test_a_kubeconfig_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["status", "--kubeconfig", "/nowhere/config"])
    assert ended.value.code == 2
    assert "there is no file '/nowhere/config'" in capsys.readouterr().err


DEAD = """\
apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: "https://127.0.0.1:9"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {token: t}}]
"""


@pytest.mark.parametrize("command", ["install", "upgrade", "uninstall", "status"])
def test_a_cluster_that_is_not_there_is_told_in_words(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = written(tmp_path, "dead", DEAD)
    assert main([command, "--kubeconfig", str(dead)]) == 1
    assert "the cluster cannot be reached" in capsys.readouterr().err


def test_a_context_that_is_not_in_the_file_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = written(tmp_path, "dead", DEAD)
    assert main(["status", "--kubeconfig", str(dead), "--context", "other"]) == 1
    assert 'context "other" does not exist' in capsys.readouterr().err


def test_a_value_that_the_chart_does_not_know_is_refused_before_any_cluster_is_asked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    dead = written(tmp_path, "dead", DEAD)
    status = main(
        ["install", "--kubeconfig", str(dead), "--dry-run=client", "--set", "crds.kept=true"]
    )
    assert status == 2
    assert "at '/crds': additional properties 'kept' not allowed" in capsys.readouterr().err


def test_a_dry_run_of_the_client_prints_manifests_and_asks_nobody(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    dead = written(tmp_path, "dead", DEAD)
    words = ["install", "--kubeconfig", str(dead), "--dry-run=client", "--release", "other"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "kind: Deployment" in out and "name: other-kvloop-operator" in out
    assert "Wait for the operator" not in out


def test_a_missing_library_names_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "helm_python", None)
    assert main(["status"]) == 2
    assert "pip install 'kvloop[install]'" in capsys.readouterr().err
