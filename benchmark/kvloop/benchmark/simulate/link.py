"""A way that bytes take one after the other: a bus, a network card, a store."""

from __future__ import annotations


class Link:
    """Bytes a second; what is sent queues behind what was sent before."""

    def __init__(self, bytes_per_s: float) -> None:
        assert bytes_per_s > 0
        self.bytes_per_s = bytes_per_s
        self.free_at = 0.0
        self.busy_s = 0.0
        self.num_bytes = 0.0

    def send(self, now: float, num_bytes: float) -> float:
        """When the last byte is there."""
        seconds = num_bytes / self.bytes_per_s
        self.free_at = max(now, self.free_at) + seconds
        self.busy_s += seconds
        self.num_bytes += num_bytes
        return self.free_at


def send_through(links: tuple[Link, ...], now: float, num_bytes: float) -> float:
    """Over several links at once: the slowest says when the last byte is there."""
    return max(link.send(now, num_bytes) for link in links)
