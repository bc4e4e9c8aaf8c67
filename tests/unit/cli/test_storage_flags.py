"""Every flag of `kvloop bench storage` and `kvloop nixl-store` reaches what it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvloop.benchmark.storage import run
from kvloop.benchmark.storage.load import StorageLoad
from kvloop.benchmark.storage.run import StorageBenchConfig
from kvloop.cli.main import main
from kvloop.shared_cache.backends.nixl import server
from kvloop.shared_cache.backends.nixl.server import MemoryServerConfig


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configurations that the commands would have run."""
    configs: list[Any] = []

    def noted(config: Any, *_: object) -> int:
        configs.append(config)
        return 0

    monkeypatch.setattr(run, "run_storage_bench", noted)
    monkeypatch.setattr(server, "run_memory_server", noted)
    return configs


def words(text: str) -> list[str]:
    return text.split()


def test_each_flag_of_the_storage_benchmark_counts(told: list[Any]) -> None:
    flags = (
        "--backend hf3fs --dynamic-modules a b --checksums off --json out.json --page-bytes 8192 "
        "--pages-per-batch 3 --threads 5 --total-bytes 99999 --read-share 0.25 --rounds 2 "
        "--num-exists 17 --seed 4"
    )
    assert main(["bench", "storage", *words(flags), "--extra-config", '{"mount": "/m"}']) == 0
    [config] = told
    assert (config.backend, config.extra_config) == ("hf3fs", {"mount": "/m"})
    assert (config.checksums, config.json_file) == ("off", Path("out.json"))
    assert list(config.dynamic_modules) == ["a", "b"]
    assert config.load == StorageLoad(
        page_bytes=8192,
        pages_per_batch=3,
        threads=5,
        total_bytes=99999,
        read_share=0.25,
        rounds=2,
        num_exists=17,
        seed=4,
    )


def test_the_storage_benchmark_has_one_default_of_everything(told: list[Any]) -> None:
    assert main(["bench", "storage", "--backend", "file"]) == 0
    [config] = told
    plain = StorageBenchConfig(backend="file", extra_config={}, load=StorageLoad())
    assert (config.load, config.checksums) == (plain.load, plain.checksums)


def test_each_flag_of_the_memory_server_counts(told: list[Any]) -> None:
    flags = "--host 10.0.0.7 --port 4321 --segment-size 2.5 --record-bytes 2097152 --lease-s 7"
    assert main(["nixl-store", *words(flags)]) == 0
    assert told == [
        MemoryServerConfig(
            host="10.0.0.7", port=4321, segment_bytes=5 << 29, record_bytes=2097152, lease_s=7.0
        )
    ]
