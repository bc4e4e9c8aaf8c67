"""The simulated cluster: nodes, one shared cache, a router, and a load that goes through them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from kvloop.benchmark.replay.trace import Keys
from kvloop.benchmark.simulate.clock import Clock
from kvloop.benchmark.simulate.config import ClusterConfig, Sizes, sizes_of
from kvloop.benchmark.simulate.decode_node import DecodeNode
from kvloop.benchmark.simulate.decode_pool import DecodePool
from kvloop.benchmark.simulate.job import Job
from kvloop.benchmark.simulate.link import Link, send_through
from kvloop.benchmark.simulate.prefill_cache import PrefillCache, Storage
from kvloop.benchmark.simulate.prefill_node import PrefillNode
from kvloop.benchmark.simulate.profile import Profile
from kvloop.benchmark.simulate.prompt import Load, Prompt
from kvloop.benchmark.simulate.served import Served, served
from kvloop.benchmark.simulate.shared_store import SharedStore
from kvloop.shared_cache.affinity import affinity
from kvloop.shared_cache.hicache_parts import HiCacheConfig
from kvloop.shared_cache.prefetch_policy import PrefetchLimits

_LAST_TURN_S = 0.5
"""Decode waits so long at most for what an answer has left, as the node does."""
_BITS = 8 / 1e9
Found = Callable[[Sequence[bytes]], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """How busy a part was: shares of the run's time, mean over its nodes; bytes of all."""

    prefill: float
    decode: float
    pcie_up: float
    pcie_down: float
    network_out: float
    network_in: float
    l3_read: float
    l3_write: float
    pcie_up_bytes: float
    pcie_down_bytes: float
    sent_bytes: float
    """From prefill to decode, and from both to L3."""
    received_bytes: float
    """By decode from prefill, and by prefill from L3."""
    l3_read_bytes: float
    l3_write_bytes: float
    l3_pages: int
    l3_evicted: int
    mean_batch: float
    """Sequences in a step of decode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a load showed on a cluster."""

    sizes: Sizes
    served: tuple[Served, ...]
    """In the order of the prompts' numbers."""
    duration_s: float
    """To the last answer's end."""
    use: Use


