"""What the numbers mean that Mooncake's calls return; 0 and above is success."""

from __future__ import annotations

from collections.abc import Sequence

NO_ROOM = frozenset((-200, -1700))
"""No segment has room; the tenant's quota is used up."""
TOO_LARGE = -600
_ILLEGAL_CLIENT = -601
_REPLICA_NOT_READY = -703
NOT_FOUND = -704
_ALREADY_EXISTS = -705
MISSES = frozenset((TOO_LARGE, _REPLICA_NOT_READY, NOT_FOUND))

CONTESTED = frozenset((_ILLEGAL_CLIENT, _REPLICA_NOT_READY, NOT_FOUND, _ALREADY_EXISTS))
"""Another client writes or removes the record at this moment."""

_INVALID_REPLICA = -702
_LEASE_EXPIRED = -707
_TRANSFER_FAIL = -800
KEY_FAULTS = frozenset((_ILLEGAL_CLIENT, _INVALID_REPLICA, _LEASE_EXPIRED, _TRANSFER_FAIL))
"""One object alone: the node that has it died or let it go, or another client is writing it."""

RPC_TIMEOUT = -901
_MASTER_FAULTS = frozenset(
    (-900, RPC_TIMEOUT, -1010, -1011)
)  # the RPC failed; it is not the leader
UNKNOWN_TENANT = -1701
_WORDS = {
    -900: "the master cannot be reached",
    RPC_TIMEOUT: "the master does not answer",
    -1010: "the master is not the leader",
    -1011: "the master is not the leader",
    UNKNOWN_TENANT: "the master does not know this tenant_id: register it and its quota there",
}


def faults_in(codes: Sequence[int]) -> list[int]:
    """Those that are neither success, nor a miss, nor a want of room."""
    return [code for code in codes if code < 0 and code not in MISSES and code not in NO_ROOM]


def fault_of_the_store(codes: Sequence[int], faults: Sequence[int]) -> int | None:
    """The code that says that the store itself is at fault, if one does.

    A single object may fail alone, and so may all of a batch that a dead store node has.
    """
    for code in faults:
        if code in _MASTER_FAULTS or code == UNKNOWN_TENANT:
            return code
    others = [code for code in faults if code not in KEY_FAULTS]
    return others[0] if others and len(others) == len(codes) else None


def words(code: int) -> str:
    """For an error message."""
    return f"{code} ({_WORDS[code]})" if code in _WORDS else str(code)
