"""`kvloop bench simulate` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from simulated import profile, prompt, report, sample, simulate, timed
from whole_trace import EXCERPT

from kvloop.benchmark.simulate.profile import write_profile
from kvloop.benchmark.simulate.prompt import Prompt
from kvloop.cli.main import main

COMMAND = ["bench", "simulate", "--trace", str(EXCERPT), "--limit", "60"]


def run(tmp_path: Path, *flags: str) -> dict[str, Any]:
    out = tmp_path / "result.json"
    assert main([*COMMAND, *flags, "--json", str(out)]) == 0
    document: dict[str, Any] = json.loads(out.read_text())
    return document


def write_run(path: Path, chats: int = 5) -> Path:
    """A run of a device that the profile `true.json` beside it describes."""
    costs = profile(memory_bytes=1e9)
    write_profile(costs, path.parent / "true.json")
    turns: list[Prompt] = []
    for chat in range(chats):
        for turn in range(1, 4):
            number = len(turns)
            turns.append(
                prompt(
                    number,
                    200 * turn,
                    chat=chat,
                    turn=turn,
                    follows=number - 1 if number else None,
                )
            )
    served = simulate(timed(*turns), costs).served
    path.write_bytes(msgspec.json.encode(report([sample(one) for one in served])))
    return path


def test_a_trace_is_replayed_and_written_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = run(tmp_path)
    assert document["schema"] == "kvloop.bench.simulate/1"
    (result,) = document["runs"]
    assert result["requests"] == 60 and result["tokens"]["computed"] > 0
    assert "hit rate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "field", "value"),
    [
        (["--prefill", "2"], "prefill", 2),
        (["--decode", "2"], "decode", 2),
        (["--devices-per-node", "2"], "devices", 4),
        (["--l1-pages", "300"], "sizes.l1", 300),
        (["--l1-gib", "10"], "sizes.l1", 160),
        (["--l2-pages", "300"], "sizes.l2", 300),
        (["--l2-gib", "10"], "sizes.l2", 160),
        (["--l3-gib", "10"], "sizes.l3", 160),
        (["--l3-gib", "unbounded"], "sizes.l3", None),
        (["--device-gib", "20"], "sizes.decode", 320),
        (["--kv-dtype", "fp8"], "sizes.page_bytes", 512 * 65536),
        (["--page-size", "64"], "sizes.page_bytes", 64 * 131072),
        (["--model", "qwen2.5-7b"], "sizes.page_bytes", 512 * 57344),
        (["--skip", "20", "--limit", "30"], "requests", 30),
        (["--gpu-hour-price", "3"], "price_per_hour", 6.0),
        (["--slo-ttft-ms", "0.001"], "met", 0),
        (["--slo-ttft-ms", "0.001", "--slo-share", "0.5"], "is_good", False),
        (["--no-offload", "--write-policy", "write_back", "--l1-pages", "5000"], "use.l3_pages", 0),
    ],
)
def test_each_flag_reaches_the_cluster(
    tmp_path: Path, flags: list[str], field: str, value: object
) -> None:
    found: Any = run(tmp_path, *flags)["runs"][0]
    for name in field.split("."):
        found = found[name]
    assert found == value


@pytest.mark.parametrize(
    "flags",
    [
        ["--time-scale", "10"],
        ["--hits", "as-timed"],
        ["--weight-dtype", "fp8"],
        ["--chunk-tokens", "512"],
        ["--max-running-requests", "1"],
        ["--network-gbps", "1"],
        ["--pcie-gbps", "1"],
        ["--l3-gbps", "1", "--l1-pages", "65", "--l2-pages", "130"],
        ["--eviction-policy", "slru", "--l1-pages", "65", "--l2-pages", "130"],
        ["--write-policy", "write_through_selective", "--l1-pages", "65"],
        ["--device", "a100"],
        ["--answers"],
        ["--slo-tpot-ms", "0.001"],
    ],
)
def test_each_of_these_flags_changes_what_comes_out(tmp_path: Path, flags: list[str]) -> None:
    plain = [flag for flag in flags if flag in ("--l1-pages", "--l2-pages", "65", "130")]
    assert run(tmp_path, *flags)["runs"] != run(tmp_path, *plain)["runs"]


def test_the_threshold_and_the_prefetch_policy_count_where_they_are_used(tmp_path: Path) -> None:
    small = ["--l1-pages", "65", "--l2-pages", "130", "--limit", "150"]
    selective = [*small, "--write-policy", "write_through_selective", "--no-offload"]
    often = run(tmp_path, *selective, "--write-through-threshold", "1")
    assert often["runs"] != run(tmp_path, *selective)["runs"]
    timed = [*small, "--hits", "as-timed", "--l3-gbps", "0.5"]
    patient = run(tmp_path, *timed, "--prefetch-policy", "wait_complete")
    assert patient["runs"] != run(tmp_path, *timed)["runs"]


def test_a_sweep_has_one_run_a_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--sweep", "prefill=1,2", "--sweep", "time-scale=1,5", "--slo-ttft-ms", "60000"]
    runs = run(tmp_path, *flags)["runs"]
    assert [one["settings"] for one in runs] == [
        {"prefill": prefill, "time-scale": scale} for prefill in (1, 2) for scale in (1.0, 5.0)
    ]
    assert runs[0]["duration_s"] > 2 * runs[1]["duration_s"]  # 5: five times as fast
    said = capsys.readouterr().out
    # half the load's speed is no cheaper cluster: one advice for each
    assert said.count("cheapest with") == 2
    assert "prefill 1, time-scale 1.0" in said and "prefill 1, time-scale 5.0" in said


def test_a_calibrated_device_can_be_kept_and_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_run(tmp_path / "run.json")
    mine, true = tmp_path / "mine.json", tmp_path / "true.json"
    flags = ["bench", "simulate", "--device", str(true), "--network-gbps", "1000000"]
    assert main([*flags, "--calibrate", str(made), "--profile-out", str(mine)]) == 0
    kept = json.loads(mine.read_text())
    assert kept["prefill_token_s"] == pytest.approx(0.001, rel=0.2)
    flags[3] = str(mine)
    assert main([*flags, "--check", str(made), "--json", str(tmp_path / "check.json")]) == 0
    assert "within 25%" in capsys.readouterr().out
    assert json.loads((tmp_path / "check.json").read_text())["check"]["is_close"]


def test_a_check_that_fails_is_the_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = write_run(tmp_path / "run.json")
    write_profile(profile(memory_bytes=1e9, prefill_token_s=0.0013), tmp_path / "slow.json")
    flags = ["bench", "simulate", "--device", str(tmp_path / "slow.json"), "--check", str(made)]
    assert main(flags) == 1
    assert "NOT within 25%" in capsys.readouterr().out
    assert main([*flags, "--tolerance", "0.5"]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "h9"], "--device h9: neither a file"),
        (["--model", "gpt"], "--model gpt: neither a file"),
        (["--model", "llama-3.1-70b"], "--devices-per-node"),
        (["--l1-pages", "2"], "--l1-gib or --l1-pages: 2 pages"),
        (["--l1-pages", "200", "--l1-gib", "2"], "--l1-pages and --l1-gib"),
        (["--page-size", "100"], "--page-size 100"),
        (["--skip", "5000"], "has no requests from line 5001 on"),
        (["--sweep", "x=1"], "--sweep x=1"),
        (["--profile-out", "x.json"], "--profile-out"),
        (["--json", "/none/x.json"], "--json /none/x.json: there is no such directory"),
        (["--calibrate", "none.json"], "none.json: cannot be read"),
    ],
)
def test_a_wrong_flag_is_named(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, *flags]) == 2
    assert message in capsys.readouterr().err


def test_nothing_to_do_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "simulate"]) == 2
    assert "--trace FILE" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [
        ["--sweep", "prefill=1"],
        ["--skip", "1"],
        ["--limit", "1"],
        ["--time-scale", "2"],
        ["--hits", "as-timed"],
        ["--answers"],
        ["--slo-ttft-ms", "1"],
        ["--slo-tpot-ms", "1"],
        ["--gpu-hour-price", "1"],
    ],
)
def test_a_flag_of_a_trace_is_refused_without_one(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "simulate", "--check", "x.json", *flags]) == 2
    error = capsys.readouterr().err
    assert flags[0] in error and "give --trace FILE" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tolerance", "0.1"], "--tolerance would change nothing"),
        (["--slo-share", "0.5"], "--slo-share: of which objective"),
        (["--prefetch-policy", "timeout"], "give --hits as-timed"),
        (["--sweep", "prefetch-policy=timeout,best_effort"], "give --hits as-timed"),
        (["--write-through-threshold", "3"], "write_through_selective"),
    ],
)
def test_a_flag_that_would_change_nothing_is_refused(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*COMMAND, *flags]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags",
    [["--model", "qwen2.5-7b"], ["--weight-dtype", "bf16"], ["--kv-dtype", "fp8"]],
)
def test_a_calibrated_device_has_its_model_and_dtypes(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_profile(profile(memory_bytes=1e9), tmp_path / "mine.json")
    assert main([*COMMAND, "--device", str(tmp_path / "mine.json"), *flags]) == 2
    error = capsys.readouterr().err
    assert f"{flags[0]} would change nothing" in error and "calibrated with made up" in error
