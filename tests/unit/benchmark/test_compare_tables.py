"""What `kvloop bench compare` prints and writes."""

import io
import math
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from bench_reports import make_report
from rich.console import Console

from kvloop.benchmark.compare.comparison import Comparison
from kvloop.benchmark.compare.metrics import thin
from kvloop.benchmark.compare.run import CompareConfig, run_compare
from kvloop.benchmark.outlets.files import write_json
from kvloop.benchmark.results import bootstrap
from kvloop.benchmark.results.bootstrap import Quantile, single
from kvloop.benchmark.results.document import Report


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "ROUNDS", 300)


def base() -> Report:
    return make_report(1, arms=("on", "bypassed"), conversations=8, turns=2)


def run(folder: Path, a: Report, b: Report, width: int = 100, **flags: object) -> tuple[int, str]:
    write_json(a, folder / "old.json")
    write_json(b, folder / "new.json")
    config = CompareConfig(a=folder / "old.json", b=folder / "new.json", **flags)  # type: ignore[arg-type]
    out = io.StringIO()
    status = run_compare(config, Console(file=out, width=width, highlight=False))
    return status, out.getvalue()


def slower(report: Report) -> Report:
    samples = (replace(s, ttft_s=2 * s.ttft_s) for s in report.samples)
    return replace(report, samples=tuple(samples))


def test_the_columns_are_headed_by_the_servers_where_these_differ(tmp_path: Path) -> None:
    other = replace(base(), server=replace(base().server, name="vllm"))
    _, text = run(tmp_path, base(), other)
    (head, *_) = [line for line in text.splitlines() if "metric" in line]
    assert "kvloop" in head and "vllm" in head


def test_a_server_of_another_make_is_headed_by_its_file(tmp_path: Path) -> None:
    other = replace(base(), server=replace(base().server, name="other"))
    _, text = run(tmp_path, base(), other)
    (head, *_) = [line for line in text.splitlines() if "metric" in line]
    assert "kvloop" in head and "new" in head


def test_the_columns_are_headed_by_the_files_where_the_server_is_one(tmp_path: Path) -> None:
    _, text = run(tmp_path, base(), base())
    (head, *_) = [line for line in text.splitlines() if "metric" in line]
    assert "old" in head and "new" in head


def test_names_that_were_given_head_the_columns(tmp_path: Path) -> None:
    _, text = run(tmp_path, base(), base(), names=("before", "after"))
    (head, *_) = [line for line in text.splitlines() if "metric" in line]
    assert "before" in head and "after" in head


@pytest.mark.parametrize("width", [80, 100])
def test_a_verdict_stands_beside_its_numbers_and_none_is_cut(tmp_path: Path, width: int) -> None:
    names = ("a-rather-long-server-name", "b" * 40)
    _, text = run(tmp_path, base(), slower(base()), width=width, names=names)
    (line, *_) = [line for line in text.splitlines() if line.startswith(" ttft_mean ")]
    assert line.split()[3:] == ["2.000x", "2.000", "to", "2.000", "regression"]
    tables = [line for line in text.splitlines() if line.startswith(" ")]
    assert max(map(len, tables)) <= width
    assert not any("…" in line for line in tables if "metric" not in line)


def test_why_there_is_no_interval_is_told_once(tmp_path: Path) -> None:
    few = make_report(1, arms=("on",), conversations=4, turns=2)
    _, text = run(tmp_path, few, few)
    assert text.count("4 conversations, 5 are needed") == 1
    assert "on: no interval for " in text


def test_a_comparison_that_tells_nothing_is_shouted(tmp_path: Path) -> None:
    few = make_report(1, arms=("on",), conversations=4, turns=2)
    assert "NOTHING CAN BE TOLD" in run(tmp_path, few, few)[1]
    assert "NOTHING CAN BE TOLD" not in run(tmp_path, base(), base())[1]


