"""SGLang's flat page tensors as pieces of memory."""

from __future__ import annotations

from typing import Any

from kvloop.shared_cache.sglang.host_pages import Piece


def to_host(tensor: Any, num_bytes: int) -> Any:
    """The tensor with its bytes in a row in host memory; None where it is none of this size."""
    return tensor.cpu().contiguous() if _has_bytes(tensor, num_bytes) else None


def is_target(tensor: Any, num_bytes: int) -> bool:
    """Whether a page of so many bytes can be written to the tensor in place."""
    return _has_bytes(tensor, num_bytes) and tensor.device.type == "cpu" and tensor.is_contiguous()


def piece_of(tensor: Any) -> Piece:
    """Where the tensor's bytes are; it must outlive the piece."""
    return Piece(tensor.data_ptr(), tensor.numel() * tensor.element_size())


def _has_bytes(tensor: Any, num_bytes: int) -> bool:
    is_tensor = hasattr(tensor, "data_ptr") and hasattr(tensor, "numel")
    return is_tensor and bool(tensor.numel() * tensor.element_size() == num_bytes)
