import subprocess
import sys
import threading

import pytest

from kvloop.shared_cache.workers import Workers


def test_map_keeps_the_order() -> None:
    workers = Workers(3, "test")
    assert workers.map(pow, [1, 2, 3, 4], [2, 2, 2, 2]) == [1, 4, 9, 16]
    workers.stop()


def test_map_raises_only_after_every_call_has_ended() -> None:
    workers, ended = Workers(2, "test"), threading.Event()
    gate = threading.Event()

    def work(is_bad: bool) -> None:
        if is_bad:
            gate.set()
            raise KeyError("bad")
        assert gate.wait(10)
        ended.set()

    with pytest.raises(KeyError):
        workers.map(work, [True, False])
    assert ended.is_set()
    workers.stop()


def test_a_call_that_hangs_does_not_hold_up_the_exit() -> None:
    code = (
        "import threading; from kvloop.shared_cache.workers import Workers;"
        "Workers(1, 'x').submit(threading.Event().wait)"
    )
    subprocess.run([sys.executable, "-c", code], timeout=30, check=True)
