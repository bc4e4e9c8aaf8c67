"""Whether reuse changed what was answered. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from kvloop.benchmark.sample import Sample


def compare_answers(samples: Sequence[Sample]) -> tuple[int, int]:
    """(requests that several arms answered, those of them whose answers were not all the same).

    `all_miss` has prompts of its own and is left out. A history goes on with what was answered,
    so one difference makes the same conversation's later turns differ, too.
    """
    answers: dict[tuple[int, int, int], list[str]] = {}
    for sample in samples:
        if sample.arm != "all_miss" and sample.answer_digest is not None:
            key = (sample.step, sample.conversation, sample.turn)
            answers.setdefault(key, []).append(sample.answer_digest)
    compared = [digests for digests in answers.values() if len(digests) > 1]
    return len(compared), sum(len(set(digests)) > 1 for digests in compared)
