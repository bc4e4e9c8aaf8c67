"""A part of a test's cluster that has died is started again."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from cluster.keeper import Keeper, dead_parts


def dead_pid() -> int:
    ended = subprocess.Popen(["true"])
    ended.wait()
    return ended.pid


def test_only_parts_whose_process_is_gone_are_dead(tmp_path: Path) -> None:
    (tmp_path / "etcd.pid").write_text(str(os.getpid()))
    (tmp_path / "kubelet.pid").write_text("")
    (tmp_path / "kube-apiserver.pid").write_text(str(dead_pid()))
    assert dead_parts(tmp_path) == ["kube-apiserver"]


def test_a_dead_part_is_started_again_by_the_script(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    noted = tmp_path / "run/kube-apiserver.pid"
    noted.write_text(str(dead_pid()))
    script = tmp_path / "up"
    script.write_text(f"#!/bin/sh\necho {os.getpid()} > {noted}\n")
    script.chmod(0o755)
    with Keeper(script, tmp_path) as keeper:
        until = time.monotonic() + 30
        while dead_parts(tmp_path / "run") and time.monotonic() < until:
            time.sleep(0.1)
    assert keeper.revived == ["kube-apiserver"]
    assert dead_parts(tmp_path / "run") == []
