"""The storage benchmark on a real directory: arms move what they say, and tell what was lost."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import json
import os
import shutil
import sys
from itertools import count
from pathlib import Path

import pytest
from rich.console import Console
from shelf_store import MODULE, SHELVES
from shelf_store import config as shelf_config

from kvloop.benchmark.storage import raw_file
from kvloop.benchmark.storage.arm import Arm, CheckedArm, MemcpyArm, UncheckedArm
from kvloop.benchmark.storage.load import PHASES, StorageLoad, phase_batches
from kvloop.benchmark.storage.measure import Run, measure
from kvloop.benchmark.storage.raw_file import RawFileArm
from kvloop.benchmark.storage.result import rows
from kvloop.benchmark.storage.run import (
    Checksums,
    StorageBenchConfig,
    measure_storage,
    run_storage_bench,
)
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.guard import GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_store import PageStore
from kvloop.shared_cache.storage_errors import StorageUnavailable

LOAD = StorageLoad(
    page_bytes=8192, pages_per_batch=4, threads=2, total_bytes=16 * 8192, rounds=2, num_exists=20
)


def config(root: Path, checksums: Checksums = "both", **more: object) -> StorageBenchConfig:
    return StorageBenchConfig(
        backend="file", extra_config={"root": str(root), **more}, load=LOAD, checksums=checksums
    )


class CountingArm(Arm):
    """Moves nothing, and remembers what it was told."""

    name = "counting"

    def __init__(self, lost: int = 0) -> None:
        self.written: set[bytes] = set()
        self.read_before_written: list[bytes] = []
        self.slots: set[int] = set()
        self._lost = lost

    def write(self, keys, slots):  # type: ignore[no-untyped-def]
        self.written.update(keys)
        self.slots.update(slots)
        return len(keys) - self._lost

    def read(self, keys, slots):  # type: ignore[no-untyped-def]
        self.read_before_written += [key for key in keys if key not in self.written]
        return len(keys)

    def forget(self, keys):  # type: ignore[no-untyped-def]
        self.written.difference_update(keys)


def test_every_arm_moves_every_page_in_every_phase_and_round(tmp_path: Path) -> None:
    report = measure_storage(config(tmp_path))

    assert {row.arm for row in report.rows} > {"kvloop", "kvloop, no checksums", "memcpy"}
    assert all(row.pages_missed == 0 and row.bytes_per_s > 0 for row in report.rows)
    assert len(report.runs) == 5 * len(PHASES) * LOAD.rounds
    assert {run.pages for run in report.runs} == {LOAD.num_batches * LOAD.pages_per_batch}


def test_the_raw_file_is_the_limit_of_a_backend_with_files(tmp_path: Path) -> None:
    report = measure_storage(config(tmp_path))

    assert report.limit in ("raw file", "raw file, O_DIRECT")
    shares = {row.arm: row.share_of_limit for row in report.rows}
    assert shares.pop(report.limit) is None
    assert all(share is not None and share > 0 for share in shares.values())


@pytest.mark.parametrize(
    ("checksums", "arms"),
    [("on", {"kvloop"}), ("off", {"kvloop, no checksums"})],
)
def test_checksums_can_be_measured_alone(
    tmp_path: Path, checksums: Checksums, arms: set[str]
) -> None:
    report = measure_storage(config(tmp_path, checksums))

    assert {row.arm for row in report.rows if row.arm.startswith("kvloop")} == arms


@pytest.mark.parametrize("is_checked", [True, False])
def test_an_arm_brings_back_the_bytes_that_it_wrote(tmp_path: Path, is_checked: bool) -> None:
    pool, namespace = HostPool(LOAD.shape, 8), b"n" * 32
    opener = backend_opener("file", {"root": str(tmp_path)}, pool, namespace)
    guard = GuardedBackend(opener, pool, name="file", namespace=namespace)
    store = PageStore(guard, pool, namespace=namespace, writer="prefill")
    arm: Arm = CheckedArm(store, guard) if is_checked else UncheckedArm(guard)
    assert guard.wait_settled(10)
    keys = [bytes([i]) * 32 for i in range(4)]
    for slot in pool.alloc(8) or []:
        pool.view(slot)[:] = bytes([slot]) * pool.shape.slot_bytes
    assert arm.write(keys, range(4)) == arm.read(keys, range(4, 8)) == 4
    payloads = [bytes(pool.payload(0)[slot].tobytes()) for slot in range(8)]
    arm.forget(keys)
    assert arm.read(keys, range(4)) == 0
    guard.close()

    assert payloads[:4] == payloads[4:] and len(set(payloads)) == 4


def test_exists_finds_what_is_stored_and_nothing_else(tmp_path: Path) -> None:
    exists = measure_storage(config(tmp_path)).exists

    assert (exists.num_keys, exists.num_found) == (20, 10)


def test_no_page_no_record_and_no_raw_file_is_left_behind(tmp_path: Path) -> None:
    measure_storage(config(tmp_path))

    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_namespace_that_could_not_be_removed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = io.StringIO()
    bench = dataclasses.replace(config(tmp_path / "store"), console=Console(file=sink, width=80))

    def lost(self: MemcpyArm) -> None:
        shutil.rmtree(tmp_path / "store")
        (tmp_path / "store").write_text("")

    monkeypatch.setattr(MemcpyArm, "close", lost)
    with contextlib.suppress(OSError):  # of the arms that had files there
        measure_storage(bench)
    assert "may be left in namespace" in sink.getvalue()


@pytest.mark.parametrize("first_that_fails", [1, 2])
def test_a_file_system_without_room_for_the_raw_file_keeps_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_that_fails: int
) -> None:
    allocate, calls = os.posix_fallocate, count(1)

    def full(fd: int, offset: int, length: int) -> None:
        is_ours = "kvloop-bench-raw" in os.readlink(f"/proc/self/fd/{fd}")
        if is_ours and next(calls) >= first_that_fails:
            raise OSError(errno.ENOSPC, "no space left")
        allocate(fd, offset, length)

    bench = config(tmp_path, direct="off")
    monkeypatch.setattr(raw_file.os, "posix_fallocate", full)
    with pytest.raises(ConfigError, match="cannot hold a file to compare with"):
        measure_storage(bench)
    assert not list(tmp_path.glob("kvloop-bench-raw*"))


def test_a_json_file_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    bench = dataclasses.replace(config(tmp_path / "store"), json_file=tmp_path / "no" / "out.json")
    with pytest.raises(ConfigError, match=r"--json .*no/out.json: there is no such directory"):
        run_storage_bench(bench)
    assert not list(tmp_path.iterdir())


def test_each_thread_has_slots_of_its_own() -> None:
    arm = CountingArm()
    list(measure(LOAD, [arm]))

    assert len(arm.slots) <= LOAD.num_slots == 8


def test_only_what_was_written_is_read_and_all_is_forgotten() -> None:
    arm = CountingArm()
    runs = list(measure(LOAD, [arm]))

    assert not arm.read_before_written
    assert not arm.written
    assert {run.phase for run in runs} == set(PHASES)


def test_the_mixed_phase_reads_the_share_it_was_told() -> None:
    load = StorageLoad(pages_per_batch=1, page_bytes=1 << 20, total_bytes=10 << 20, read_share=0.3)
    batches = phase_batches(load, "arm", 0, "mixed")

    assert [sum(batch.is_read for batch in batches), len(batches)] == [3, 10]


def test_each_arm_is_first_in_its_turn() -> None:
    arms = [CountingArm(), CountingArm()]
    for number, arm in enumerate(arms):
        arm.name = str(number)
    assert [run.arm for run in measure(LOAD, arms) if run.phase == "write"] == ["0", "1", "1", "0"]


def test_a_dynamic_backend_is_measured_where_its_module_is_allowed() -> None:
    fields, load = shelf_config("bench"), dataclasses.replace(LOAD, rounds=1)
    bench = StorageBenchConfig(backend="dynamic", extra_config=fields, load=load)
    with pytest.raises(ConfigError, match="not among the modules"):
        measure_storage(bench)
    report = measure_storage(dataclasses.replace(bench, dynamic_modules=[MODULE]))
    assert report.limit == "memcpy" and {row.pages_missed for row in report.rows} == {0}
    assert not SHELVES.pop("bench").objects


def test_lost_pages_are_counted_and_do_not_count_as_moved() -> None:
    runs = list(measure(LOAD, [CountingArm(lost=1)]))

    assert {run.pages_missed for run in runs if run.phase == "write"} == {4}
    assert {row.pages_missed for row in rows(runs, 1, "counting") if row.phase == "read"} == {0}


def test_a_share_is_the_median_of_the_rounds_ratios_to_the_limit_in_the_same_round() -> None:
    def run(arm: str, number: int, seconds: float) -> Run:
        return Run(
            arm=arm,
            round=number,
            phase="read",
            seconds=seconds,
            call_seconds=(seconds,),
            pages=10,
            pages_missed=0,
        )

    slow_round = [run("mine", 0, 20.0), run("limit", 0, 10.0)]
    fast_rounds = [run("mine", i, 1.0) for i in (1, 2)] + [run("limit", i, 0.9) for i in (1, 2)]
    others = [
        Run(arm=a, round=0, phase=p, seconds=1, call_seconds=(1,), pages=1, pages_missed=0)
        for a in ("mine", "limit")
        for p in ("write", "mixed")
    ]
    found = rows([*slow_round, *fast_rounds, *others], 100, "limit")

    mine = next(row for row in found if (row.arm, row.phase) == ("mine", "read"))
    assert mine.share_of_limit == pytest.approx(0.9)
    assert mine.bytes_per_s == pytest.approx(1000)
    assert (mine.call_p50_ms, mine.call_p99_ms) == pytest.approx((1000, 19620))


@pytest.mark.parametrize("is_rewritten", [True, False])
@pytest.mark.parametrize("is_direct", [True, False])
def test_the_raw_file_gives_back_what_was_written(
    tmp_path: Path, is_direct: bool, is_rewritten: bool
) -> None:
    pool = HostPool(LOAD.shape, 4)
    try:
        arm = RawFileArm(tmp_path, LOAD, pool, is_direct=is_direct, is_rewritten=is_rewritten)
    except OSError:
        pytest.skip("no O_DIRECT on this file system")
    keys = [bytes([i]) * 32 for i in range(4)]
    for slot in range(4):
        pool.view(slot)[:] = bytes([slot]) * pool.shape.slot_bytes
    arm.prepare()
    assert arm.write(keys, range(4)) == 4
    assert arm.read(keys[::-1], range(4)) == 4
    arm.close()

    assert [pool.view(slot)[0] for slot in range(4)] == [3, 2, 1, 0]
    assert not list(tmp_path.iterdir())


def test_the_json_has_the_runs_and_no_configuration(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    bench = config(tmp_path / "store")
    status = run_storage_bench(
        StorageBenchConfig(
            backend=bench.backend,
            extra_config=bench.extra_config,
            load=LOAD,
            json_file=path,
            console=Console(file=sys.stderr, width=100),
        )
    )
    written = json.loads(path.read_text())

    assert status == 0
    assert written["schema"] == "kvloop.bench.storage/1"
    assert {"rows", "runs", "exists", "load", "limit", "stats"} < set(written)
    assert str(tmp_path) not in path.read_text()


def test_the_table_fits_a_terminal_and_names_the_limit(tmp_path: Path) -> None:
    sink = io.StringIO()
    run_storage_bench(
        StorageBenchConfig(
            backend="file",
            extra_config={"root": str(tmp_path)},
            load=LOAD,
            console=Console(file=sink, width=100),
        )
    )
    text = sink.getvalue()

    assert "exists of 20 keys, 10 of them stored" in text
    assert "limit" in text and "of raw file" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_a_store_that_cannot_be_opened_is_an_error_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises((StorageUnavailable, ConfigError), match="plain"):
        measure_storage(config(tmp_path / "plain"))


@pytest.mark.parametrize(
    ("field", "value"),
    [("page_bytes", 7), ("pages_per_batch", 0), ("threads", 0), ("read_share", 2), ("rounds", 0)],
)
def test_a_wrong_load_names_the_field(field: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"{field} must be .*{value}"):
        StorageLoad(**{field: value})  # type: ignore[arg-type]
