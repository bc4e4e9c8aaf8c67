"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from kvloop.router.answers import Answer
from kvloop.router.context import RequestContext, serve
from kvloop.router.errors import BadRequest
from kvloop.router.history_recall import Opening
from kvloop.router.jobs import Job
from kvloop.router.logprobs import chat_logprobs
from kvloop.router.merging import collect
from kvloop.router.messages import plain_messages
from kvloop.router.openai_types import ChatRequest
from kvloop.router.prompt_list import check_ids
from kvloop.router.replies import json_reply, usage_wanted
from kvloop.router.returns import Turn, turn_of
from kvloop.router.sampling import build_sampling, fit_max_tokens
from kvloop.router.service import Service
from kvloop.router.streams import DONE, EventStream, sse
from kvloop.router.tokenizer import Message
from kvloop.router.usage import usage_of
from kvloop.router.validation import check_extra, check_stream_options
from kvloop.shared_cache.wire import TokenLogprob


async def chat_completions(service: Service, request: Request) -> Response:
    """Serve one chat; raises ApiError."""
    return await serve(service, request, ChatRequest, _serve)


async def _serve(service: Service, context: RequestContext, body: ChatRequest) -> Response:
    messages = _check(service, body)
    with ExitStack() as stack:
        (request_id,) = stack.enter_context(service.admission.admit(context.header_id, 1))
        seed = context.seed(body.cache_salt)
        turn = turn_of(context.tenant or "", seed, messages)
        opening = await _opening(service, body, seed, messages)
        job = await _job(service, context, body, opening, request_id, turn)
        (answer,) = await service.begin([job], stack)
        reply = _Reply(service, body, answer, opening, turn)
        if not body.stream:
            return await reply.whole()
        # the stream owns the answer from here on
        return EventStream(reply.events(), stack.pop_all().close)


def _check(service: Service, body: ChatRequest) -> list[Message]:
    check_extra(body)
    check_stream_options(body.stream, body.stream_options)
    service.model.check_name(body.model)
    if body.top_logprobs is not None and not body.logprobs:
        raise BadRequest("'top_logprobs' needs 'logprobs': true", param="top_logprobs")
    if None not in (body.max_tokens, body.max_completion_tokens):
        raise BadRequest(
            "give 'max_completion_tokens' or 'max_tokens', not both", param="max_tokens"
        )
    return plain_messages(body.messages)


async def _opening(
    service: Service, body: ChatRequest, seed: bytes | None, messages: list[Message]
) -> Opening:
    tokenizer = service.model.tokenizer
    check_ids(body.stop_token_ids or [], tokenizer.vocab_size, "stop_token_ids")
    options = body.kvloop
    return await service.chats.open(
        tokenizer,
        seed,
        messages,
        body.chat_template_kwargs or {},
        use_history=options is None or options.history == "on",
        use_storage=options is None or options.cache != "off",
    )


async def _job(
    service: Service,
    context: RequestContext,
    body: ChatRequest,
    opening: Opening,
    request_id: str,
    turn: Turn,
) -> Job:
    prompt = opening.prompt.ids
    asked = body.max_completion_tokens if body.max_tokens is None else body.max_tokens
    room = service.model.context_length
    sampling = build_sampling(
        body,
        seed=body.seed,
        max_tokens=fit_max_tokens(asked, None, len(prompt), room, "messages"),
        top_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    strip = await service.strip_rules.rule(
        service.model.tokenizer,
        prompt,
        body.chat_template_kwargs or {},
        skip_special_tokens=body.skip_special_tokens is not False,
    )
    return context.job(
        request_id,
        prompt,
        sampling,
        body,
        stop=body.stop,
        skip_special_tokens=body.skip_special_tokens,
        strip=strip,
        returns=service.returns.asked(turn, context.arrived),
    )


class _Reply:
    """One answer in the shapes of the chat API."""

    def __init__(
        self,
        service: Service,
        body: ChatRequest,
        answer: Answer,
        opening: Opening,
        turn: Turn,
    ) -> None:
        self._service = service
        self._body = body
        self._answer = answer
        self._opening = opening
        self._turn = turn
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())

    async def whole(self) -> Response:
        """The answer when it has ended."""
        (collected,) = await collect([self._answer])
        self._remember(collected.text)
        message = {"role": "assistant", "content": collected.text, "refusal": None}
        choice = {"message": message, **self._choice(collected.logprobs, self._reason())}
        if self._body.return_token_ids:
            choice["token_ids"] = collected.ids
            choice["prompt_token_ids"] = self._answer.job.prompt
        usage = usage_of([self._answer])
        return json_reply(self._frame("chat.completion", [choice]) | {"usage": usage})

    async def events(self) -> AsyncGenerator[bytes]:
        """The answer as it comes."""
        yield self._chunk({"role": "assistant", "content": ""}, [], None, None)
        text = ""
        async for delta in self._answer.deltas():
            text += delta.text
            if delta.text or self._body.return_token_ids or delta.logprobs:
                yield self._chunk({"content": delta.text}, delta.logprobs, None, delta.ids)
        self._remember(text)
        yield self._chunk({}, [], self._reason(), None)
        if usage_wanted(self._body.stream_options):
            yield sse(
                self._frame("chat.completion.chunk", []) | {"usage": usage_of([self._answer])}
            )
        yield DONE

    def _chunk(
        self,
        delta: dict[str, Any],
        logprobs: list[TokenLogprob],
        reason: str | None,
        ids: list[int] | None,
    ) -> bytes:
        choice = {"delta": delta, **self._choice(logprobs, reason)}
        if self._body.return_token_ids:
            if "role" in delta:
                choice["prompt_token_ids"] = self._answer.job.prompt
            choice["token_ids"] = ids or []
        frame = self._frame("chat.completion.chunk", [choice])
        if usage_wanted(self._body.stream_options):
            frame["usage"] = None
        return sse(frame)

    def _choice(self, logprobs: list[TokenLogprob], reason: str | None) -> dict[str, Any]:
        shown = None
        if self._body.logprobs and (logprobs or not self._body.stream):
            shown = chat_logprobs(self._service.model.tokenizer, logprobs)
        return {"index": 0, "logprobs": shown, "finish_reason": reason}

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._body.model or self._service.model.name,
            "system_fingerprint": f"kvl-{self._answer.node.namespace[:12]}",
            "choices": choices,
        }

    def _reason(self) -> str:
        assert self._answer.end is not None, "the answer has not ended"
        return self._answer.end.reason

    def _remember(self, text: str) -> None:
        job = self._answer.job
        now = asyncio.get_running_loop().time()
        self._service.returns.answered(self._turn, job.returns, now)
        self._service.chats.remember(self._opening, text, self._answer.ids)
