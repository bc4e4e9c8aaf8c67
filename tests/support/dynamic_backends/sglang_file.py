"""SGLang's HiCacheFile, from its wheel (see sglang_wheel), for `dynamic` to load."""

from __future__ import annotations

import importlib

from sglang_standins import stand_ins
from sglang_wheel import sglang_folder, sglang_module

HiCacheFile = sglang_module("sglang.srt.mem_cache.hicache_storage").HiCacheFile

_folder = sglang_folder()
assert _folder is not None
with stand_ins(_folder):  # imported when the class is made, and asks for triton
    importlib.import_module("sglang.srt.mem_cache.storage.file")
