"""POST /v1/completions."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from kvloop.router.answers import Answer
from kvloop.router.context import RequestContext, serve
from kvloop.router.jobs import Job
from kvloop.router.logprobs import completion_logprobs
from kvloop.router.merging import collect, merged
from kvloop.router.openai_types import CompletionRequest
from kvloop.router.prompt_list import Prompt, check_ids, prompt_list
from kvloop.router.prompts import text_prompts
from kvloop.router.replies import json_reply, usage_wanted
from kvloop.router.sampling import build_sampling, fit_max_tokens
from kvloop.router.service import Service
from kvloop.router.streams import DONE, EventStream, sse
from kvloop.router.usage import usage_of
from kvloop.router.validation import check_extra, check_stream_options
from kvloop.shared_cache.wire import TokenLogprob

_DEFAULT_MAX_TOKENS = 16


async def completions(service: Service, request: Request) -> Response:
    """Serve one or several prompts; raises ApiError."""
    return await serve(service, request, CompletionRequest, _serve)


async def _serve(service: Service, context: RequestContext, body: CompletionRequest) -> Response:
    check_extra(body)
    check_stream_options(body.stream, body.stream_options)
    service.model.check_name(body.model)
    prompts = prompt_list(body.prompt, "prompt")
    with ExitStack() as stack:
        ids = stack.enter_context(service.admission.admit(context.header_id, len(prompts)))
        jobs = await _jobs(service, context, body, prompts, ids)
        reply = _Reply(service, body, await service.begin(jobs, stack))
        if not body.stream:
            return await reply.whole()
        # the stream owns the answers from here on
        return EventStream(reply.events(), stack.pop_all().close)


async def _jobs(
    service: Service,
    context: RequestContext,
    body: CompletionRequest,
    prompts: list[Prompt],
    request_ids: list[str],
) -> list[Job]:
    tokenizer = service.model.tokenizer
    check_ids(body.stop_token_ids or [], tokenizer.vocab_size, "stop_token_ids")
    tokenized = await service.threads.call(text_prompts, tokenizer, prompts, "prompt")
    jobs = []
    for request_id, prompt in zip(request_ids, tokenized, strict=True):
        max_tokens = fit_max_tokens(
            body.max_tokens,
            _DEFAULT_MAX_TOKENS,
            len(prompt),
            service.model.context_length,
            "prompt",
        )
        sampling = build_sampling(
            body, seed=body.seed, max_tokens=max_tokens, top_logprobs=body.logprobs
        )
        job = context.job(
            request_id,
            prompt,
            sampling,
            body,
            stop=body.stop,
            skip_special_tokens=body.skip_special_tokens,
        )
        jobs.append(job)
    return jobs


class _Reply:
    """Answers in the shapes of the text completion API."""

    def __init__(self, service: Service, body: CompletionRequest, answers: list[Answer]) -> None:
        self._service = service
        self._body = body
        self._answers = answers
        self._offsets = [0] * len(answers)
        self._id = f"cmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())

    async def whole(self) -> Response:
        """All answers when they have ended."""
        choices = []
        for index, collected in enumerate(await collect(self._answers)):
            choice = self._choice(index, collected.text, collected.logprobs, collected.ids)
            choice["finish_reason"] = self._reason(index)
            if self._body.return_token_ids:
                choice["prompt_token_ids"] = self._answers[index].job.prompt
            choices.append(choice)
        return json_reply(self._frame(choices) | {"usage": usage_of(self._answers)})

    async def events(self) -> AsyncGenerator[bytes]:
        """Pieces of all answers as they come."""
        wants_usage = usage_wanted(self._body.stream_options)
        wants_ids = self._body.return_token_ids
        pending = {"usage": None} if wants_usage else {}
        async with aclosing(merged(self._answers)) as pieces:
            async for index, delta in pieces:
                if delta is None:
                    choice = self._choice(index, "", [], [])
                    choice["finish_reason"] = self._reason(index)
                    if wants_ids:
                        choice["prompt_token_ids"] = self._answers[index].job.prompt
                elif delta.text or delta.logprobs or wants_ids:
                    choice = self._choice(index, delta.text, delta.logprobs, delta.ids)
                else:
                    continue
                yield sse(self._frame([choice]) | pending)
        if wants_usage:
            yield sse(self._frame([]) | {"usage": usage_of(self._answers)})
        yield DONE

    def _choice(
        self, index: int, text: str, logprobs: list[TokenLogprob], ids: list[int]
    ) -> dict[str, Any]:
        shown = None
        if self._body.logprobs is not None and (logprobs or not self._body.stream):
            shown = completion_logprobs(
                self._service.model.tokenizer,
                logprobs,
                self._offsets[index],
                with_top=self._body.logprobs > 0,
            )
            self._offsets[index] += sum(map(len, shown["tokens"]))
        choice = {"index": index, "text": text, "logprobs": shown, "finish_reason": None}
        return choice | {"token_ids": ids} if self._body.return_token_ids else choice

    def _frame(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": self._created,
            "model": self._body.model or self._service.model.name,
            "system_fingerprint": f"kvl-{self._answers[0].node.namespace[:12]}",
            "choices": choices,
        }

    def _reason(self, index: int) -> str:
        end = self._answers[index].end
        assert end is not None, "the answer has not ended"
        return end.reason
