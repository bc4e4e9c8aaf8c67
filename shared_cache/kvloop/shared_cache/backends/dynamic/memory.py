"""The host pool's memory as torch tensors, which is what SGLang's classes move; no copy."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.host_pool import HostPool


def load_torch() -> Any:
    """The module torch; raises ConfigError where it is not installed."""
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ConfigError(
            "storage backend 'dynamic': classes with SGLang's interface move torch tensors; "
            f"install torch ({error})"
        ) from error


class PoolMemory:
    """The pool as an array of objects: object number `slot * head_groups + group`."""

    def __init__(self, pool: HostPool) -> None:
        assert pool.holds_objects, pool.layout
        self.torch = load_torch()
        self.object_bytes = pool.shape.object_bytes
        self.num_objects = pool.num_slots * pool.shape.head_groups
        self.tensor = self.torch.from_numpy(pool.array.reshape(-1))
        """uint8 [bytes of the pool], writable."""

    def object(self, number: int) -> Any:
        """uint8 [object_bytes], a writable view of one object."""
        start = number * self.object_bytes
        return self.tensor[start : start + self.object_bytes]

    def copy(self, source: int, target: int) -> None:
        """From one object to another."""
        self.object(target).copy_(self.object(source))

    def take(self, number: int, answer: Any) -> bool:
        """Put what a class's `get` answered into place; False where it is not the object.

        An answer is the given tensor, True where that was filled, another tensor of the same
        length, or None or False for a miss.
        """
        if answer is None or isinstance(answer, bool):
            return bool(answer)
        place = self.object(number)
        if not isinstance(answer, self.torch.Tensor) or answer.nbytes != self.object_bytes:
            return False
        if answer.data_ptr() != place.data_ptr():
            place.copy_(answer.contiguous().view(self.torch.uint8).reshape(-1))
        return True


class PoolFacade:
    """The host pool as SGLang's classes know theirs: one page of an MLA pool for each object.

    Layout page_first_direct with a single layer. A page of it is one object, whole: payload,
    trailer and padding. `host_indices` number its tokens, `page_size` for each object.
    """

    layout = "page_first_direct"
    device = "cpu"
    pin_memory = False
    layer_num = target_layer_num = 1
    start_layer, end_layer = 0, 1
    head_num = 1
    qk_rope_head_dim = 0
    dcp_size, dcp_rank = 1, 0
    allocator = None
    shared_allocation_domain = None
    stores_page_envelope = False
    storage_format_tag = None
    pool_label = "kv"

    def __init__(self, memory: PoolMemory, page_size: int) -> None:
        """`page_size` tokens a page where these divide an object evenly, else one."""
        self._memory = memory
        is_even = memory.object_bytes % page_size == 0
        self.page_size = self.logical_page_size = page_size if is_even else 1
        self.page_num = memory.num_objects
        self.size = self.page_num * self.page_size
        self.dtype = memory.torch.uint8
        self.size_per_token = memory.object_bytes // self.page_size
        self.head_dim = self.kv_cache_dim = self.kv_lora_rank = self.size_per_token
        self.token_stride_size = self.layout_dim = self.size_per_token
        shape = (self.page_num, self.layer_num, self.page_size, 1, self.kv_cache_dim)
        self.kv_buffer = memory.tensor.view(shape)

    def indices(self, numbers: Sequence[int]) -> Any:
        """int64 [len(numbers) * page_size]: the tokens of these objects."""
        torch, size = self._memory.torch, self.page_size
        first = torch.tensor(list(numbers), dtype=torch.int64) * size
        return (first[:, None] + torch.arange(size)).reshape(-1)

    def get_size_per_token(self) -> int:
        """Bytes."""
        return self.size_per_token

    def get_ksize_per_token(self) -> int:
        """Bytes; an object is not parted into K and V."""
        return self.size_per_token

    def get_page_buffer_meta(self, indices: Any) -> tuple[list[int], list[int]]:
        """Address and length of each page whose tokens `indices` are."""
        firsts = indices.tolist()[:: self.page_size]
        size = self._memory.object_bytes
        base = self.kv_buffer.data_ptr()
        return [base + i // self.page_size * size for i in firsts], [size] * len(firsts)

    def get_data_page(self, index: Any, flat: bool = True) -> Any:
        """The page of token `index`, a view."""
        number = int(index) // self.page_size
        return self._memory.object(number) if flat else self.kv_buffer[number : number + 1]

    def get_dummy_flat_data_page(self) -> Any:
        """A page of zeros, of its own."""
        return self._memory.torch.zeros(self._memory.object_bytes, dtype=self.dtype)

    def set_from_flat_data_page(self, index: Any, data_page: Any) -> None:
        """Copy a whole page into that of token `index`."""
        number = int(index) // self.page_size
        self._memory.object(number).copy_(data_page.reshape(-1).view(self.dtype))

    def get_hybrid_pool_buffer(self) -> list[Any]:
        """All memory that pages lie in, for registration."""
        return [self.kv_buffer]

    def is_stride_page_aligned(self, alignment: int) -> bool:
        """Whether every page starts at a multiple of `alignment`."""
        starts = (self.kv_buffer.data_ptr(), self._memory.object_bytes)
        return all(start % alignment == 0 for start in starts)
