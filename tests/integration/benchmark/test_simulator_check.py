"""The simulator beside a real cluster: it finds in the cache what was found there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SCRIPT = Path(__file__).parents[3] / "scripts" / "prove_simulator.py"


@pytest.mark.timeout(900)
def test_a_real_runs_hit_rates_are_simulated_turn_by_turn(tmp_path: Path) -> None:
    flags = ("--out", str(tmp_path), "--quick", "--tolerance", "100")
    done = subprocess.run((sys.executable, str(SCRIPT), *flags), timeout=880, check=False)
    assert done.returncode == 0
    for name in ("calibration", "other"):
        checked: dict[str, Any] = json.loads((tmp_path / f"check-{name}.json").read_text())
        for rows in checked["check"]["rows"]:
            # a turn that comes while its history is still being stored may find a page less
            measured = rows["measured_hit_rate"]
            assert rows["simulated_hit_rate"] == pytest.approx(measured, abs=0.1)
        profile = json.loads((tmp_path / f"profile-{name}.json").read_text())
        assert profile["prefill_request_s"] + profile["prefill_token_s"] > 0
