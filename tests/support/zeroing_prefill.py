"""A prefill node whose transfer delivers zeros: `python zeroing_prefill.py HOW prefill FLAGS`.

`read`: its sender reads zeros, and sums them: every checksum matches, as of a pool that was never
written, or of device memory that a network card cannot see. `arrive`: what it reads is right, and
zeros arrive. Started as its front, it starts itself as its engine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

_HOW = "ZEROING_PREFILL"


def serve_front() -> int:
    """The node's front, told to start this file as its engine."""
    from kvloop.cli.main import main
    from kvloop.prefill.node import PrefillFront

    os.environ[_HOW] = sys.argv[1]
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]
    )
    PrefillFront.engine_module = "zeroing_prefill"
    return main(sys.argv[2:])


def serve_engine() -> None:
    """The engine, with a sender that is broken."""
    from kvloop.engine.process import run_engine
    from kvloop.prefill.scheduler import PrefillScheduler
    from kvloop.prefill.sender import Push, Sender

    write = Sender._write

    def write_zeros(self: Sender, push: Push) -> Any:
        push.is_ready()
        pages = self._kv.tensor[push.layer, :, list(push.pages)]
        _zero(self, push.layer, push.pages)
        pushed = write(self, push)
        if os.environ[_HOW] == "arrive":
            self._kv.tensor[push.layer, :, list(push.pages)] = pages
            pushed = type(pushed)(
                layer=pushed.layer,
                first=pushed.first,
                count=pushed.count,
                checksum=_checksum(self, push),
                computed_at=pushed.computed_at,
            )
        return pushed

    Sender._write = write_zeros  # type: ignore[method-assign]
    run_engine(PrefillScheduler)


def _zero(sender: Any, layer: int, pages: Sequence[int]) -> None:
    sender._kv.tensor[layer, :, list(pages)] = 0


def _checksum(sender: Any, push: Any) -> int:
    from kvloop.engine.page_blocks import layer_checksum

    return layer_checksum(sender._kv, push.layer, push.pages)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(serve_front())
    serve_engine()
