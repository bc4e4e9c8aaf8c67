"""Two tenants on one loop: neither hits the other's pages, nor can tell that they are there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from faults import PAGE, Loop, prompt_of, start_loop
from loop import flush
from running import Cluster, drained, fetch, wait_for

pytestmark = pytest.mark.integration
A, B = "key-of-alpha", "key-of-beta"
PROMPT = 20 * PAGE + 5
ANSWER = 3 * PAGE
L1_PAGES = 80
TIERS = ("device", "host", "storage", "transfer_skipped")


@pytest.fixture(scope="module")
def loop(tiny_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A router that asks for keys; prefill's L1 holds a few prompts, its L2 four times that."""
    directory = tmp_path_factory.mktemp("tenants")
    keys = directory / "keys"
    keys.write_text(f"{A} alpha\n{B} beta\n")
    small = ["--max-total-tokens", str(L1_PAGES * PAGE), "--hicache-ratio", "4"]
    # a page that is computed sooner than it would be read must not pass for one that is not there
    small += ["--hicache-storage-prefetch-policy", "wait_complete"]
    with Cluster(directory, tiny_models["llama"]) as cluster:
        cluster.file_cache()
        yield start_loop(cluster, prefills=(tuple(small),), router=("--api-keys", str(keys)))


def post(loop: Loop, key: str, path: str, body: dict[str, Any], **headers: str) -> Any:
    given = {"Authorization": f"Bearer {key}", **headers}
    return fetch(f"{loop.url}{path}", {"model": "m", "temperature": 0, **body}, given)


def ask(
    loop: Loop,
    key: str,
    prompt: Sequence[int],
    *,
    cache: str = "on",
    headers: dict[str, str] | None = None,
    **fields: Any,
) -> tuple[dict[str, int], list[int]]:
    """Where the prompt's tokens came from, and the whole history; all work of it has ended."""
    body = {
        "prompt": list(prompt),
        "max_tokens": ANSWER,
        "ignore_eos": True,
        "return_token_ids": True,
        "kvloop": {"cache": cache},
        **fields,
    }
    status, reply = post(loop, key, "/v1/completions", body, **(headers or {}))
    assert status == 200, reply
    settle(loop)
    sources = reply["usage"]["kvloop"]
    return sources, [*prompt, *reply["choices"][0]["token_ids"]]


def settle(loop: Loop) -> None:
    loop.wait_idle()
    wait_for("the drain", lambda: drained(*loop.nodes))


def cached(sources: dict[str, int]) -> dict[str, int]:
    """Tokens that were not computed, by tier; tiers without any are left out."""
    return {tier: sources[tier] for tier in TIERS if sources[tier]}


def full_pages(num_tokens: int) -> int:
    return num_tokens // PAGE * PAGE


def work(loop: Loop) -> Counter[str]:
    """All that the nodes have counted but times: tokens, pages and bytes by path, steps.

    Not KV events, which are sent later and tell of evictions: whose turn made the pool full.
    """
    counted: Counter[str] = Counter()
    for node in loop.nodes:
        role = node.info()["node"]["role"]
        for line in fetch(f"{node.url}/metrics")[1].splitlines():
            if line.startswith("#"):
                continue
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0]
            is_count = name.endswith("_total") and not re.search("seconds|kv_events", name)
            if is_count or name == "kvloop_step_seconds_count":
                counted[f"{role} {series}"] += int(float(value))
    return counted


def work_of(loop: Loop, key: str, prompt: Sequence[int], **fields: Any) -> Counter[str]:
    """What one request made the nodes do."""
    before = work(loop)
    ask(loop, key, prompt, **fields)
    return work(loop) - before


def test_a_second_turn_hits_the_pages_of_its_own_tenant_only(loop: Loop) -> None:
    first = prompt_of(PROMPT, 1)
    _, history = ask(loop, A, first)
    turn = [*history, *prompt_of(10, 2)]
    foreign, _ = ask(loop, B, turn)
    assert (cached(foreign), foreign["computed"]) == ({}, len(turn))
    own, _ = ask(loop, A, turn)
    assert own["computed"] == len(turn) - full_pages(len(history) - 1)
    again, _ = ask(loop, B, turn)
    assert again["computed"] == len(turn) - full_pages(len(turn) - 1)


