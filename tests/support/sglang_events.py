"""SGLang's own types and publisher of KV events, without what they import and do not need."""

from __future__ import annotations

import importlib.util
import sys
import types
from functools import cache
from typing import Any
from unittest.mock import patch

from sglang_wheel import sglang_folder


@cache
def sglang_events() -> Any:
    """`sglang.srt.disaggregation.kv_events` of the wheel; its network and its ranks stand in."""
    folder = sglang_folder()
    assert folder is not None
    path = folder / "srt" / "disaggregation" / "kv_events.py"
    spec = importlib.util.spec_from_file_location("sglang_kv_events", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    names = ("sglang", "sglang.srt", "sglang.srt.runtime_context", "sglang.srt.utils")
    stand_ins = {name: types.ModuleType(name) for name in (*names, "sglang.srt.utils.network")}
    stand_ins["sglang.srt.runtime_context"].__dict__["get_parallel"] = None
    stand_ins["sglang.srt.utils.network"].__dict__["NetworkAddress"] = None
    with patch.dict(sys.modules, {**stand_ins, spec.name: module}):
        spec.loader.exec_module(module)
        module.KVEventBatch(ts=0.0, events=[])
    sys.modules[spec.name] = module  # msgspec looks annotations up there
    return module