def test_each_regression_is_a_line_with_values_interval_and_tolerance(tmp_path: Path) -> None:
    status, text = run(tmp_path, base(), slower(base()))
    lines = [line for line in text.splitlines() if line.startswith("REGRESSION on: ttft_mean ")]
    assert len(lines) == 1
    assert " ms -> " in lines[0] and ": 2.000x (95 %: 2.000x to 2.000x; tolerance 5 %)" in lines[0]
    assert status == 1


def test_each_improvement_is_a_line_too(tmp_path: Path) -> None:
    _, text = run(tmp_path, slower(base()), base())
    assert any(line.startswith("IMPROVEMENT on: ttft_mean ") for line in text.splitlines())


def test_the_rule_and_the_counts_of_verdicts_are_printed(tmp_path: Path) -> None:
    status, text = run(tmp_path, base(), base())
    assert "regression: all of the 95 % interval is worse than the tolerance" in text
    assert "0 regression" in text and "0 cannot tell" in text
    assert "both held the same conversations: intervals are of pairs" in text
    assert status == 0


def test_different_loads_are_shouted_with_their_flags(tmp_path: Path) -> None:
    other = replace(base(), workload=base().workload | {"turns": 9})
    _, text = run(tmp_path, base(), other, allow_different_load=True)
    assert "DIFFERENT LOADS" in text and "  turns: 2 and 9" in text


def test_arms_of_one_and_conversations_left_out_are_told(tmp_path: Path) -> None:
    lost = tuple(s for s in base().samples if (s.conversation, s.turn, s.arm) != (0, 2, "on"))
    other = replace(base(), samples=lost, arms=base().arms[:1])
    _, text = run(tmp_path, base(), other)
    assert "only in old: bypassed" in text
    assert "on: 1 conversations left out of the times" in text


def test_other_answers_are_told(tmp_path: Path) -> None:
    samples = tuple(replace(s, answer_digest="x") for s in base().samples)
    _, text = run(tmp_path, base(), replace(base(), samples=samples))
    assert "32 of 32 answers to the same turn are not the same" in text


def test_markup_of_a_server_is_printed_as_it_is(tmp_path: Path) -> None:
    other = replace(base(), server=replace(base().server, name="[red]x[/red]"))
    _, text = run(tmp_path, base(), other)
    (head, *_) = [line for line in text.splitlines() if "metric" in line]
    assert "[red]x[/red]" in head


def test_the_comparison_is_written_as_json(tmp_path: Path) -> None:
    run(tmp_path, base(), slower(base()), json_file=tmp_path / "c.json")
    written = msgspec.json.decode((tmp_path / "c.json").read_bytes(), type=Comparison)
    assert written.schema == "kvloop.bench.compare/1"
    assert (written.a.file, written.b.file) == (
        str(tmp_path / "old.json"),
        str(tmp_path / "new.json"),
    )
    assert written.has_regressed


def test_a_tolerance_without_end_is_written_as_null(tmp_path: Path) -> None:
    run(tmp_path, base(), base(), json_file=tmp_path / "c.json", rules=(("*", math.inf),))
    written = msgspec.json.decode((tmp_path / "c.json").read_bytes(), type=Comparison)
    assert {row.tolerance for row in written.rows} == {None}


def test_thinned_values_keep_their_quantiles_and_their_owners() -> None:
    values = [[float(10 * unit + i) for i in range(1000)] for unit in range(7)]
    few = thin(values, 500)
    assert sum(map(len, few)) <= 500
    assert all(set(kept) <= set(each) for kept, each in zip(few, values, strict=True))
    for share in (0.5, 0.99):
        exact, close = single(Quantile(values, share)).value, single(Quantile(few, share)).value
        assert abs(close - exact) < 0.01 * exact


def test_few_values_are_not_thinned() -> None:
    values = [[1.0, 2.0], [], [3.0]]
    assert thin(values, 3) is values
