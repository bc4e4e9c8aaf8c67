"""Classes that a careless author might write; each shows one thing when `dynamic` loads it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from kvloop.shared_cache.backend import StorageBackend


class InMemory:
    """The least of SGLang's interface that works, in this process only."""

    made: ClassVar[list[InMemory]] = []

    def __init__(self, storage_config: Any, kwargs: dict[str, Any]) -> None:
        self.config = storage_config
        self.values: dict[str, Any] = {}
        self.made.append(self)

    def exists(self, key: str) -> bool:
        return key in self.values

    def get(self, key: str, target_location: Any = None, target_sizes: Any = None) -> Any:
        return self.values.get(key)

    def set(self, key: str, value: Any = None) -> bool:
        self.values[key] = value.clone()
        return True


class Batches(InMemory):
    """With SGLang's batch calls; counts them."""

    def __init__(self, storage_config: Any, kwargs: dict[str, Any]) -> None:
        super().__init__(storage_config, kwargs)
        self.num_calls: dict[str, int] = {"get": 0, "set": 0, "exists": 0}

    def batch_exists(self, keys: list[str], extra_info: Any = None) -> int:
        self.num_calls["exists"] += 1
        found = [key in self.values for key in keys]
        return found.index(False) if False in found else len(found)

    def batch_get(self, keys: list[str], target_locations: Any = None) -> list[Any]:
        self.num_calls["get"] += 1
        return [self.values.get(key) for key in keys]

    def batch_set(self, keys: list[str], values: Any = None) -> bool:
        self.num_calls["set"] += 1
        return all([self.set(key, value) for key, value in zip(keys, values, strict=True)])


class NoTwins(Batches):
    """Fills only one place of a key that a batch has twice, and says that it filled both."""

    def batch_get(self, keys: list[str], target_locations: Any = None) -> list[Any]:
        for key, place in dict(zip(keys, target_locations, strict=True)).items():
            place.copy_(self.values[key])
        return [True] * len(keys)


class FillsInPlace(InMemory):
    """Fills the given tensor and says True."""

    def get(self, key: str, target_location: Any = None, target_sizes: Any = None) -> Any:
        if key not in self.values:
            return False
        target_location.copy_(self.values[key])
        return True


class FirstValueStays(InMemory):
    def set(self, key: str, value: Any = None) -> bool:
        self.values.setdefault(key, value.clone())
        return True


class WrongLength(InMemory):
    def get(self, key: str, target_location: Any = None, target_sizes: Any = None) -> Any:
        return torch.zeros(3, dtype=torch.uint8) if key in self.values else None


class BadObject(InMemory):
    """Fails on the objects whose names end as `bad` says, and on all when `is_down`."""

    bad = "never"
    is_down = False

    def exists(self, key: str) -> bool:
        self._check("")
        return super().exists(key)

    def get(self, key: str, target_location: Any = None, target_sizes: Any = None) -> Any:
        self._check(key)
        return super().get(key)

    def set(self, key: str, value: Any = None) -> bool:
        self._check(key)
        return super().set(key, value)

    def _check(self, key: str) -> None:
        if self.is_down or key.endswith(self.bad):
            raise OSError("on purpose")


class Refuses(InMemory):
    def set(self, key: str, value: Any = None) -> bool:
        return False


class BadCount(Batches):
    def batch_exists(self, keys: list[str], extra_info: Any = None) -> Any:
        return len(keys) + 1


class Removes(InMemory):
    def delete(self, key: str) -> None:
        del self.values[key]


class FailsToRegister(InMemory):
    is_closed = False

    def register_mem_pool_host(self, mem_pool_host: Any) -> None:
        raise MemoryError("cannot pin")

    def batch_exists(self, keys: list[str]) -> int:
        return 0

    def batch_get_v1(self, keys: list[str], host_indices: Any) -> list[bool]:
        return []

    def batch_set_v1(self, keys: list[str], host_indices: Any) -> list[bool]:
        return []

    def close(self) -> None:
        self.is_closed = True


class NoExists:
    def __init__(self, storage_config: Any, kwargs: dict[str, Any]) -> None:
        pass

    def get(self, key: str) -> None:
        return None

    def set(self, key: str, value: Any) -> bool:
        return False


class OtherConstructor(InMemory):
    def __init__(self, host: str, port: int, path: str) -> None:
        raise AssertionError("never made")


class FailsToStart(InMemory):
    def __init__(self, storage_config: Any, kwargs: dict[str, Any]) -> None:
        raise ValueError("no licence")


class ContractWithOtherConstructor(StorageBackend):
    def __init__(self, address: str) -> None:
        raise AssertionError("never made")

    def exists(self, keys: Any) -> list[bool]:
        return []

    get = set = delete = put_small = get_small = stats = clear = close = exists  # type: ignore[assignment]