@pytest.mark.parametrize("cache", ["on", "l3_only", "off"])
def test_another_tenants_very_prompt_is_computed_whole_and_costs_what_a_new_one_costs(
    loop: Loop, cache: str
) -> None:
    known, new = (prompt_of(PROMPT, f"{cache} {name}") for name in ("known", "new"))
    ask(loop, A, known)
    ask(loop, A, known)
    sources, _ = ask(loop, A, known, cache="l3_only")
    assert sources["storage"] == full_pages(PROMPT)
    of_new = work_of(loop, B, new, cache=cache)
    of_known = work_of(loop, B, known, cache=cache)
    assert of_known == of_new
    assert sum(of_new.values()) > 0
    computed = 'decode kvloop_prompt_tokens_total{source="computed"}'
    assert of_known[computed] == PROMPT
    assert cached(ask(loop, A, known)[0])


@pytest.mark.parametrize("cache", ["on", "l3_only"])
def test_pages_in_every_tier_serve_their_tenant_and_nobody_else(loop: Loop, cache: str) -> None:
    known = prompt_of(PROMPT, f"tiers {cache}")
    ask(loop, A, known)
    settle(loop)
    for node in loop.decodes:
        flush(node)
    assert cached(ask(loop, B, known, cache=cache)[0]) == {}
    # A's pages leave L1, whose every page these prompts need, and stay in L2 and L3.
    for number in range(2 * L1_PAGES * PAGE // PROMPT):
        ask(loop, B, prompt_of(PROMPT, f"filler {cache} {number}"), max_tokens=1)
    assert cached(ask(loop, B, known, cache=cache, cache_salt="another")[0]) == {}
    for node in loop.decodes:
        flush(node)
    own = ask(loop, A, known, cache=cache)[0]
    assert cached(own) == {"host" if cache == "on" else "storage": full_pages(PROMPT)}


def test_no_salt_field_or_header_opens_another_tenants_pages(loop: Loop) -> None:
    known = prompt_of(PROMPT, "forged")
    ask(loop, A, known)
    tenant = b"\x01" + (5).to_bytes(8, "little") + b"alpha"
    namespace = loop.decodes[0].info()["node"]["namespace"]
    salts = ["alpha", "", f"{tenant.decode('latin-1')}\x00", namespace]
    for number, salt in enumerate(salts):
        headers = {"X-Tenant": "alpha", "X-Kvloop-Tenant": "alpha", "X-Api-Key": A}
        mode = ("on", "l3_only")[number % 2]
        sources, _ = ask(loop, B, known, cache=mode, headers=headers, cache_salt=salt)
        assert cached(sources) == {}, salt
    for field in ("tenant", "cache_seed", "namespace"):
        body = {"prompt": known, "max_tokens": 1, field: "alpha"}
        status, reply = post(loop, B, "/v1/completions", body)
        assert (status, reply["error"]["param"]) == (400, field)
    assert cached(ask(loop, A, known)[0])


def test_a_chats_remembered_ids_are_its_tenants_only(loop: Loop) -> None:
    path = "/v1/chat/completions"
    messages: list[dict[str, str]] = [{"role": "user", "content": "Say something at random."}]
    body = {"max_tokens": ANSWER, "ignore_eos": True, "return_token_ids": True}
    status, first = post(loop, A, path, {**body, "messages": messages})
    assert status == 200, first
    settle(loop)
    (choice,) = first["choices"]
    history = [*choice["prompt_token_ids"], *choice["token_ids"]]
    said = {"role": "assistant", "content": choice["message"]["content"]}
    turn = [*messages, said, {"role": "user", "content": "Go on."}]
    _, foreign = post(loop, B, path, {**body, "messages": turn})
    settle(loop)
    _, own = post(loop, A, path, {**body, "messages": turn})
    settle(loop)
    # a random model's answers, tokenized again, give other ids than those it wrote
    assert own["choices"][0]["prompt_token_ids"][: len(history)] == history
    assert foreign["choices"][0]["prompt_token_ids"][: len(history)] != history
    assert cached(foreign["usage"]["kvloop"]) == {}
    assert sum(cached(own["usage"]["kvloop"]).values()) == full_pages(len(history) - 1)
