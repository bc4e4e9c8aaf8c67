"""Who writes which page, by prefill's write policy and decode's offload policy: docs/loop.md."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from decode_chats import ChatDecode, file_cache
from decode_engine import PAGE, save_config
from page_files import published

from kvloop.shared_cache.hicache_names import OffloadPolicy
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.wire import StorageState, StripRule

PROMPT, ANSWER = 6, 5
"""Full pages."""
KEPT = 4


class Outcome(NamedTuple):
    prompt: int = 0
    """Pages of the prompt that are in L3 at the end,"""
    answer: int = 0
    """and of the answer."""
    by_decode: int = 0
    repaired: int = 0
    """Holes, by reason `policy`."""
    stripped: int = 0
    session: int = 0
    """Pages that were not worth storing, by why."""


def run(
    path: Path, policy: OffloadPolicy, says: StorageState, strip: StripRule | None, returns: object
) -> Outcome:
    """One answered turn whose prompt prefill has written, or leaves to decode."""
    root = path / "l3"
    decode = ChatDecode(
        save_config(path), 40, with_transfer=False, offload_policy=policy, **file_cache(root)
    )
    assert decode.parts.store.guard.wait_attached(30)
    prompt = Random(1).choices(range(4, 160), k=PROMPT * PAGE + 3)
    if says == "stored":
        decode.ask("as prefill", prompt, 1)
        decode.run()
        decode.scheduler.flush()
    before = written(decode)
    repaired = decode.counted("kvloop_chain_holes_total", reason="policy", repaired="true")
    decode.ask("r", prompt, ANSWER * PAGE, prefills=("http://p",), strip=strip, returns=returns)
    decode.scheduler.step()
    decode.hand_over(decode.offered("r"), says)
    decode.run()
    there = {page.key for page in published(root)}
    chain = page_keys([*prompt, *decode.answer("r")][:-1], PAGE)
    assert len(chain) == PROMPT + ANSWER and there <= set(chain)
    skipped = [
        int(decode.counted("kvloop_offload_skipped_pages_total", reason=reason))
        for reason in ("stripped", "session")
    ]
    decode.scheduler.close(1)
    decode.parts.store.close()
    now = decode.counted("kvloop_chain_holes_total", reason="policy", repaired="true")
    in_prompt = len(there & set(chain[:PROMPT]))
    return Outcome(
        in_prompt,
        len(there) - in_prompt,
        written(decode) - before,
        int(now - repaired),
        *skipped,
    )


def written(decode: ChatDecode) -> int:
    return int(decode.parts.store.counters.snapshot().pages["offload", "stored"])


THINKS = StripRule(kept_prompt=KEPT * PAGE)
BOTH = PROMPT + ANSWER


@pytest.mark.parametrize(
    ("policy", "says", "strip", "returns", "expected"),
    [
        # prefill writes through
        ("all", "stored", None, None, Outcome(PROMPT, ANSWER, ANSWER)),
        ("answer", "stored", None, None, Outcome(PROMPT, ANSWER, ANSWER)),
        ("answer", "stored", None, False, Outcome(PROMPT, ANSWER, ANSWER)),
        ("selective", "stored", None, True, Outcome(PROMPT, ANSWER, ANSWER)),
        ("selective", "stored", None, None, Outcome(PROMPT, ANSWER, ANSWER)),
        ("selective", "stored", None, False, Outcome(PROMPT, session=ANSWER)),
        ("all", "stored", THINKS, None, Outcome(PROMPT, ANSWER, ANSWER)),
        ("answer", "stored", THINKS, None, Outcome(PROMPT, stripped=ANSWER)),
        # prefill writes back, or selectively
        ("all", "will_not", None, None, Outcome(PROMPT, ANSWER, BOTH, PROMPT)),
        ("answer", "will_not", None, None, Outcome(PROMPT, ANSWER, BOTH, PROMPT)),
        ("selective", "will_not", None, True, Outcome(PROMPT, ANSWER, BOTH, PROMPT)),
        ("selective", "will_not", None, False, Outcome(session=ANSWER)),
        ("all", "will_not", THINKS, None, Outcome(PROMPT, ANSWER, BOTH, PROMPT)),
        ("answer", "will_not", THINKS, None, Outcome(KEPT, 0, KEPT, KEPT, stripped=ANSWER)),
    ],
)
def test_the_table_of_who_writes_what_holds(
    policy: OffloadPolicy,
    says: StorageState,
    strip: StripRule | None,
    returns: bool | None,
    expected: Outcome,
    tmp_path: Path,
) -> None:
    assert run(tmp_path, policy, says, strip, returns) == expected
