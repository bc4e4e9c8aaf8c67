"""What a process holds after it has connected to a Mooncake store again and again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from mooncake_store import MooncakeStore, running

pytestmark = pytest.mark.integration

_NUM_OPENINGS = 12
_ONE_BYTES = 25 << 20  # of resident memory, while a connection is open
_REOPEN = f"""
import gc, json, os, sys, threading
from kvloop.shared_cache.conformance.child import holdings
from kvloop.shared_cache.factory import open_backend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
shape = PageShape(num_layers=1, page_size=1, num_kv_heads=1, head_size=8, itemsize=2)
pool = HostPool(shape, 1)
gc.disable()  # in a node the garbage collector may not come for hours

def use(is_closed):
    backend = open_backend("mooncake", json.loads(sys.argv[1]), pool, bytes(32))
    backend.exists([bytes(32)])
    backend.close()
    is_closed.set()
    threading.Event().wait()

def resident_bytes_after(n):
    for _ in range(n):  # each on a thread, and so a heap, of its own, as with a node's guard
        is_closed = threading.Event()
        threading.Thread(target=use, args=(is_closed,), daemon=True).start()
        is_closed.wait()
    return holdings().resident_bytes

print("grown by", -resident_bytes_after(2) + resident_bytes_after({_NUM_OPENINGS}), flush=True)
os._exit(0)
"""


def test_a_connection_that_is_closed_gives_its_memory_back_at_once(tmp_path: Path) -> None:
    with running(MooncakeStore(tmp_path / "store.log")) as store:
        command = [sys.executable, "-c", _REOPEN, json.dumps(store.config)]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    growth = int(run.stdout.split("grown by ")[1])
    assert growth < _NUM_OPENINGS * _ONE_BYTES // 4
