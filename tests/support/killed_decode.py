"""A decode engine in a process of its own that answers and offloads until it is killed."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import torch
from decode_chats import ChatDecode
from stalling_backend import MODULE, StallingBackend

_SERVER = multiprocessing.get_context("forkserver")
"""Its first process imports torch; those to be killed are its copies."""
_SERVER.set_forkserver_preload(["killed_decode"])


NUM_PROMPTS = 8


def answer_length(number: int) -> int:
    """Tokens of each of an engine's answers."""
    return 20 + 8 * number


class KilledDecode:
    """The parent's end; `answers` are (prompt, answer) of requests that had ended."""

    def __init__(self, model: str, root: Path, seed: int) -> None:
        self._from, to = _SERVER.Pipe(duplex=False)
        self._process = _SERVER.Process(
            target=_answer_on, args=(to, model, str(root), seed), daemon=True
        )
        self._process.start()
        to.close()
        assert self._from.recv() == "ready"

    def kill(self) -> list[tuple[list[int], list[int]]]:
        """SIGKILL; returns what had been answered until then."""
        self._process.kill()
        self._process.join(10)
        answers = []
        try:
            while self._from.poll():
                answers.append(self._from.recv())
        except EOFError:
            pass
        self._from.close()
        return answers


def prompts_of(seed: int) -> list[list[int]]:
    """What the engine of that seed is asked, at once."""
    dice = Random(seed)
    return [dice.choices(range(4, 160), k=dice.randrange(5, 70)) for _ in range(NUM_PROMPTS)]


def _slow_file_cache(root: str) -> dict[str, Any]:
    return {
        "hicache_storage_backend": "dynamic",
        "hicache_dynamic_modules": (MODULE,),
        "hicache_storage_backend_extra_config": {
            "backend_name": "slow",
            "module_path": MODULE,
            "class_name": StallingBackend.__name__,
            "root": root,
            "write_pause_s": 0.02,
        },
    }


def _answer_on(to: Connection, model: str, root: str, seed: int) -> None:
    torch.set_num_threads(1)
    decode = ChatDecode(model, 120, with_transfer=False, **_slow_file_cache(root))
    assert decode.parts.store.guard.wait_attached(30)
    open_ = {str(n): prompt for n, prompt in enumerate(prompts_of(seed))}
    for name, prompt in open_.items():
        decode.ask(name, prompt, answer_length(int(name)))
    to.send("ready")
    while True:
        decode.scheduler.step()
        for name in [name for name in open_ if decode.events(name)]:
            if type(decode.events(name)[-1]).__name__ == "Finished":
                to.send((open_.pop(name), decode.answer(name)))
