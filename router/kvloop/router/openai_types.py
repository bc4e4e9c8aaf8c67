"""Bodies of the OpenAI endpoints, as far as they are supported."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kvloop.shared_cache.wire import CacheMode

StopText = Annotated[str, Field(min_length=1, max_length=1024)]
StopList = Annotated[list[StopText], Field(max_length=16)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 32)]


class Body(BaseModel):
    """Unknown fields are kept in `model_extra`, where validation names them."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, frozen=True)


class StreamOptions(Body):
    """What a stream ends with."""

    include_usage: bool | None = None


class CacheOptions(Body):
    """kvloop's own switches."""

    cache: CacheMode = "on"
    history: Literal["on", "off"] = "on"
    """off: an earlier answer's text is tokenized anew, as every other router does."""
    session: Literal["returns", "ends"] | None = None
    """What the client knows of its next turn; None: the router judges by what it has seen."""


class ServedFields(Body):
    """What every endpoint that generates takes: how to answer, and what the cache does."""

    stream: bool | None = None
    cache_salt: Annotated[str, Field(max_length=1024)] | None = None
    priority: Annotated[int, Field(ge=-100, le=100)] | None = None
    """SGLang's meaning: pages of a higher one stay longer; None is 0."""
    kvloop: CacheOptions | None = None


class SamplingFields(ServedFields):
    """What chat and text completions share."""

    model: str | None = None
    """None: the one model that is served."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=1 << 31)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] | None = None
    stop: StopText | StopList | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=256)] | None = None
    ignore_eos: bool | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    skip_special_tokens: bool | None = None


class TextPart(Body):
    """A piece of a message; only text is supported."""

    type: str
    text: str | None = None


class ChatMessage(Body):
    """One message; `content` must be there once it is validated."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None
    name: str | None = None


class ChatRequest(SamplingFields):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionRequest(SamplingFields):
    """POST /v1/completions."""

    prompt: Any
    """Text, ids, or a list of either; `prompt_list` checks it."""
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
