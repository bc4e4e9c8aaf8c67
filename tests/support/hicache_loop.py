"""Chats against a prefill node whose L1 and L2 are far too small for them, and their judgement."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from admin import ask
from faults import PAGE, Loop, start_loop
from loop_client import Answer, complete
from running import Cluster, Running, drained, wait_for
from served_models import save_served
from stalling_backend import MODULE, StallingBackend

from kvloop.shared_cache.hicache_names import (
    Codec,
    EvictionPolicy,
    HostLayout,
    PrefetchPolicy,
    WritePolicy,
)
from kvloop.shared_cache.page_object import PageShape

NUM_CHATS, NUM_TURNS, ANSWER = 16, 4, 24
SYSTEM = 4 * PAGE
"""Tokens that all chats of a round begin with."""
VOCAB = 4096
SHAPE = PageShape(num_layers=3, page_size=PAGE, num_kv_heads=2, head_size=16, itemsize=4)
"""Of the small model in fp32."""
SOURCES = ("computed", "device", "host", "storage", "transfer_skipped")


@dataclass(frozen=True, kw_only=True)
class Tiers:
    """How a prefill node is started; pages of 16 tokens."""

    layout: HostLayout = "page_first_direct"
    io_backend: str = "kernel"
    device_policy: EvictionPolicy = "lru"
    host_policy: EvictionPolicy = "lru"
    store: str = "file"
    """`file`, `mooncake`, or the JSON that a stalling backend is told beside its root."""
    codec: Codec = "none"
    device_pages: int = 40
    """Little more than the longest prompt of a chat has."""
    host_ratio: float = 5.0
    write: WritePolicy = "write_through"
    prefetch: PrefetchPolicy = "wait_complete"

    def flags(self) -> tuple[str, ...]:
        """Of prefill."""
        return (
            *("--max-total-tokens", str(self.device_pages * PAGE)),
            *("--hicache-ratio", str(self.host_ratio)),
            *("--hicache-mem-layout", self.layout),
            *("--hicache-io-backend", self.io_backend),
            *("--radix-eviction-policy", self.device_policy),
            *("--hicache-eviction-policy", self.host_policy),
            *("--hicache-write-policy", self.write),
            *("--hicache-storage-prefetch-policy", self.prefetch),
            *("--hicache-codec", self.codec),
        )


def start(cluster: Cluster, tiers: Tiers, *decode: str) -> Loop:
    """A loop of one prefill and one decode node over the store, both attached."""
    if tiers.store == "mooncake":
        store = cluster.mooncake(segment_gib="0.1")
        wait_for("the store's segment", lambda: "store ready" in store.log.read_text())
    elif tiers.store == "file":
        cluster.file_cache()
    else:
        use_stalling(cluster, json.loads(tiers.store))
    flags = ("--hicache-codec", tiers.codec, *decode)
    loop = start_loop(cluster, prefills=(tiers.flags(),), decodes=(flags,))
    wait_attached(*loop.nodes)
    return loop


@contextmanager
def support_cluster(directory: Path, model: str) -> Iterator[Cluster]:
    """One whose processes can load the backends of this directory."""
    here = str(Path(__file__).parent)
    with patch.dict(os.environ, PYTHONPATH=here), Cluster(directory, model) as cluster:
        yield cluster


def use_stalling(cluster: Cluster, config: dict[str, Any]) -> None:
    """Nodes load stalling_backend.py, where PYTHONPATH leads there: `support_cluster`."""
    fields = {
        "backend_name": "stalling",
        "module_path": MODULE,
        "class_name": StallingBackend.__name__,
        "root": str(cluster.directory / "l3"),
        **config,
    }
    cluster.storage = [
        "--hicache-storage-backend",
        "dynamic",
        "--hicache-dynamic-modules",
        MODULE,
        "--hicache-storage-backend-extra-config",
        json.dumps(fields),
    ]


def is_in_state(node: Running, state: str) -> bool:
    return node.metric("kvloop_storage_state", state=state) == 1


def wait_attached(*nodes: Running) -> None:
    wait_for("L3", lambda: all(is_in_state(node, "attached") for node in nodes), 60)


def set_policies(node: Running, write: WritePolicy, prefetch: PrefetchPolicy) -> None:
    """Of a running prefill node."""
    body = {"hicache_write_policy": write, "hicache_storage_prefetch_policy": prefetch}
    status, answer = ask(node, "PUT", body=body)
    assert status == 200 and answer["policies"] == body, answer


def drain(loop: Loop) -> None:
    wait_for("the drain", lambda: drained(*loop.nodes))


def small_model(directory: Path) -> str:
    """A model with so few words that its answers are quickly judged."""
    return save_served("llama", directory, VOCAB)


# --- chats ------------------------------------------------------------------------------------


def ids_of(length: int, seed: object) -> list[int]:
    """Token ids that depend on length and seed only."""
    return random.Random(f"{length} {seed}").choices(range(10, VOCAB), k=length)


def all_chats(
    url: str, salt: str, after_turn: Callable[[], None] = lambda: None
) -> list[list[Answer]]:
    """Sixteen conversations of greedy turns, each of another length; a turn of all at once.

    What all begin with has been asked before.
    """
    complete(url, [*ids_of(SYSTEM, salt), 1], 1, cache_salt=salt)
    chats: list[list[Answer]] = [[] for _ in range(NUM_CHATS)]
    with ThreadPoolExecutor(NUM_CHATS) as threads:
        for turn in range(NUM_TURNS):
            tasks = [threads.submit(_ask, url, n, turn, chats[n], salt) for n in range(NUM_CHATS)]
            for turns, task in zip(chats, tasks, strict=True):
                turns.append(task.result())
            after_turn()
    return chats


def _ask(url: str, number: int, turn: int, turns: Sequence[Answer], salt: str) -> Answer:
    new = ids_of(15 + 2 * number + 5 * turn, 100 * number + turn)
    prompt = [*(turns[-1].history if turns else ids_of(SYSTEM, salt)), *new]
    num_answer = ANSWER + 3 * (number + turn) % 17
    return complete(url, prompt, num_answer, cache_salt=salt, priority=number % 3)


def total(answers: Sequence[Answer], source: str) -> int:
    """Tokens of one source."""
    return sum(int(answer.sources[source]) for answer in answers)


@torch.inference_mode()
def wrong_tokens(reference: Any, turns: Sequence[Answer]) -> list[tuple[int, int]]:
    """(turn, index) of each token that is not the reference's likeliest there; one forward pass.

    A later turn's prompt must hold the earlier turns as they were.
    """
    last = turns[-1].history
    places = []
    for number, turn in enumerate(turns):
        assert last[: len(turn.history)] == turn.history
        places += [(number, index, len(turn.prompt) + index) for index in range(len(turn.ids))]
    before = torch.tensor([at - 1 for _, _, at in places])
    logits = reference(torch.tensor([last]), logits_to_keep=before).logits[0]
    choice = logits.argmax(-1).tolist()
    pairs = zip(places, choice, strict=True)
    return [(number, index) for (number, index, at), token in pairs if last[at] != token]
