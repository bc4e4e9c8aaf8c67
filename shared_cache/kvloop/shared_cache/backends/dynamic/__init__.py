"""The backend `dynamic`: a class of a module that the node was told at launch it may load."""

from kvloop.shared_cache.backends.dynamic.loader import dynamic_opener as prepare

__all__ = ["prepare"]
