"""Is the KV that this node was given what it computes itself? Asked of a canary's pages only.

Checksums say that the bytes which left the sender have arrived. They say nothing of bytes that were
wrong when they left: a sender that reads zeros sends the checksum of zeros.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch

from kvloop.engine.batch import Segment, make_batch
from kvloop.engine.device_cache import DeviceCache
from kvloop.engine.messages import CheckPages, Reply
from kvloop.engine.page_check import answer, question_keys
from kvloop.engine.parts import NodeParts
from kvloop.shared_cache.canary import MAX_DEVICE_PAGES, DevicePage

log = logging.getLogger("kvloop.engine")
_NOT_FINITE = 1e9
_TINY = 1e-20


def check_device(parts: NodeParts, cache: DeviceCache, message: CheckPages) -> Reply:
    """On the loop's thread: compute the tokens anew in spare pages, and compare; frees them."""
    tokens = message.question.tokens
    if len(tokens) > MAX_DEVICE_PAGES * parts.config.page_size:
        return answer(parts, message, problem=f"more than {MAX_DEVICE_PAGES} pages at once")
    if max(tokens) >= parts.loaded.config.vocab:
        return answer(parts, message, problem=f"token {max(tokens)} is not in the vocabulary")
    try:
        return _check(parts, cache, message)
    except Exception as error:  # the loop turns on, whatever a look has met
        log.exception("a look at a canary's device pages failed")
        return answer(parts, message, problem=f"{type(error).__name__} while looking")


def _check(parts: NodeParts, cache: DeviceCache, message: CheckPages) -> Reply:
    keys = question_keys(parts, message.question)
    held = cache.find(keys)
    keys = keys[: len(held)]
    if not held:
        return answer(parts, message)
    cache.lock(keys)
    spare = cache.reserve(len(held))
    try:
        if spare is None:
            return answer(parts, message, problem=f"no {len(held)} device pages are free")
        _compute(parts, message.question.tokens, spare)
        return answer(parts, message, device=_compare(parts, held, spare))
    finally:
        cache.free(spare or [])
        cache.unlock(keys)


def _compute(parts: NodeParts, tokens: Sequence[int], pages: Sequence[int]) -> None:
    page_size, step = parts.config.page_size, parts.config.chunk_tokens
    num_tokens = len(pages) * page_size
    for start in range(0, num_tokens, step):
        length = min(step, num_tokens - start)
        segment = Segment(pages, start, length, start + length == num_tokens)
        items = [(tokens[start : start + length], segment)]
        parts.model.forward(make_batch(items, page_size, parts.kv.device), parts.kv, None)


def _compare(parts: NodeParts, held: Sequence[int], spare: Sequence[int]) -> list[DevicePage]:
    """Layer by layer, so that little memory is taken."""
    kv = parts.kv.tensor
    mine = torch.tensor(list(held), device=kv.device)
    truth = torch.tensor(list(spare), device=kv.device)
    errors, sizes = [], []
    for layer in range(kv.shape[0]):
        given, computed = (kv[layer].index_select(1, i).float().flatten(2) for i in (mine, truth))
        sizes.append(given.norm(dim=2).amax(0))
        norm = computed.norm(dim=2).clamp_min(_TINY)
        errors.append(((given - computed).norm(dim=2) / norm).amax(0))
    by_layer, size = torch.stack(errors).cpu(), torch.stack(sizes).amax(0).cpu()
    return [_page(by_layer[:, i], size[i].item()) for i in range(len(held))]


def _page(errors: torch.Tensor, size: float) -> DevicePage:
    layer = int(errors.argmax())  # what is not a number is the greatest
    error = errors[layer].item()
    return DevicePage(
        error=error if math.isfinite(error) else _NOT_FINITE, layer=layer, is_zero=size == 0.0
    )
