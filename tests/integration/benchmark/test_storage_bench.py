"""The storage benchmark, as its command, beside Mooncake's own client."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mooncake_store import MooncakeStore

from kvloop.cli.main import main

pytestmark = pytest.mark.integration
SMALL = ["--page-bytes", "65536", "--pages-per-batch", "8", "--total-bytes", "2097152"]


def test_mooncake_is_measured_beside_its_own_client(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = MooncakeStore(tmp_path / "store.log", segment_bytes=128 << 20)
    try:
        config = json.dumps({"master_server_address": store.address})
        command = ["bench", "storage", "--backend", "mooncake", "--extra-config", config, *SMALL]
        out = tmp_path / "out.json"
        status = main([*command, "--rounds", "2", "--threads", "2", "--json", str(out)])
    finally:
        store.stop()
    report = json.loads(out.read_text())

    assert status == 0, capfd.readouterr().out
    assert report["limit"] == "Mooncake's client"
    assert report["exists"]["num_found"] == 32
    assert {run["pages_missed"] for run in report["runs"]} == {0}


def test_a_store_that_is_not_there_is_named_and_nothing_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = '{"master_server_address": "127.0.0.1:1"}'
    status = main(["bench", "storage", "--backend", "mooncake", "--extra-config", config, *SMALL])

    assert status == 1
    assert "no master at 127.0.0.1:1" in capsys.readouterr().err


def test_an_unknown_backend_is_a_wrong_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "storage", "--backend", "tape"]) == 2
    assert "unknown storage backend 'tape'" in capsys.readouterr().err
