"""SGLang's own cache controllers, with their storage threads, over the plug-in."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from flaky_backend import CLASS, MODULE
from running import wait_for
from sglang_pools import LAYERS, fill, mha_pool, mla_pool, page_bytes, wipe
from sglang_wheel import extra_config, needs_sglang, one_rank, sglang_module, sglang_runtime

pytestmark = [pytest.mark.integration, needs_sglang]

PAGE = 4
NUM_PAGES = 150  # more than one of SGLang's batches of 128
TOKENS = list(range(NUM_PAGES * PAGE))
DOCS = Path(__file__).parents[3] / "docs" / "backends" / "sglang.md"


class _Device:
    """Of the device pool, what a controller that moves nothing to the device asks."""

    device = "cpu"
    layer_num = LAYERS

    def register_layer_transfer_counter(self, counter: Any) -> None:
        pass


class _Allocator:
    def get_kvcache(self) -> _Device:
        return _Device()


@contextmanager
def controller(pool: Any, config: dict[str, Any]) -> Iterator[Any]:
    module = sglang_runtime("sglang.srt.managers.cache_controller")
    with _attached(module.HiCacheController, pool, config) as running:
        yield running


@contextmanager
def _attached(make: Callable[..., Any], pool: Any, config: dict[str, Any]) -> Iterator[Any]:
    with one_rank():
        running = make(
            _Allocator(),
            pool,
            PAGE,
            None,
            threading.Event(),
            io_backend="direct",
            storage_backend="dynamic",
            model_name="org/model",
            storage_backend_extra_config=config,
        )
        try:
            yield running
        finally:
            running.detach_storage_backend()


def hashes(tokens: list[int]) -> list[str]:
    utils = sglang_runtime("sglang.srt.mem_cache.utils")
    found: list[str] = utils.get_storage_hash_str(tokens, None, page_size=PAGE)
    return found


def backed_up(running: Any, indices: torch.Tensor, **more: Any) -> Any:
    """The backup operation after its end."""
    running.write_storage(indices, TOKENS, hash_value=hashes(TOKENS), **more)
    return running.ack_backup_queue.get(timeout=30)


def prefetched(running: Any, start: Callable[[], Any]) -> Any:
    """A prefetch operation after its end: host memory is taken for what was found, as SGLang's
    scheduler does."""
    operation = start()
    assert running.prefetch_hit_queue.get(timeout=30) is operation
    if operation.storage_hit_count:
        operation.host_indices = running.mem_pool_host.alloc(operation.storage_hit_count)
        running.prefetch_buffer.put(operation)
        while True:
            ack = running.ack_prefetch_queue.get(timeout=30)
            if ack.completed_tokens is not None:
                operation.completed_tokens = ack.completed_tokens
            if ack.pool_hits is not None:
                operation.found_in_pools = ack.pool_hits
            if ack.completed_req:
                break
    return operation


def file_config(root: Path, **more: Any) -> dict[str, Any]:
    return extra_config("file", {"root": str(root)}, **more)


@pytest.mark.parametrize("interface_v1", [0, 1])
@pytest.mark.parametrize("layout", ["layer_first", "page_first", "page_first_direct"])
@pytest.mark.parametrize("make", [mha_pool, mla_pool])
def test_the_controller_finds_what_it_backed_up(
    tmp_path: Path, make: Callable[..., Any], layout: str, interface_v1: int
) -> None:
    pool = make(layout, PAGE, tokens=1024)
    fill(pool)
    with controller(pool, file_config(tmp_path, interface_v1=interface_v1)) as running:
        names = running.page_get_func.__name__, running.page_set_func.__name__
        assert (
            names
            == [
                ("_generic_page_get", "_generic_page_set"),
                ("_page_get_zero_copy", "_page_set_zero_copy"),
            ][interface_v1]
        )
        written = pool.alloc(len(TOKENS))
        assert backed_up(running, written).completed_tokens == len(TOKENS)
        found = prefetched(running, lambda: running.prefetch("r", [*TOKENS, *range(8)]))
        assert found.storage_hit_count == found.completed_tokens == len(TOKENS)
        assert page_bytes(pool, found.host_indices) == page_bytes(pool, written)


def test_a_second_instance_finds_the_pages_of_the_first(tmp_path: Path) -> None:
    first, second = (
        mha_pool("page_first", PAGE, tokens=1024),
        mha_pool("page_first", PAGE, tokens=1024),
    )
    fill(first)
    written = first.alloc(len(TOKENS))
    with controller(first, file_config(tmp_path)) as running:
        backed_up(running, written)
    with controller(second, file_config(tmp_path)) as running:
        found = prefetched(running, lambda: running.prefetch("r", TOKENS))
        assert found.completed_tokens == len(TOKENS)
        assert page_bytes(second, found.host_indices) == page_bytes(first, written)


def test_a_failing_store_never_gives_the_controller_wrong_bytes(tmp_path: Path) -> None:
    config = {
        "backend_name": "flaky",
        "module_path": MODULE,
        "class_name": CLASS,
        "root": str(tmp_path / "l3"),
        "flips": 0.05,
        "errors": 0.05,
        "lost_writes": 0.05,
    }
    pool = mha_pool("page_first", PAGE, tokens=2048)
    fill(pool)
    written = pool.alloc(len(TOKENS))
    right = page_bytes(pool, written)
    with controller(pool, extra_config("dynamic", config, dynamic_modules=[MODULE])) as running:

        def num_found() -> int:
            backed_up(running, written)
            found = prefetched(running, lambda: running.prefetch("r", TOKENS))
            if not found.storage_hit_count:
                return 0
            num_pages = found.completed_tokens // PAGE
            read = page_bytes(pool, found.host_indices)
            pool.free(found.host_indices)
            assert read[:num_pages] == right[:num_pages]
            return num_pages

        assert any([num_found() for _ in range(6)]) or wait_for("a hit", num_found)
    assert page_bytes(pool, written) == right


def test_a_wrong_setting_fails_sglangs_attach_and_leaves_it_without_storage(
    tmp_path: Path,
) -> None:
    pool = mha_pool("page_first", PAGE)
    with controller(pool, file_config(tmp_path)) as running:
        running.detach_storage_backend()
        with pytest.raises(Exception, match="unknown field 'typo'"):
            running.attach_storage_backend(
                storage_backend="dynamic",
                model_name="m",
                storage_backend_extra_config=file_config(tmp_path, typo=1),
            )
        assert not running.enable_storage and running.storage_backend is None


def test_attach_and_detach_leave_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    pool = mha_pool("page_first", PAGE)

    def counts() -> tuple[int, int]:
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    def round_trip() -> None:
        with controller(pool, file_config(tmp_path)) as running:
            indices = pool.alloc(PAGE)
            running.page_set_func(hashes(TOKENS[:PAGE]), indices, None)
            pool.free(indices)

    round_trip()
    before = counts()
    for _ in range(3):
        round_trip()
    wait_for("the end of threads", lambda: counts() <= before)


def mamba_pool(slots: int = 32) -> Any:
    """SGLang's host pool of recurrent states: one a page, wherever a prefix may end."""
    info = sglang_runtime("sglang.srt.mem_cache.device_pool_info")
    module = sglang_runtime("sglang.srt.mem_cache.pool_host.mamba")
    states = info.MambaStateBufferInfo(
        temporal=torch.zeros(LAYERS, slots, 2, 8, dtype=torch.float32),
        conv=(torch.zeros(LAYERS, slots, 6, dtype=torch.bfloat16),),
    )
    return module.MambaPoolHost(
        states, 2.0, 0, device_capacity=slots, pin_memory=False, layout="page_first"
    )


