"""What random histories of the three tiers choose from."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

EVICTION = st.sampled_from(["lru", "lfu", "slru", "priority"])
WRITE = st.sampled_from(["write_through", "write_through_selective", "write_back"])
PREFETCH = st.sampled_from(["best_effort", "timeout", "wait_complete"])
LAYOUT = st.sampled_from(["page_first_direct", "page_first_direct", "layer_first"])
QUOTAS: list[dict[str, int]] = [{}, {"a": 2, "*": 3}, {"b": 1}, {"*": 4}]
ANY = st.integers(0, 11)
"""Which of what there is; what is drawn never depends on what the threads did."""

# Eight prompts that part at their first, second or third page, cut anywhere from two on.
_PROMPTS = [
    [which & 1, which & 2, which & 4, 0, 0][:length] for length in range(2, 6) for which in range(8)
]
_REQUESTS: list[dict[str, Any]] = [
    {"tenant": tenant, "cache": cache, "num_more": num_more, "priority": priority}
    for tenant in ("", "", "", "a", "a", "b")
    for cache in ("on", "on", "on", "on", "l3_only", "off")
    for num_more in (1, 0, 2)
    for priority in (0, 1, 2)
]
prompts = st.sampled_from(_PROMPTS)
requests = st.sampled_from(_REQUESTS)
