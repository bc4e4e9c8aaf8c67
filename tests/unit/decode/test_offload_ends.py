"""However a request ends, exactly its full pages are stored: the last token has no KV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec
import pytest
from decode_chats import ChatDecode, file_cache, one_thread
from decode_engine import PAGE, save_config
from page_files import published

from kvloop.engine.messages import Abort, Submit
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.wire import CacheMode, Finished, GenerateRequest, Sampling, Tokens


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ChatDecode, Path]]:
    """It computes prompts itself, as when no prefill node is left."""
    folder = tmp_path_factory.mktemp("engine")
    root = folder / "l3"
    with one_thread():
        decode = ChatDecode(save_config(folder), 40, with_transfer=False, **file_cache(root))
        assert decode.parts.store.guard.wait_attached(30)
        yield decode, root
        decode.parts.store.close()


def submit(
    decode: ChatDecode, name: str, prompt: list[int], sampling: Sampling, cache: CacheMode = "on"
) -> None:
    request = GenerateRequest(
        request_id=name,
        prompt=prompt,
        sampling=msgspec.structs.replace(sampling, temperature=0.0, ignore_eos=True, seed=1),
        namespace=decode.parts.identity.namespace,
        cache=cache,
    )
    decode.scheduler.handle(Submit(request))


def told(decode: ChatDecode, name: str) -> list[int]:
    return [t for event in decode.events(name) if isinstance(event, Tokens) for t in event.ids]


def check(root: Path, with_kv: list[int], before: set[bytes]) -> None:
    """Exactly the full pages of these tokens have come."""
    assert stored(root) - before == set(page_keys(with_kv, PAGE))


def stored(root: Path) -> set[bytes]:
    return {page.key for page in published(root)}


def prompt_of(length: int, seed: object) -> list[int]:
    return Random(f"{length} {seed}").choices(range(4, 160), k=length)


@pytest.mark.parametrize("length", [1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE])
@pytest.mark.parametrize("max_tokens", [1, 2, PAGE, PAGE + 1, PAGE + 2])
def test_at_its_full_length(engine: tuple[ChatDecode, Path], length: int, max_tokens: int) -> None:
    decode, root = engine
    prompt, name, before = prompt_of(length, max_tokens), f"{length} {max_tokens}", stored(root)
    submit(decode, name, prompt, Sampling(max_tokens=max_tokens))
    decode.run()
    answer = decode.answer(name)
    assert len(answer) == max_tokens
    check(root, [*prompt, *answer[:-1]], before)


@pytest.mark.parametrize("length", range(2 * PAGE - 4, 2 * PAGE + 3))
def test_at_a_stop_token_around_a_pages_edge(engine: tuple[ChatDecode, Path], length: int) -> None:
    decode, root = engine
    prompt, name, before = prompt_of(length, "stop"), f"stop {length}", stored(root)
    submit(decode, f"off {length}", prompt, Sampling(max_tokens=4), cache="off")
    decode.run()
    assert stored(root) == before
    stop = decode.answer(f"off {length}")[-1]
    submit(decode, name, prompt, Sampling(max_tokens=30, stop_token_ids=(stop,)))
    decode.run()
    (end,) = [event for event in decode.events(name) if isinstance(event, Finished)]
    assert end.reason == "stop" and end.completion_tokens <= 4
    check(root, [*prompt, *told(decode, name)], before)


@pytest.mark.parametrize("is_closed", [False, True])
@pytest.mark.parametrize("num_told", [0, 1, PAGE - 1, PAGE, PAGE + 1])
def test_when_the_client_goes_or_the_node_is_told_to_stop(
    tmp_path: Path, num_told: int, is_closed: bool
) -> None:
    root = tmp_path / "l3"
    with one_thread():
        decode = ChatDecode(save_config(tmp_path), 40, with_transfer=False, **file_cache(root))
        assert decode.parts.store.guard.wait_attached(30)
        prompt = prompt_of(2 * PAGE, num_told)
        submit(decode, "r", prompt, Sampling(max_tokens=9 * PAGE))
        while len(told(decode, "r")) < num_told:
            decode.scheduler.step()
        if not is_closed:
            decode.scheduler.handle(Abort("r"))
            decode.run()
        decode.scheduler.close(20.0)
        answer = told(decode, "r")
        check(root, [*prompt, *answer[:-1]] if answer else [], set())
        assert decode.parts.pool.num_free == decode.parts.pool.num_slots
        assert decode.scheduler.load().free_pages == 40
        decode.parts.store.close()