class Hybrid:
    """The controller of hybrid models: KV, an index beside each KV page, and recurrent states."""

    def __init__(self, config: dict[str, Any], mla: Any, index: Any, mamba: Any) -> None:
        group = sglang_runtime("sglang.srt.mem_cache.pool_host.group")
        self.names = sglang_module("sglang.srt.mem_cache.hicache_storage").PoolName
        self.mla, self.index, self.mamba = mla, index, mamba
        pools = [(self.names.KV, mla), (self.names.INDEXER, index), (self.names.MAMBA, mamba)]
        entries = [
            group.PoolEntry(name, pool, _Device(), lambda layer: layer, name is self.names.KV)
            for name, pool in pools
        ]
        module = sglang_runtime("sglang.srt.mem_cache.hybrid_cache.hybrid_cache_controller")
        self.attached = _attached(
            module.HybridCacheController, group.HostPoolGroup(entries), config
        )

    def transfers(self, mamba_indices: torch.Tensor | None, last_key: str) -> list[Any]:
        module = sglang_module("sglang.srt.mem_cache.hicache_storage")
        kv = self.names.KV
        return [
            module.PoolTransfer(self.names.INDEXER, indices_from_pool=kv),
            module.PoolTransfer(
                self.names.MAMBA,
                host_indices=mamba_indices,
                keys=[last_key],
                hit_policy=module.PoolHitPolicy.TRAILING_PAGES,
            ),
        ]

    def prefetch(self, running: Any, tokens: list[int], mamba_indices: torch.Tensor) -> Any:
        handle = sglang_runtime("sglang.srt.mem_cache.base_prefix_cache").CacheRequestHandle("r", 0)
        transfers = self.transfers(mamba_indices, hashes(tokens)[-1])
        return prefetched(running, lambda: running.prefetch(handle, tokens, extra_pools=transfers))


def hybrid_on(root: Path) -> Hybrid:
    pools = [mla_pool("page_first", PAGE, tokens=1024) for _ in range(2)]
    return Hybrid(file_config(root), *pools, mamba_pool())


