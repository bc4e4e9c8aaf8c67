"""Flags that every load has: what they become, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvloop.benchmark.driver.options import DriveOptions
from kvloop.benchmark.run import RunConfig
from kvloop.benchmark.workloads.plan import Workload
from kvloop.cli.bench import common
from kvloop.cli.main import main

URL = "http://127.0.0.1:1"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """What would have been run."""
    configs: list[RunConfig] = []

    def run_bench(config: RunConfig, workload: Workload) -> int:
        configs.append(config)
        return 0

    monkeypatch.setattr("kvloop.benchmark.run.run_bench", run_bench)
    for name in (common.API_KEY_VARIABLE, "KVLOOP_TERMINATION_LOG"):
        monkeypatch.delenv(name, raising=False)
    return configs


def config_of(ran: list[RunConfig], *flags: str) -> RunConfig:
    assert main(["bench", "multi-turn", URL, *flags]) == 0
    return ran[-1]


def test_every_flag_of_the_server_reaches_the_run(ran: list[RunConfig]) -> None:
    config = config_of(
        ran,
        *("--model", "m", "--api-key", "k", "--cache-salt", "s", "--salting", "prompt"),
        *("--extra-body", '{"a": 1}', "--drop-field", "ignore_eos", "--drop-field", "cache_salt"),
        *("--arm-body", 'bypassed={"off": true}'),
    )
    assert (config.url, config.model, config.api_key, config.run_id) == (URL, "m", "k", "s")
    assert config.salting == "prompt" and config.extra_body == {"a": 1}
    assert config.dropped_fields == {"ignore_eos", "cache_salt"}
    assert config.arm_bodies == {"bypassed": {"off": True}}


def test_every_flag_of_the_load_and_of_patience_reaches_the_run(ran: list[RunConfig]) -> None:
    config = config_of(
        ran,
        *("--clients", "7", "--max-in-flight", "3", "--rate", "1,2.5", "--arrival", "uniform"),
        *("--warmup", "0", "--pause-s", "0.5", "--seed", "9", "--timeout-s", "5"),
        *("--stall-timeout-s", "2", "--retry-429", "4"),
        *("--give-up-after", "6", "--probe-s", "1.5"),
    )
    options = config.options
    assert (options.clients, options.max_in_flight, options.arrival) == (7, 3, "uniform")
    assert (options.warmup, options.pause_s, options.seed) == (0, 0.5, 9)
    assert (options.timeout_s, options.stall_timeout_s, options.retry_429) == (5, 2, 4)
    assert (options.give_up_after, options.probe_s) == (6, 1.5)
    assert config.rates == (1.0, 2.5)


def test_flags_of_patience_that_are_not_given_are_as_the_driver_has_them(
    ran: list[RunConfig],
) -> None:
    names = ("timeout_s", "stall_timeout_s", "retry_429", "give_up_after", "probe_s", "warmup")
    given, driver = config_of(ran).options, DriveOptions()
    assert [getattr(given, name) for name in names] == [getattr(driver, name) for name in names]


def test_arms_objectives_and_prices_reach_the_run(ran: list[RunConfig]) -> None:
    config = config_of(
        ran,
        *("--arms", "on,l3_only", "--rounds", "2", "--slo-ttft-ms", "100", "--slo-tpot-ms", "20"),
        *("--gpu-hour-price", "2.5", "--node-metrics", "http://n:1/metrics"),
        *("--title", "T", "--hardware", "H"),
    )
    assert config.arms == ("on", "l3_only") and config.rounds == 2
    assert (config.objectives.ttft_ms, config.objectives.tpot_ms) == (100, 20)
    assert config.price_per_gpu_hour == 2.5
    assert config.node_metrics == ("http://n:1/metrics",)
    assert (config.title, config.hardware) == ("T", "H")


def test_every_outlet_reaches_the_run(ran: list[RunConfig], tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("a.json", "a.html", "message")]
    outlets = config_of(
        ran,
        *("--json", files[0], "--no-samples", "--html", files[1]),
        *("--termination-message", files[2]),
    ).outlets
    found = (outlets.json_file, outlets.page_file, outlets.termination_file)
    assert [str(file) for file in found] == files
    assert not outlets.with_samples


def test_a_config_map_outside_a_cluster_is_refused_and_the_message_says_so(
    ran: list[RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    message = tmp_path / "message"
    flags = ["--config-map", "result", "--termination-message", str(message)]
    assert main(["bench", "multi-turn", URL, *flags]) == 2
    assert not ran
    assert "--config-map" in json.loads(message.read_text())["message"]


def test_the_report_shows_the_command_without_the_api_key(ran: list[RunConfig]) -> None:
    for flags in (("--api-key", "secret"), ("--api-key=secret",)):
        command = config_of(ran, *flags, "--turns", "2").command
        assert command.startswith("kvloop bench multi-turn http://127.0.0.1:1 --api-key")
        assert command.endswith("--turns 2") and "secret" not in command


def test_the_environment_gives_the_api_key(
    ran: list[RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(common.API_KEY_VARIABLE, "from there")
    assert config_of(ran).api_key == "from there"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--arms", "on,off"], "--arms"),
        (["--arms", "on,on"], "--arms"),
        (["--rate", "1,-2"], "--rate"),
        (["--arm-body", "sometimes={}"], "--arm-body"),
        (["--arm-body", "on=[]"], "--arm-body"),
        (["--extra-body", "[1]"], "--extra-body"),
        (["--clients", "0"], "--clients"),
        (["--give-up-after", "0"], "--give-up-after"),
        (["--probe-s", "0"], "--probe-s"),
        (["--node-metrics", "here"], "--node-metrics"),
    ],
)
def test_a_wrong_flag_is_named(
    flags: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "multi-turn", URL, *flags])
    assert ended.value.code == 2
    assert named in capsys.readouterr().err.splitlines()[-1]


def test_bodies_of_one_arm_given_apart_are_sent_together(ran: list[RunConfig]) -> None:
    flags = ("--arm-body", 'on={"a": 1}', "--arm-body", 'on={"b": 2}')
    assert config_of(ran, *flags).arm_bodies == {"on": {"a": 1, "b": 2}}


@pytest.mark.parametrize(
    ("flags", "needed"),
    [
        (("--arrival", "uniform"), "--rate"),
        (("--no-samples",), "--json"),
        (("--arm-body", "bypassed={}", "--arms", "on,all_miss"), "--arms"),
        (("--extra-body", '{"cache_salt": "s"}'), "--cache-salt"),
        (("--arm-body", 'on={"cache_salt": "s"}'), "--cache-salt"),
        (("--extra-body", '{"kvloop": {"cache": "off"}}'), "--arms"),
    ],
)
def test_a_flag_that_changes_nothing_or_mixes_arms_is_refused_and_the_message_says_so(
    flags: tuple[str, ...], needed: str, ran: list[RunConfig], tmp_path: Path
) -> None:
    told = tmp_path / "message"
    assert main(["bench", "multi-turn", URL, *flags, "--termination-message", str(told)]) == 2
    assert not ran
    message = json.loads(told.read_text())["message"]
    assert flags[0] in message and needed in message
