"""What a report says that it was measured on."""

import re

import pytest

from kvloop.benchmark import hardware
from kvloop.benchmark.hardware import describe_machine

FILES = {
    "/proc/cpuinfo": ["processor : 0", "model name : AMD EPYC 7B13"],
    "/proc/meminfo": ["MemFree: 1 kB", "MemTotal: 25165824 kB"],
}


def machine(monkeypatch: pytest.MonkeyPatch, **files: str) -> str:
    known = {**FILES, "/sys/fs/cgroup/cpu.max": [files.get("cpu_max", "max 100000")]}
    monkeypatch.setattr(hardware, "_lines", lambda path: known[path])
    monkeypatch.setattr(hardware, "_num_cores", lambda: 8)
    return describe_machine()


def test_cores_processor_and_memory_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine(monkeypatch).startswith("8 cores, AMD EPYC 7B13, 24 GiB, ")


@pytest.mark.parametrize(
    ("cpu_max", "words"),
    [
        ("200000 100000", "8 cores of which 2 may be used, "),
        ("50000 100000", "8 cores of which 0.5 may be used, "),
        ("1600000 100000", "8 cores, "),
        ("nonsense", "8 cores, "),
    ],
)
def test_a_containers_limit_is_told(
    monkeypatch: pytest.MonkeyPatch, cpu_max: str, words: str
) -> None:
    assert machine(monkeypatch, cpu_max=cpu_max).startswith(words)


def test_this_machine_has_words_of_its_own() -> None:
    assert re.match(r"\d+ cores.*\(the driver's machine\)$", describe_machine())
