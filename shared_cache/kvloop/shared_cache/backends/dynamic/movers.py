"""The two ways in which a class with SGLang's interface moves objects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from kvloop.shared_cache.backends.dynamic.memory import PoolFacade, PoolMemory


class Mover(ABC):
    """Between a store's keys and objects of the pool, by number; raises what the class raises."""

    @abstractmethod
    def read(self, names: Sequence[str], numbers: Sequence[int]) -> list[bool]:
        """Fill the objects; False for each that the class has not."""

    @abstractmethod
    def write(self, names: Sequence[str], numbers: Sequence[int]) -> list[bool]:
        """Store the objects; False for each that the class refuses."""


class TensorMover(Mover):
    """By get and set (batch_get and batch_set where the class has them): a tensor an object."""

    def __init__(self, store: Any, memory: PoolMemory) -> None:
        self._store = store
        self._memory = memory
        self._can_get_many = callable(getattr(store, "batch_get", None))
        self._can_set_many = callable(getattr(store, "batch_set", None))

    def read(self, names: Sequence[str], numbers: Sequence[int]) -> list[bool]:
        places = [self._memory.object(number) for number in numbers]
        if self._can_get_many and len(names) > 1:
            answers = self._store.batch_get(list(names), places)
        else:
            asked = zip(names, places, strict=True)
            answers = [self._store.get(name, place) for name, place in asked]
        _require_answers("batch_get", answers, names)
        answered = zip(numbers, answers, strict=True)
        return [self._memory.take(number, answer) for number, answer in answered]

    def write(self, names: Sequence[str], numbers: Sequence[int]) -> list[bool]:
        values = [self._memory.object(number) for number in numbers]
        if self._can_set_many and len(names) > 1 and self._store.batch_set(list(names), values):
            return [True] * len(names)  # its other answer does not say which of them failed
        pairs = zip(names, values, strict=True)
        return [bool(self._store.set(name, value)) for name, value in pairs]


class IndexMover(Mover):
    """By batch_get_v1 and batch_set_v1: the class moves the registered pool's memory itself."""

    def __init__(self, store: Any, facade: PoolFacade) -> None:
        self._store = store
        self._facade = facade

    def read(self, names: Sequence[str], numbers: Sequence[int]) -> list[bool]:
        answers = self._store.batch_get_v1(list(names), self._facade.indices(numbers))
        return [bool(is_read) for is_read in _require_answers("batch_get_v1", answers, names)]

    def write(self, names: Sequence[str], numbers: Sequence[int]) -> list[bool]:
        answers = self._store.batch_set_v1(list(names), self._facade.indices(numbers))
        return [bool(is_set) for is_set in _require_answers("batch_set_v1", answers, names)]


def _require_answers(call: str, answers: Any, names: Sequence[str]) -> Sequence[Any]:
    if not isinstance(answers, list | tuple) or len(answers) != len(names):
        raise TypeError(f"{call} of {len(names)} keys answered {answers!r}: one entry a key needed")
    return answers
