import threading
from pathlib import Path

import pytest

from kvloop.shared_cache import host_pool
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.memory_limit import available_memory
from kvloop.shared_cache.page_object import PageShape

SHAPE = PageShape(num_layers=2, page_size=4, num_kv_heads=2, head_size=8, itemsize=4, head_groups=2)


def test_alloc_is_all_or_nothing() -> None:
    pool = HostPool(SHAPE, 3)
    assert pool.alloc(4) is None
    assert pool.alloc(2) == [0, 1]
    assert pool.alloc(2) is None
    assert pool.num_free == 1


def test_freed_slots_are_given_out_again() -> None:
    pool = HostPool(SHAPE, 2)
    slots = pool.alloc(2)
    assert slots is not None
    pool.free(slots)
    assert sorted(pool.alloc(2) or []) == [0, 1]


def test_a_second_free_is_caught() -> None:
    pool = HostPool(SHAPE, 1)
    pool.alloc(1)
    pool.free([0])
    with pytest.raises(AssertionError, match="freed twice"):
        pool.free([0])


def test_a_retained_slot_comes_back_after_its_last_owner() -> None:
    pool = HostPool(SHAPE, 1)
    pool.alloc(1)
    pool.retain([0])
    pool.free([0])
    assert pool.alloc(1) is None
    pool.free([0])
    assert pool.alloc(1) == [0]


def test_views_addresses_and_array_are_the_same_memory() -> None:
    pool = HostPool(SHAPE, 3)
    pool.group_view(2, 1)[:4] = b"here"
    start = SHAPE.object_bytes
    assert bytes(pool.view(2)[start : start + 4]) == b"here"
    assert pool.array[2, start : start + 4].tobytes() == b"here"
    assert pool.array.shape == (3, SHAPE.slot_bytes)
    assert pool.address(2, 1) == pool.base_address + 2 * SHAPE.slot_bytes + start
    assert pool.array.ctypes.data == pool.base_address


def test_every_object_is_page_aligned() -> None:
    pool = HostPool(SHAPE, 3)
    assert all(pool.address(slot, group) % 4096 == 0 for slot in range(3) for group in range(2))


def test_threads_never_share_a_slot() -> None:
    pool = HostPool(SHAPE, 8)
    clashes: list[int] = []
    held: set[int] = set()

    def work() -> None:
        for _ in range(300):
            slots = pool.alloc(2)
            if slots is not None:
                clashes.extend(held.intersection(slots))
                held.update(slots)
                held.difference_update(slots)
                pool.free(slots)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clashes == [] and pool.num_free == 8


def test_a_pool_beyond_the_memory_left_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_pool, "available_memory", lambda: SHAPE.slot_bytes)
    HostPool(SHAPE, 1)
    with pytest.raises(ConfigError, match=r"only 0\.00 GiB of memory are left"):
        HostPool(SHAPE, 2)


def test_a_pool_without_slots_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_slots must be positive, got 0"):
        HostPool(SHAPE, 0)


def write_limits(root: Path, cgroup: str, files: dict[str, str]) -> tuple[Path, Path]:
    proc, groups = root / "proc", root / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    (proc / "self" / "cgroup").write_text(cgroup)
    for name, text in files.items():
        path = groups / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc, groups


def test_the_tightest_control_group_v2_on_the_way_up_counts(tmp_path: Path) -> None:
    files = {
        "a/b/memory.max": "max\n",
        "a/b/memory.current": "10\n",
        "a/memory.max": "5000\n",
        "a/memory.current": "3000\n",
        "a/memory.stat": "anon 5\ninactive_file 500\n",
    }
    assert available_memory(*write_limits(tmp_path, "0::/a/b\n", files)) == 2500


def test_a_control_group_v1_counts(tmp_path: Path) -> None:
    files = {
        "memory/x/memory.limit_in_bytes": "4000\n",
        "memory/x/memory.usage_in_bytes": "1000\n",
    }
    assert available_memory(*write_limits(tmp_path, "3:cpu:/\n4:memory:/x\n", files)) == 3000


def test_without_control_groups_the_machine_counts(tmp_path: Path) -> None:
    assert available_memory(*write_limits(tmp_path, "", {})) == 8000 * 1024
