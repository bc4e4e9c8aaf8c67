"""A running loop and every way to get an answer from it, judged by transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loop_client import Answer, complete, complete_all
from reference import judge
from running import ADMIN, Cluster, Running, drained, fetch, wait_for


def flush(node: Running) -> None:
    status, _ = fetch(f"{node.url}/flush_cache", {}, {"Authorization": f"Bearer {ADMIN}"})
    assert status == 200


def tokens(answers: Sequence[Answer], part: str) -> int:
    return sum(answer.sources[part] for answer in answers)


class Loop:
    """A running loop over a file cache, and every way to get an answer from it."""

    def __init__(self, cluster: Cluster, *flags: str) -> None:
        # What L3 has is to be read, however much faster computing it would be.
        flags = ("--hicache-storage-prefetch-policy", "wait_complete", *flags)
        cluster.file_cache()
        self.cluster, self.flags = cluster, flags
        router = cluster.router()
        self.prefill = cluster.node("prefill", *flags)
        self.decode = cluster.node("decode", *flags)
        for running in (self.prefill, self.decode, router):
            running.wait_ready()
        self.url = cluster.url

    def restart_prefill(self) -> None:
        self.prefill.stop()
        self.prefill = self.cluster.node("prefill", *self.flags, port=self.prefill.port)
        self.prefill.wait_ready()
        incarnation = self.prefill.info()["node"]["incarnation"]
        wait_for(
            "the router's notice",
            lambda: incarnation in str(fetch(f"{self.url}/server_info")[1]),
        )

    def drain(self) -> None:
        wait_for("the drain", lambda: drained(self.decode, self.prefill))

    def every_way(self, prompts: list[list[int]]) -> dict[str, list[Answer]]:
        """Answers by what the cache did for them; each way is checked to have happened."""
        ways = {"off, alone": [complete(self.url, prompt, cache="off") for prompt in prompts[:8]]}
        ways["off"] = complete_all(self.url, prompts, cache="off")
        assert tokens(ways["off"], "computed") == sum(map(len, prompts))
        ways["cold"] = complete_all(self.url, prompts)
        self.drain()
        flush(self.decode)
        ways["L1"] = complete_all(self.url, prompts)
        assert tokens(ways["L1"], "device") > 0 and tokens(ways["L1"], "storage") == 0
        flush(self.decode)
        self.restart_prefill()
        ways["L3"] = complete_all(self.url, prompts)
        # Prompts begin alike: what one has read from L3 another finds in L1.
        assert tokens(ways["L3"], "storage") > tokens(ways["L3"], "device")
        self.drain()
        longer = [[*answer.history, 10, 11, 12] for answer in ways["cold"]]
        ways["by decode"] = complete_all(self.url, longer, cache="l3_only")
        assert sum(answer.by_decode for answer in ways["by decode"]) > 0
        ways["in decode"] = complete_all(self.url, longer)
        assert tokens(ways["in decode"], "transfer_skipped") > 0
        return ways


def check_exact(ways: dict[str, list[Answer]], reference: Any) -> None:
    """Every answer is the reference's; equal prompts are judged once."""
    judged: dict[tuple[int, ...], list[int]] = {}
    for way, answers in ways.items():
        for answer in answers:
            known = judged.setdefault(tuple(answer.prompt), answer.ids)
            assert known == answer.ids, f"{way}: another answer to a prompt of {len(answer.prompt)}"
    for prompt, answer_ids in judged.items():
        verdict = judge(reference, prompt, answer_ids)
        assert not verdict.gaps, f"prompt of {len(prompt)} tokens: gaps {verdict.gaps}"
