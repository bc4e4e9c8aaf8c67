"""The chat that shows the reuse, and the verdict on it."""

from __future__ import annotations

import secrets

import aiohttp
from rich.console import Console

from kvloop.cli.up.chat import ChatApi, ChatFailed, Turn, served_model
from kvloop.cli.up.config import UpConfig
from kvloop.cli.up.pages import (
    MIN_ANSWER_PAGES,
    PageCount,
    expected_pages,
    judge,
    num_equal_at_start,
)
from kvloop.cli.up.plan import Plan
from kvloop.cli.up.table import pages_table, turns_table
from kvloop.cli.up.waiting import WaitedInVain, wait_until_registered, wait_until_written


async def prove_reuse(config: UpConfig, console: Console, plan: Plan) -> bool:
    """Hold the chat and show it; False, with the reason shown, where reuse fell short."""
    console.print("\na chat of two turns; turn 2 may read only the shared cache (l3_only)")
    try:
        first, second = await _chat(config, plan)
    except (ChatFailed, WaitedInVain, aiohttp.ClientError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
        console.print("the chat failed:", reason, style="red", markup=False, soft_wrap=True)
        return False
    return _show(console, first, second, config.page_size)


async def _chat(config: UpConfig, plan: Plan) -> tuple[Turn, Turn]:
    # trust_env=False: a proxy from the environment has no way to loopback.
    nodes = (*plan.prefill_urls, *plan.decode_urls)
    async with aiohttp.ClientSession(trust_env=False) as http:
        await wait_until_registered(http, config.url, len(nodes))
        model = await served_model(http, config.url)
        # A salt of its own: pages of earlier runs cannot be taken for this one's.
        api = ChatApi(http=http, url=config.url, model=model, salt=secrets.token_hex(8))
        first = await api.first_turn()
        await wait_until_written(http, nodes)
        return first, await api.second_turn(first)


def _show(console: Console, first: Turn, second: Turn, page_size: int) -> bool:
    expected = expected_pages(first.usage.prompt_tokens, first.usage.completion_tokens, page_size)
    found = PageCount(
        prefill=second.usage.by_prefill // page_size, decode=second.usage.by_decode // page_size
    )
    console.print(turns_table((first, second)))
    console.print(pages_table(expected, found, page_size))
    if expected.decode < MIN_ANSWER_PAGES:
        console.print(
            f"note: the first answer left {expected.decode} pages; a sound proof wants "
            f"{MIN_ANSWER_PAGES} at least",
            style="yellow",
        )
    missing = judge(expected, found)
    if missing is not None:
        console.print(missing, drift(first, second), sep="\n", style="red", soft_wrap=True)
    return missing is None


def drift(first: Turn, second: Turn) -> str:
    """How far turn 2's prompt repeats turn 1's tokens: pages past that point cannot match."""
    history = [*first.prompt_ids, *first.answer_ids]
    if not history or not second.prompt_ids:
        return "(the API returned no token ids to compare)"
    equal = num_equal_at_start(history, second.prompt_ids)
    return f"turn 2's prompt begins with {equal} of turn 1's {len(history)} tokens"
