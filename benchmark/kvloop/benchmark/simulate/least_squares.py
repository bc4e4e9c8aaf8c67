"""Fits of costs to measured times: no cost is negative, and a few odd times do not pull it."""

from __future__ import annotations

from collections.abc import Sequence

Row = Sequence[float]
_ROUNDS = 10
_ODD = 0.3
"""A relative error beyond which a measurement counts less."""


def fit_costs(rows: Sequence[Row], times: Sequence[float]) -> list[float]:
    """Costs `c >= 0` such that `rows @ c` is near `times`, in relative terms.

    Every row is weighted by 1 / time, so that short ones count as much, and by Huber's rule, so
    that odd ones count less. A cost that would be negative is 0.
    """
    assert rows and len(rows) == len(times) and min(times) > 0
    weights = [1.0 / time for time in times]
    costs = [0.0] * len(rows[0])
    for _ in range(_ROUNDS):
        costs = _without_negative(rows, times, weights)
        errors = [relative_error(row, time, costs) for row, time in zip(rows, times, strict=True)]
        weights = [
            min(1.0, _ODD / max(error, 1e-9)) ** 0.5 / time
            for error, time in zip(errors, times, strict=True)
        ]
    return costs


def relative_error(row: Row, time: float, costs: Sequence[float]) -> float:
    """By how much of the time the costs miss it."""
    return abs(predict(row, costs) - time) / time


def predict(row: Row, costs: Sequence[float]) -> float:
    """The time that the costs say."""
    return sum(value * cost for value, cost in zip(row, costs, strict=True))


def _without_negative(
    rows: Sequence[Row], times: Sequence[float], weights: Sequence[float]
) -> list[float]:
    """Least squares; the most negative cost is left out, until none is."""
    used = [index for index in range(len(rows[0])) if any(row[index] for row in rows)]
    while used:
        found = _solve(rows, times, weights, used)
        lowest = min(range(len(used)), key=lambda place: found[place])
        if found[lowest] >= 0:
            break
        used.pop(lowest)
    else:
        found = []
    costs = [0.0] * len(rows[0])
    for index, cost in zip(used, found, strict=True):
        costs[index] = cost
    return costs


def _solve(
    rows: Sequence[Row], times: Sequence[float], weights: Sequence[float], used: Sequence[int]
) -> list[float]:
    """The normal equations by elimination, columns scaled to be of one size."""
    scaled = [[row[index] * w for index in used] for row, w in zip(rows, weights, strict=True)]
    wanted = [time * weight for time, weight in zip(times, weights, strict=True)]
    num = len(used)
    sizes = [sum(row[i] ** 2 for row in scaled) ** 0.5 for i in range(num)]
    scaled = [[value / size for value, size in zip(row, sizes, strict=True)] for row in scaled]
    matrix = [
        [sum(row[i] * row[j] for row in scaled) + (1e-9 if i == j else 0.0) for j in range(num)]
        + [sum(row[i] * want for row, want in zip(scaled, wanted, strict=True))]
        for i in range(num)
    ]
    for i in range(num):
        pivot = max(range(i, num), key=lambda r: abs(matrix[r][i]))
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        for r in range(num):
            if r != i:
                share = matrix[r][i] / matrix[i][i]
                matrix[r] = [a - share * b for a, b in zip(matrix[r], matrix[i], strict=True)]
    return [matrix[i][num] / matrix[i][i] / sizes[i] for i in range(num)]
