"""The guard before a storage backend: deadlines, a circuit breaker, and exchange while in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from kvloop.shared_cache.attachment import Attachment, ClearOutcome
from kvloop.shared_cache.backend import BackendOpener, StorageBackend
from kvloop.shared_cache.guard_shared import GuardConfig, GuardShared, GuardState
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.manifest import Manifest
from kvloop.shared_cache.storage_errors import StorageUnavailable

__all__ = ["ClearOutcome", "GuardConfig", "GuardState", "GuardedBackend"]

Result = TypeVar("Result")


class GuardedBackend:
    """A storage backend that never raises and never takes longer than a deadline.

    While none is attached every call returns None at once. The first opening and every later one
    happens on a thread of the guard's, so that a node starts, and goes on, without L3. Without an
    opener it starts detached. `attach` and `detach` may come at any time, whatever runs.

    A call that misses its deadline goes on behind the caller's back and keeps its slots until it
    ends: the caller frees them as always, and must write nothing more into them before that.
    """

    def __init__(
        self,
        opener: BackendOpener | None,
        pool: HostPool,
        *,
        name: str,
        namespace: bytes,
        config: GuardConfig | None = None,
        manifest: Manifest | None = None,
    ) -> None:
        self.pool = pool
        """The pool that backends must be opened over."""
        self.namespace = namespace
        self._shared = GuardShared(pool=pool, config=config or GuardConfig(), manifest=manifest)
        self._change = self._shared.change
        self._attachment: Attachment | None = None
        self._past_renewals = 0
        self._abandoned: str | None = None
        if opener is not None:
            self.attach(opener, name)

    # --- which backend --------------------------------------------------------------------------

    def attach(self, opener: BackendOpener, name: str) -> None:
        """Open this backend from now on; returns at once.

        One that is attached is replaced: what it was asked before runs to its end behind the
        scenes, and calls miss until the new one is there. One that cannot be opened is tried again
        and again; `status` says why.
        """
        attachment = Attachment(opener, name, self._shared)
        with self._change:
            if self._attachment is not None:
                self._attachment.end()
            self._leave(self._attachment)
            self._attachment, self._abandoned = attachment, None
            attachment.start()
            self._change.notify_all()

    def detach(self, timeout_s: float = 5.0) -> bool:
        """Refuse new calls and wait for running ones; False where some are abandoned.

        An abandoned call keeps its slots and its connection until it ends.
        """
        attachment = self._attachment
        if attachment is None:
            return True
        attachment.end()
        is_drained = attachment.wait_drained(timeout_s)
        with self._change:
            if self._attachment is attachment:
                self._leave(attachment)
                if not is_drained:
                    self._abandoned = f"detached, with calls that did not end within {timeout_s} s"
            self._change.notify_all()
        return is_drained

    def close(self, timeout_s: float = 5.0) -> bool:
        """Detach, at the process's end."""
        return self.detach(timeout_s)

    def _leave(self, attachment: Attachment | None) -> None:
        if attachment is not None:
            self._past_renewals += attachment.renewals
        self._attachment = None

    # --- how it stands --------------------------------------------------------------------------

    @property
    def state(self) -> GuardState:
        """`open` means that the breaker is: the backend is left alone until it works again."""
        attachment = self._attachment
        return attachment.state if attachment is not None else "detached"

    @property
    def last_error(self) -> str | None:
        """Why the backend was last given up; stays after it came back."""
        attachment = self._attachment
        return attachment.last_error if attachment is not None else self._abandoned

    @property
    def epoch(self) -> bytes | None:
        """Of the store that is attached; None: not known, or none is."""
        attachment = self._attachment
        return attachment.epoch if attachment is not None else None

    @property
    def generation(self) -> int:
        """Grows when another backend has become attached, or this one has lost its content.

        What was learnt under an earlier generation of the content of L3 is void. It has grown
        before the first call to a newly attached backend can succeed; a loss of content shows
        within `check_s`.
        """
        with self._change:
            attachment = self._attachment
            return self._past_renewals + (attachment.renewals if attachment is not None else 0)

    def status(self) -> dict[str, Any]:
        """The admin API's view; never blocks."""
        with self._change:
            attachment, epoch = self._attachment, self.epoch
            status = {
                "backend": attachment.name if attachment is not None else "none",
                "state": self.state,
                "last_error": self.last_error,
                "namespace": self.namespace.hex(),
                "epoch": epoch.hex() if epoch else None,
                "generation": self.generation,
            }
        stats = attachment.stats() if attachment is not None else {}
        return {**status, "stats": self._shared.counts.snapshot() | stats}

    def wait_attached(self, timeout_s: float) -> bool:
        """Wait until the backend is attached; False at the deadline."""
        with self._change:
            return self._change.wait_for(lambda: self.state == "attached", timeout_s)

    def wait_settled(self, timeout_s: float) -> bool:
        """Wait until it is known whether the backend opens; False at the deadline."""
        with self._change:
            return self._change.wait_for(lambda: self.state != "attaching", timeout_s)

    # --- calls ------------------------------------------------------------------------------------

    def exists(self, keys: Sequence[bytes]) -> list[bool] | None:
        """As the backend's; None where it did not answer, or is another by now. So for all below.

        `get` alone gives what a backend replaced meanwhile has read: the pages are good.
        """
        return self._lasting(lambda backend: _each(backend.exists(keys), keys))

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool] | None:
        """After None the slots may still be written to; free them."""
        return self._call(lambda backend: _each(backend.get(keys, slots), keys), slots)

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool] | None:
        """After None the slots may still be read; free them."""
        return self._lasting(lambda backend: _each(backend.set(keys, slots), keys), slots)

    def delete(self, keys: Sequence[bytes]) -> list[bool] | None:
        """As the backend's."""
        return self._call(lambda backend: _each(backend.delete(keys), keys))

    def discard(self, keys: Sequence[bytes]) -> list[bool] | None:
        """As the backend's."""
        return self._call(lambda backend: _each(backend.discard(keys), keys))

    def put_small(self, name: str, value: bytes) -> bool:
        """False where it was not stored, or perhaps not."""
        return self._lasting(lambda backend: backend.put_small(name, value)) or False

    def get_small(self, name: str) -> bytes | None:
        """None where there is no record or no answer."""
        return self._call(lambda backend: backend.get_small(name))

    def clear(self, timeout_s: float = 30.0) -> ClearOutcome:
        """Remove the namespace's pages and records; an unfinished one goes on."""
        attachment = self._attachment
        return attachment.clear(timeout_s) if attachment is not None else "unavailable"

    def _lasting(
        self, work: Callable[[StorageBackend], Result], slots: Sequence[int] = ()
    ) -> Result | None:
        """An answer about what L3 holds: of no use once that is another."""
        before = self.generation
        result = self._call(work, slots)
        return result if self.generation == before else None

    def _call(
        self, work: Callable[[StorageBackend], Result], slots: Sequence[int] = ()
    ) -> Result | None:
        attachment = self._attachment
        if attachment is None:
            self._shared.counts.add("refused")
            return None
        return attachment.call(work, slots)


def _each(answers: list[bool], keys: Sequence[bytes]) -> list[bool]:
    """A backend that was written elsewhere may err: one answer for each key, else none counts."""
    if not isinstance(answers, list) or len(answers) != len(keys):
        raise StorageUnavailable(f"the backend answered {answers!r:.80} for {len(keys)} keys")
    return answers
