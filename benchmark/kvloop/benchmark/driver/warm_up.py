"""Requests before the measured ones: they wake the server, and show what it is and lacks."""

from __future__ import annotations

from collections.abc import Sequence

import aiohttp

from kvloop.benchmark.arms import Arm, Segment
from kvloop.benchmark.driver.api import Exchange, ask
from kvloop.benchmark.driver.bad_answer import BadAnswer
from kvloop.benchmark.driver.body import KVLOOP_ARMS, build_body
from kvloop.benchmark.driver.heads import Heads, head_of
from kvloop.benchmark.driver.history import NO_TOKEN_IDS, new_history
from kvloop.benchmark.driver.options import DriveOptions
from kvloop.benchmark.driver.target import Target
from kvloop.benchmark.workloads.plan import Workload
from kvloop.shared_cache.errors import ConfigError

_REFUSABLE = ("return_token_ids", "ignore_eos", "cache_salt", "stream_options")
_REFUSALS = ("http_400", "http_422")


async def warm_up(
    http: aiohttp.ClientSession,
    target: Target,
    workload: Workload,
    segments: Sequence[Segment],
    options: DriveOptions,
    heads: Heads,
) -> str | None:
    """Returns the server's name, `kvloop` or `other`; None where nothing was asked.

    Raises BadAnswer if a request fails, ConfigError naming --arms if the server cannot do one.
    """
    unsure = _arms_of_kvloop(target, segments)
    name = None
    for number in range(max(options.warmup, 1 if unsure else 0)):
        exchange = await _ask(http, target, workload, segments[0], options, heads, -1 - number)
        name = "kvloop" if "kvloop" in exchange.usage else "other"
    if unsure and name != "kvloop":
        raise ConfigError(_why_not(unsure, segments))
    return name


def _arms_of_kvloop(target: Target, segments: Sequence[Segment]) -> list[Arm]:
    """Arms that only kvloop can do, unless their fields are given."""
    arms = dict.fromkeys(segment.arm for segment in segments)
    return [arm for arm in arms if arm in KVLOOP_ARMS and arm not in target.arm_bodies]


def _why_not(arms: Sequence[Arm], segments: Sequence[Segment]) -> str:
    others = dict.fromkeys(segment.arm for segment in segments if segment.arm not in arms)
    right = ",".join(dict.fromkeys([*others, "on", "all_miss"]))
    fields = " ".join(f"--arm-body {arm}='{{\"FIELD\": ...}}'" for arm in arms)
    return (
        f"--arms {','.join(arms)}: the server is not kvloop (no usage.kvloop in its answer), so "
        f"the request's `kvloop` field does nothing there; use --arms {right}, or say how this "
        f"server does it: {fields}"
    )


async def _ask(
    http: aiohttp.ClientSession,
    target: Target,
    workload: Workload,
    segment: Segment,
    options: DriveOptions,
    heads: Heads,
    number: int,
) -> Exchange:
    prompt = new_history(workload.content).say(workload.say(number, 1))
    head = head_of(segment, target.salting, number, 1)
    body = build_body(
        target,
        prompt if head is None else heads.put(prompt, head),
        output_length=workload.conversations[0].turns[0].output_length,
        salt=segment.salt,
    )
    try:
        exchange = await ask(
            http,
            target,
            body,
            timeout_s=options.timeout_s,
            stall_timeout_s=options.stall_timeout_s,
        )
    except BadAnswer as error:
        raise BadAnswer(error.kind, f"{error}{_advice(error, body)}") from error
    if target.content == "token-ids" and not exchange.answer.ids and _needs_ids(workload):
        raise BadAnswer("no_token_ids", NO_TOKEN_IDS)
    return exchange


def _advice(error: BadAnswer, body: dict[str, object]) -> str:
    """What to do where the server refuses one of the usual fields."""
    if error.kind not in _REFUSALS:
        return ""
    named = [name for name in _REFUSABLE if name in body and name in str(error)]
    drops = " ".join(f"--drop-field {name}" for name in named or ["NAME"])
    salting = " --salting prompt" if "cache_salt" in named else ""
    return f" (where the server does not know a field: {drops}{salting}, --extra-body JSON)"


def _needs_ids(workload: Workload) -> bool:
    """Whether an answer's ids are sent on."""
    longer = (number for number, one in enumerate(workload.conversations) if len(one.turns) > 1)
    number = next(longer, None)
    has_branches = any(one.branch is not None for one in workload.conversations)
    return has_branches or (number is not None and not workload.say(number, 2).is_whole)
