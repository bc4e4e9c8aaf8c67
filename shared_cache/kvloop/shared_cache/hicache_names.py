"""The names of HiCache's policies, layouts and codecs, as flags and messages spell them."""

from typing import Literal

WritePolicy = Literal["write_through", "write_through_selective", "write_back"]
PrefetchPolicy = Literal["best_effort", "wait_complete", "timeout"]
EvictionPolicy = Literal["lru", "lfu", "slru", "priority"]
HostLayout = Literal["layer_first", "page_first", "page_first_direct"]
Codec = Literal["none", "int8", "fp8"]
OffloadPolicy = Literal["all", "answer", "selective"]
"""Every full page; those that the next turn's prompt can repeat; these, of sessions that return."""
BackPressure = Literal["delay", "drop_newest", "drop_oldest"]
"""Where the offload's staging is full: keep pages on the device, or give pages up."""
BackendName = Literal["aibrix", "chain", "dynamic", "file", "hf3fs", "mooncake", "nixl", "zones"]
