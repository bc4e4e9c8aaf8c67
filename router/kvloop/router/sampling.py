"""Request fields to the nodes' Sampling, and the room a prompt leaves."""

from __future__ import annotations

from kvloop.router.errors import BadRequest
from kvloop.router.openai_types import SamplingFields
from kvloop.router.sglang_types import SamplingParams
from kvloop.shared_cache.wire import Sampling


def build_sampling(
    fields: SamplingFields | SamplingParams,
    *,
    seed: int | None,
    max_tokens: int,
    top_logprobs: int | None,
) -> Sampling:
    """What the nodes are told; unset fields take OpenAI's defaults, which are SGLang's too."""
    return Sampling(
        max_tokens=max_tokens,
        temperature=_or(fields.temperature, 1.0),
        top_p=_or(fields.top_p, 1.0),
        top_k=max(fields.top_k or 0, 0),
        min_p=_or(fields.min_p, 0.0),
        seed=None if seed is None else seed % (1 << 63),
        repetition_penalty=_or(fields.repetition_penalty, 1.0),
        frequency_penalty=_or(fields.frequency_penalty, 0.0),
        presence_penalty=_or(fields.presence_penalty, 0.0),
        stop_token_ids=tuple(fields.stop_token_ids or ()),
        ignore_eos=bool(fields.ignore_eos),
        top_logprobs=top_logprobs,
    )


def stop_strings(stop: str | list[str] | None) -> tuple[str, ...]:
    """One or several, as the request writes them."""
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def fit_max_tokens(
    asked: int | None, default: int | None, num_prompt: int, context: int, param: str
) -> int:
    """Tokens to generate at most: as asked, else the default, else all the room there is.

    Raises BadRequest where the prompt leaves no room, or less than was asked for.
    """
    room = context - num_prompt
    if room < 1 or (asked is not None and asked > room):
        wants = f" and {asked} were asked for" if asked is not None else ""
        raise BadRequest(
            f"This model's maximum context length is {context} tokens; "
            f"the prompt has {num_prompt}{wants}. Shorten the prompt or ask for fewer tokens.",
            param=param,
            code="context_length_exceeded",
        )
    if asked is not None:
        return asked
    return room if default is None else min(default, room)


def _or(value: float | None, default: float) -> float:
    return default if value is None else float(value)
