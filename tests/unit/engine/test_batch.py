"""Packing segments, and cutting a batch for several threads."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from kvloop.engine.batch import Segment, make_batch

PAGE = 4


def test_slots_follow_each_segments_pages():
    batch = make_batch(
        [([7, 8, 9], Segment([5, 2], 3, 3)), ([6], Segment([9, 0, 1], 8, 1, False))], PAGE, "cpu"
    )
    assert batch.token_ids.tolist() == [7, 8, 9, 6]
    assert batch.positions.tolist() == [3, 4, 5, 8]
    assert batch.slots.tolist() == [5 * 4 + 3, 2 * 4, 2 * 4 + 1, 1 * 4]
    assert batch.logit_rows() == [2]


segments = st.lists(
    st.builds(Segment, st.just(range(40)), st.integers(0, 60), st.integers(1, 40), st.booleans()),
    min_size=1,
    max_size=6,
)


@given(segments, st.integers(1, 7))
def test_parts_of_a_batch_hold_its_rows_and_logits_in_order(items, parts):
    batch = make_batch([(range(s.length), s) for s in items], PAGE, "cpu")
    cut = batch.split(parts)
    assert len(cut) <= parts
    assert max(p.num_tokens for p in cut) - min(p.num_tokens for p in cut) <= 1
    for name in ("token_ids", "positions", "slots"):
        assert torch.equal(torch.cat([getattr(p, name) for p in cut]), getattr(batch, name))
    for part in cut:
        spans = torch.cat([torch.arange(s.start, s.end) for s in part.segments])
        assert torch.equal(spans, part.positions)
    rows, base = [], 0
    for part in cut:
        rows += [base + row for row in part.logit_rows()]
        base += part.num_tokens
    assert rows == batch.logit_rows()