class Cluster:
    """Runs one load once."""

    def __init__(self, config: ClusterConfig, profile: Profile, load: Load) -> None:
        self.sizes = sizes_of(config, profile, load)
        self._config, self._profile, self._load = config, profile, load
        self._clock, self._keys = Clock(), Keys()
        self._store = SharedStore(self.sizes.l3)
        self._l3_read, self._l3_write = (Link(config.l3_gbps / _BITS) for _ in range(2))
        num = config.prefill + config.decode
        self._out, self._in = (
            [Link(config.network_gbps / _BITS) for _ in range(num)] for _ in range(2)
        )
        self.decodes = [self._decode(index) for index in range(config.decode)]
        self.prefills = [self._prefill(index) for index in range(config.prefill)]
        self._making: dict[bytes, Job] = {}
        self._stored_at: dict[int, tuple[int, float]] = {}
        """Of answered prompts: on which decode node, and when all is in L3."""
        self._followers: dict[int, list[Prompt]] = defaultdict(list)
        self._served: list[Served] = []
        self._turn = 0

    def run(self) -> Run:
        """All prompts, from the first's arrival to the last answer's end."""
        for prompt in self._load.prompts:
            if prompt.follows is None:
                self._clock.at(prompt.at_s, partial(self._dispatch, prompt))
            else:
                self._followers[prompt.follows].append(prompt)
        self._clock.run()
        assert len(self._served) == len(self._load.prompts), "a prompt was never answered"
        ended_at = max(one.at_s + one.e2e_s for one in self._served)
        return Run(
            sizes=self.sizes,
            served=tuple(sorted(self._served, key=lambda one: one.number)),
            duration_s=ended_at,
            use=self._use(ended_at),
        )

    # --- building -----------------------------------------------------------------------------

    def _prefill(self, index: int) -> PrefillNode:
        config, load = self._config, self._load
        is_traced = load.sharing == "as_traced"
        out = self._out[index]
        cache = PrefillCache(
            self._clock,
            self._profile,
            Storage(
                store=self._store,
                reads=(self._l3_read, self._in[index]),
                writes=(self._l3_write, out),
            ),
            page_size=load.page_size,
            l1_pages=self.sizes.l1,
            l2_pages=self.sizes.l2,
            config=HiCacheConfig(
                write_policy=config.write_policy,
                write_through_threshold=config.write_through_threshold,
                device_policy=config.eviction_policy,
                host_policy=config.eviction_policy,
                prefetch_share=1.0 if is_traced else 0.5,
            ),
            limits=PrefetchLimits(policy=config.prefetch_policy),
            sharing=load.sharing,
            changed=lambda: self.prefills[index].wake(),
        )
        return PrefillNode(
            self._clock,
            self._profile,
            cache,
            page_size=load.page_size,
            sharing=load.sharing,
            out=out,
            into=self._in[config.prefill :],
            slowdown=self._prefill_slowdown,
            busy_changed=self._prefill_busy_changed,
            sent=lambda job: self.decodes[job.decode].begin(job),
        )

    def _decode(self, index: int) -> DecodeNode:
        return DecodeNode(
            self._clock,
            self._profile,
            DecodePool(self.sizes.decode, self._config.eviction_policy),
            page_size=self._load.page_size,
            slowdown=self._decode_slowdown,
            busy_changed=self._decode_busy_changed,
            reserved=lambda job: self.prefills[job.prefill].add(job),
            answered=self._answered,
        )

    # --- nodes on one device ------------------------------------------------------------------

    def _prefill_slowdown(self) -> float:
        slowdown = self._profile.prefill_slowdown
        return slowdown if slowdown and any(node.is_busy for node in self.decodes) else 0.0

    def _decode_slowdown(self) -> float:
        slowdown = self._profile.decode_slowdown
        return slowdown if slowdown and any(node.is_busy for node in self.prefills) else 0.0

    def _prefill_busy_changed(self) -> None:
        if self._profile.decode_slowdown:
            for node in self.decodes:
                node.interrupt()

    def _decode_busy_changed(self) -> None:
        if self._profile.prefill_slowdown:
            for node in self.prefills:
                node.interrupt()

    # --- a prompt's way -----------------------------------------------------------------------

    def _dispatch(self, prompt: Prompt) -> None:
        keys = self._keys.of(prompt.pages)
        after = self._keys.of(prompt.after) if prompt.after else []
        num_full = min(prompt.num_tokens // self._load.page_size, len(keys))
        job = Job(
            prompt=prompt,
            keys=keys,
            after_keys=after or keys[:num_full],
            num_full=num_full,
            arrived_at=self._clock.now,
            decode=self._pick(keys, [(n.load, n.pool.num_found) for n in self.decodes]),
            prefill=self._pick(keys, [(n.load, n.cache.cache.num_found) for n in self.prefills]),
        )
        self._turn += 1
        if prompt.follows is not None:
            node, stored_at = self._stored_at.get(prompt.follows, (-1, 0.0))
            if node == job.decode:
                job.early_until = min(stored_at, self._clock.now + _LAST_TURN_S)
        if self._load.sharing == "as_traced":
            self._serve(job)
        self.decodes[job.decode].add(job)

    def _pick(self, keys: list[bytes], nodes: Sequence[tuple[int, Found]]) -> int:
        """By the router's rule, but by what the nodes really hold; equals in turn."""
        if len(nodes) == 1:
            return 0
        page_size = self._load.page_size
        scores = [affinity(found(keys) * page_size, load) for load, found in nodes]
        return max(range(len(nodes)), key=lambda n: (scores[n], -((n - self._turn) % len(nodes))))

    def _serve(self, job: Job) -> None:
        """As traced: its pages can be found from now on, but it waits for who computes them."""
        node = self.prefills[job.prefill]
        node.cache.serve(job)
        num_found = len(job.sources)
        maker = self._making.get(job.keys[num_found - 1]) if num_found else None
        if maker is not None and maker.computed_at is None:
            job.maker = maker
            maker.dependents.append(partial(self._made, job))
        for key in job.keys[num_found:]:
            self._making[key] = job
        if self._config.offloads:
            job.num_promised = self._store.put(job.keys, "decode")

    def _made(self, job: Job) -> None:
        job.maker = None
        self.prefills[job.prefill].wake()

    def _answered(self, job: Job) -> None:
        now, prompt = self._clock.now, job.prompt
        self._served.append(served(job, self._load.page_size, now))
        if self._config.offloads:
            self._offload(job)
        for key in job.keys[len(job.sources) :]:
            if self._making.get(key) is job:
                del self._making[key]
        for follower in self._followers.pop(prompt.number, ()):
            at = max(now + follower.delay_s, follower.at_s)
            self._clock.at(at, partial(self._dispatch, follower))

    def _offload(self, job: Job) -> None:
        """What L3 lacks of the prompt and its answer."""
        missing = [key for key in job.after_keys if key not in self._store]
        num_pages = len(missing) + job.num_promised
        if not num_pages:
            return
        out = self._out[self._config.prefill + job.decode]
        num_bytes = num_pages * self.sizes.page_bytes
        ends_at = send_through((self._l3_write, out), self._clock.now, num_bytes)
        ends_at += self._profile.fetch_latency_s
        self._stored_at[job.prompt.number] = (job.decode, ends_at)
        self._clock.at(ends_at, lambda: self._stored(missing))

    def _stored(self, keys: list[bytes]) -> None:
        self._store.put(keys, "decode")

    # --- what was used ------------------------------------------------------------------------

    def _use(self, seconds: float) -> Use:
        def share(busy: list[float]) -> float:
            return sum(busy) / len(busy) / seconds if seconds else 0.0

        movers = [node.cache.mover for node in self.prefills]
        steps = sum(node.num_steps for node in self.decodes)
        return Use(
            prefill=share([node.busy_s for node in self.prefills]),
            decode=share([node.busy_s for node in self.decodes]),
            pcie_up=share([mover.up.busy_s for mover in movers]),
            pcie_down=share([mover.down.busy_s for mover in movers]),
            network_out=share([link.busy_s for link in self._out]),
            network_in=share([link.busy_s for link in self._in]),
            l3_read=share([self._l3_read.busy_s]),
            l3_write=share([self._l3_write.busy_s]),
            pcie_up_bytes=sum(mover.up.num_bytes for mover in movers),
            pcie_down_bytes=sum(mover.down.num_bytes for mover in movers),
            sent_bytes=sum(link.num_bytes for link in self._out),
            received_bytes=sum(link.num_bytes for link in self._in),
            l3_read_bytes=self._l3_read.num_bytes,
            l3_write_bytes=self._l3_write.num_bytes,
            l3_pages=len(self._store),
            l3_evicted=self._store.num_evicted,
            mean_batch=sum(node.num_tokens for node in self.decodes) / steps if steps else 0.0,
        )