def state_of(pool: Any, index: int) -> bytes:
    return bytes(pool.get_data_page(index).contiguous().view(torch.uint8).numpy().tobytes())


def test_the_hybrid_controller_finds_the_pages_of_all_its_pools(tmp_path: Path) -> None:
    hybrid = hybrid_on(tmp_path)
    for pool in (hybrid.mla, hybrid.index):
        fill(pool)
    with hybrid.attached as running:
        written, state = hybrid.mla.alloc(len(TOKENS)), hybrid.mamba.alloc(1)
        hybrid.mamba.temporal_buffer.normal_()
        right = page_bytes(hybrid.mla, written), page_bytes(hybrid.index, written)
        right_state = state_of(hybrid.mamba, int(state[0]))
        transfers = hybrid.transfers(state, hashes(TOKENS)[-1])
        assert backed_up(running, written, extra_pools=transfers).completed_tokens == len(TOKENS)
        wipe(hybrid.mla), wipe(hybrid.index), hybrid.mamba.temporal_buffer.zero_()
        found = hybrid.prefetch(running, TOKENS, hybrid.mamba.alloc(1))
        assert found.storage_hit_count == found.completed_tokens == len(TOKENS)
        assert found.found_in_pools["mamba"] == 1
        pages = page_bytes(hybrid.mla, found.host_indices)
        assert (pages, page_bytes(hybrid.index, found.host_indices)) == right
        [mamba] = [t for t in found.pool_transfers if t.name == "mamba"]
        assert state_of(hybrid.mamba, int(mamba.host_indices[0])) == right_state


def test_a_prefix_is_cut_where_a_side_pool_has_nothing(tmp_path: Path) -> None:
    hybrid = hybrid_on(tmp_path)
    with hybrid.attached as running:
        written, keys = hybrid.mla.alloc(len(TOKENS)), hashes(TOKENS)
        backed_up(running, written, extra_pools=hybrid.transfers(hybrid.mamba.alloc(1), keys[4]))
        storage = running.storage_backend
        exists = storage.batch_exists_v2(keys, hybrid.transfers(None, keys[-1]), None)
        assert exists.kv_hit_pages == 5 and exists.restorable_prefix_pages == [5]
        assert exists.extra_pool_hit_pages == {"kv": NUM_PAGES, "indexer": NUM_PAGES, "mamba": 5}
        assert storage.batch_exists_v2(keys).kv_hit_pages == NUM_PAGES
        none = storage.batch_get_v2([], None)
        assert none == {} and storage.batch_exists_v2([]).kv_hit_pages == 0


def test_an_anchor_without_bytes_leaves_the_pages_to_the_side_pools(tmp_path: Path) -> None:
    pools = sglang_runtime("sglang.srt.mem_cache.memory_pool_host")
    anchor = pools.LogicalHostPool(1024 * PAGE, PAGE)
    index = mla_pool("page_first", PAGE, tokens=1024)
    fill(index)
    hybrid = Hybrid(file_config(tmp_path), anchor, index, mamba_pool())
    with hybrid.attached as running:
        written = index.alloc(len(TOKENS))
        right = page_bytes(index, written)
        transfers = hybrid.transfers(hybrid.mamba.alloc(1), hashes(TOKENS)[-1])
        backed_up(running, written, extra_pools=transfers)
        wipe(index)
        found = hybrid.prefetch(running, TOKENS, hybrid.mamba.alloc(1))
        assert found.completed_tokens == len(TOKENS)
        assert page_bytes(index, found.host_indices) == right


def documented_command() -> list[str]:
    """The launch command of the documentation, as a shell splits it."""
    block = DOCS.read_text().split("```bash\n")[1].split("```")[0]
    words = shlex.split(block.replace("\\\n", " "), comments=True)
    return words[words.index("sglang.launch_server") + 1 :]


def test_the_documented_command_is_one_that_sglang_takes_and_the_plug_in_serves(
    tmp_path: Path,
) -> None:
    server_args = sglang_runtime("sglang.srt.server_args").ServerArgs
    parser = argparse.ArgumentParser()
    server_args.add_cli_args(parser)
    flags = parser.parse_args(documented_command())
    assert flags.hicache_storage_backend == "dynamic" and flags.enable_hierarchical_cache
    config = json.loads(flags.hicache_storage_backend_extra_config)
    assert config["backend"] == "file"
    config["config"]["root"] = str(tmp_path)
    pool = mha_pool(flags.hicache_mem_layout, flags.page_size)
    with controller(mha_pool(flags.hicache_mem_layout, PAGE), config) as running:
        assert running.page_get_func.__name__ == "_page_get_zero_copy"
        assert type(running.storage_backend).__name__ == "KVLoopStorage"
    assert pool.page_size == 64
