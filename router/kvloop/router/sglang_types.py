"""Body of SGLang's /generate, as far as it is supported."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from kvloop.router.openai_types import Body, ServedFields, StopList, StopText, TokenId


class SamplingParams(Body):
    """SGLang's names and defaults."""

    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=1 << 31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    sampling_seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    stop: StopText | StopList | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=256)] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    no_stop_trim: bool | None = None


class GenerateBody(ServedFields):
    """POST /generate; exactly one of text and input_ids."""

    text: Any = None
    input_ids: Any = None
    """Both checked by `prompt_list`."""
    sampling_params: SamplingParams | None = None
    rid: str | None = None
    return_logprob: bool | None = None
    top_logprobs_num: Annotated[int, Field(ge=0, le=20)] | None = None
