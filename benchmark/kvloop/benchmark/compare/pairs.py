"""Which of two reports' tracks and conversations belong together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kvloop.benchmark.compare.tracks import Key, Track
from kvloop.shared_cache.errors import ConfigError


def matched(
    ours: Mapping[Key, Track],
    theirs: Mapping[Key, Track],
    arms: Sequence[str],
) -> tuple[list[tuple[Track, Track]], tuple[str, ...], tuple[str, ...]]:
    """Tracks of both, and the names of those that only one has."""
    wanted = [key for key in ours if key in theirs and (not arms or key[0] in arms)]
    have = {key[0] for key in wanted}
    if missing := [arm for arm in arms if arm not in have]:
        raise ConfigError(
            f"--arm {missing[0]}: not in both reports: the first has {_names(ours)}, "
            f"the second {_names(theirs)}"
        )
    if not wanted:
        raise ConfigError(
            f"no arm is in both reports: the first has {_names(ours)}, the second {_names(theirs)}"
        )
    return (
        [(ours[key], theirs[key]) for key in wanted],
        tuple(track.name for key, track in ours.items() if key not in theirs),
        tuple(track.name for key, track in theirs.items() if key not in ours),
    )


def _names(all_tracks: Mapping[Key, Track]) -> str:
    return ", ".join(track.name for track in all_tracks.values()) or "none"


def have_one_goal(a: Track, b: Track) -> bool:
    """Whether a request must keep the same to count in both."""
    goals = [(g.ttft_ms, g.tpot_ms) if (g := track.goodput) else None for track in (a, b)]
    return goals[0] == goals[1]


def whole(a: Track, b: Track, is_paired: bool) -> tuple[list[int], list[int]]:
    """Conversations whose times compare: those with the same turns answered, else unfailed ones."""
    if is_paired:
        both = [unit for unit in a.samples if a.turns(unit) == b.turns(unit)]
        return both, both
    ours = [unit for unit in a.samples if unit not in a.failures]
    return ours, [unit for unit in b.samples if unit not in b.failures]


def left_out(a: Track, b: Track, is_paired: bool) -> int:
    """Conversations that `whole` leaves out; of both runs together if they are not paired."""
    ours, theirs = whole(a, b, is_paired)
    if is_paired:
        return len({*a.conversations, *b.conversations}) - len(ours)
    return len(a.conversations) - len(ours) + len(b.conversations) - len(theirs)


def answers(pairs: Iterable[tuple[Track, Track]]) -> tuple[int, int]:
    """How many answers to the same turn there are, and how many of them are not the same."""
    compared = different = 0
    for a, b in pairs:
        theirs = _digests(b)
        both = [(key, digest) for key, digest in _digests(a).items() if key in theirs]
        compared += len(both)
        different += sum(theirs[key] != digest for key, digest in both)
    return compared, different


def _digests(track: Track) -> dict[tuple[int, int], str]:
    if track.arm == "all_miss":
        return {}  # its prompts are of one run only
    return {
        (sample.conversation, sample.turn): sample.answer_digest
        for samples in track.samples.values()
        for sample in samples
        if sample.answer_digest is not None
    }
