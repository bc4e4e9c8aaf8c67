"""The errors, drawn once.

KVLoopError
├── ConfigError      a flag, file or field is wrong; retrying is useless
├── CapacityError    no room now; retry after a while
└── TransferError    KV did not arrive; the request may be tried on another node
"""


class KVLoopError(Exception):
    """Base of all kvloop errors."""


class ConfigError(KVLoopError):
    """The configuration is wrong: names the field, what is wrong and what would be right."""


class CapacityError(KVLoopError):
    """A pool or queue is full now; the caller may retry."""


class TransferError(KVLoopError):
    """A KV transfer failed; the request may be retried on another node."""
