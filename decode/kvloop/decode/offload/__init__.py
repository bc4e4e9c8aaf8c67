"""Decode's asynchronous offload to the shared cache."""

from kvloop.decode.offload.chain import Extra
from kvloop.decode.offload.offload import Offload

__all__ = ["Extra", "Offload"]
