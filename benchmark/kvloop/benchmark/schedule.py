"""Which arm loads the server when: arms take turns, so that none has the better hours. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from kvloop.benchmark.arms import Arm, Segment
from kvloop.benchmark.workloads.plan import Conversation, Workload
from kvloop.shared_cache.errors import ConfigError

MAX_ROUNDS = 12
"""Of default schedules: every number of arms divides it. Each round is one more start and end."""
CONVERSATIONS_A_ROUND = 20
"""At least, where all conversations are held at once: fewer say little in one stretch."""


def plan_segments(
    workload: Workload,
    arms: Sequence[Arm],
    rates: Sequence[float],
    rounds: int | None,
    run_id: str,
    seed: int,
    *,
    clients: int | None = None,
) -> tuple[Segment, ...]:
    """All stretches of a run, one after the other; pure in its arguments.

    The conversations are cut into `rounds` neighbouring groups (None: `default_rounds`), branches
    with their parents; in a round every arm holds its group once. With `rates` that is done for
    each rate. Within an arm and rate every conversation is held exactly once.
    """
    _check(arms, rates, rounds)
    chosen = rounds or _rounds(workload, clients, bool(rates))
    groups = _split(families(workload.conversations), chosen)
    orders = _orders(arms, seed)
    return tuple(
        Segment(
            arm=arm,
            step=step,
            round=number,
            conversations=group,
            salt=salt(run_id, arm, step),
            rate=rate,
        )
        for step, rate in enumerate(rates or (None,))
        for number, group in enumerate(groups)
        for arm in next(orders)
    )


def salt(run_id: str, arm: Arm, step: int) -> str:
    """Apart for each arm and step, so that none warms another; the same in all its rounds."""
    return f"{run_id}.{arm}.{step}"  # vLLM takes no slash


def families(conversations: Sequence[Conversation]) -> tuple[tuple[int, ...], ...]:
    """Conversations that are no branches, each with all that branch off it; in order."""
    members: dict[int, list[int]] = {}
    roots: list[int] = []
    for number, conversation in enumerate(conversations):
        branch = conversation.branch
        assert branch is None or 0 <= branch.parent < number
        roots.append(number if branch is None else roots[branch.parent])
        members.setdefault(roots[-1], []).append(number)
    return tuple(tuple(each) for each in members.values())


def default_rounds(num_families: int, held: int) -> int:
    """As many as leave every round at least `held` families, up to `MAX_ROUNDS`.

    With `held` clients each round then has work for all of them.
    """
    return max(1, min(num_families // held, MAX_ROUNDS))


def _rounds(workload: Workload, clients: int | None, is_open: bool) -> int:
    num = len(families(workload.conversations))
    is_timed = any(turn.at_s is not None for c in workload.conversations for turn in c.turns)
    if is_timed:
        # A trace is held for its own times: cut it once, so that arms change places.
        return min(2, default_rounds(num, CONVERSATIONS_A_ROUND))
    if clients is None or is_open:
        return default_rounds(num, max(clients or 0, CONVERSATIONS_A_ROUND))
    return default_rounds(num, clients)


def _check(arms: Sequence[Arm], rates: Sequence[float], rounds: int | None) -> None:
    if not arms or len(set(arms)) != len(arms):
        raise ConfigError(f"--arms: want different arms, at least one; got {','.join(arms) or '-'}")
    if any(rate <= 0 for rate in rates):
        raise ConfigError(f"--rate: want requests a second above 0; got {list(rates)}")
    if rounds is not None and rounds < 1:
        raise ConfigError(f"--rounds: want 1 or more; got {rounds}")


def _split(groups: Sequence[tuple[int, ...]], rounds: int) -> list[tuple[int, ...]]:
    """Into that many runs of neighbours, as even as can be by families; none is empty."""
    rounds = min(rounds, len(groups))
    cuts = [len(groups) * number // rounds for number in range(rounds + 1)] if groups else []
    return [
        tuple(sorted(number for family in groups[low:high] for number in family))
        for low, high in pairwise(cuts)
    ]


def _orders(arms: Sequence[Arm], seed: int) -> Iterator[tuple[Arm, ...]]:
    """Endless: in `len(arms)` rounds each arm has each place once.

    A balanced Latin square (Williams 1949): with an even number of arms each also follows each
    other one equally often, with an odd number in twice as many rounds, so that what an arm
    leaves behind (heat, full tiers) falls on all alike.
    """
    num = len(arms)
    first = [(number + 1) // 2 if number % 2 else -(number // 2) for number in range(num)]
    square = [[(place + shift) % num for place in first] for shift in range(num)]
    if num % 2 and num > 1:
        square += [row[::-1] for row in square]
    number = seed
    while True:
        yield tuple(arms[place] for place in square[number % len(square)])
        number += 1
