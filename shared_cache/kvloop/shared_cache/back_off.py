"""How long a backend that was given up is left alone."""

from __future__ import annotations


class BackOff:
    """Waits double from `first_s` up to `longest_s`, until the backend has worked that long."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self.wait_s = first_s
        """Before the next attempt."""

    def lengthen(self) -> None:
        """One wait is over; the next is for an attempt that was in vain."""
        self.wait_s = min(self.wait_s * 2, self._longest_s)

    def given_up_after(self, worked_s: float) -> None:
        """A backend that answers probes but not calls costs a deadline at each of its returns, so
        that a short return does not make up for what was before."""
        if worked_s > self._longest_s:
            self.wait_s = self._first_s
