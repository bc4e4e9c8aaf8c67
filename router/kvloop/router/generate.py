"""POST /generate, as SGLang speaks it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, aclosing
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from kvloop.router.answers import Answer, End
from kvloop.router.context import RequestContext, serve
from kvloop.router.errors import BadRequest
from kvloop.router.jobs import Job
from kvloop.router.logprobs import sglang_logprobs
from kvloop.router.merging import Collected, collect, merged
from kvloop.router.prompt_list import Prompt, check_ids, prompt_list
from kvloop.router.prompts import text_prompts
from kvloop.router.replies import json_reply
from kvloop.router.sampling import build_sampling, fit_max_tokens
from kvloop.router.scope import check_request_id
from kvloop.router.service import Service
from kvloop.router.sglang_types import GenerateBody, SamplingParams
from kvloop.router.streams import DONE, EventStream, sse
from kvloop.router.usage import cached_tokens, completion_tokens, kvloop_of
from kvloop.router.validation import check_extra
from kvloop.shared_cache.wire import TokenLogprob

_DEFAULT_MAX_NEW_TOKENS = 128

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "input_embeds": (None,),
    "image_data": (None, []),
    "video_data": (None, []),
    "audio_data": (None, []),
    "lora_path": (None,),
    "custom_logit_processor": (None,),
    "session_params": (None,),
    "logprob_start_len": (None, -1),
    "token_ids_logprob": (None,),
    "return_text_in_logprobs": (None, False),
    "return_hidden_states": (None, False),
    "return_routed_experts": (None, False),
    "background": (None, False),
}
_SAMPLING_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "min_new_tokens": (None, 0),
    "json_schema": (None,),
    "regex": (None,),
    "ebnf": (None,),
    "structural_tag": (None,),
    "stop_regex": (None, []),
    "logit_bias": (None, {}),
    "custom_params": (None,),
    "spaces_between_special_tokens": (None, True),
}


async def generate(service: Service, request: Request) -> Response:
    """Serve one or several prompts; raises ApiError."""
    return await serve(service, request, GenerateBody, _serve)


async def _serve(service: Service, context: RequestContext, body: GenerateBody) -> Response:
    params = body.sampling_params or SamplingParams()
    prompts, several = _check(body, params)
    with ExitStack() as stack:
        if body.rid is not None:
            context = replace(context, header_id=check_request_id(body.rid, "rid"))
        admitted = service.admission.admit(context.header_id, len(prompts))
        request_ids = stack.enter_context(admitted)
        jobs = await _jobs(service, context, body, prompts, request_ids)
        reply = _Reply(body, await service.begin(jobs, stack), several)
        if not body.stream:
            return await reply.whole()
        # the stream owns the answers from here on
        return EventStream(reply.events(), stack.pop_all().close)


def _check(body: GenerateBody, params: SamplingParams) -> tuple[list[Prompt], bool]:
    """The prompts, and whether the request wrote them as a list."""
    check_extra(body, neutral=_NEUTRAL, harmless=())
    check_extra(params, where="sampling_params.", neutral=_SAMPLING_NEUTRAL, harmless=())
    if (body.text is None) == (body.input_ids is None):
        raise BadRequest("give exactly one of 'text' and 'input_ids'", param="text")
    if body.text is not None:
        prompts = prompt_list(body.text, "text")
        if not isinstance(prompts[0], str):
            raise BadRequest("Invalid 'text': ids belong into 'input_ids'", param="text")
        return prompts, isinstance(body.text, list)
    prompts = prompt_list(body.input_ids, "input_ids")
    if isinstance(prompts[0], str):
        raise BadRequest("Invalid 'input_ids': text belongs into 'text'", param="input_ids")
    return prompts, prompts is body.input_ids


async def _jobs(
    service: Service,
    context: RequestContext,
    body: GenerateBody,
    prompts: list[Prompt],
    request_ids: list[str],
) -> list[Job]:
    params = body.sampling_params or SamplingParams()
    param = "input_ids" if body.text is None else "text"
    tokenizer = service.model.tokenizer
    stop_ids = params.stop_token_ids or []
    check_ids(stop_ids, tokenizer.vocab_size, "sampling_params.stop_token_ids")
    tokenized = await service.threads.call(text_prompts, tokenizer, prompts, param)
    context_length = service.model.context_length
    jobs = []
    for request_id, prompt in zip(request_ids, tokenized, strict=True):
        max_tokens = fit_max_tokens(
            params.max_new_tokens, _DEFAULT_MAX_NEW_TOKENS, len(prompt), context_length, param
        )
        sampling = build_sampling(
            params,
            seed=params.sampling_seed,
            max_tokens=max_tokens,
            top_logprobs=(body.top_logprobs_num or 0) if body.return_logprob else None,
        )
        job = context.job(
            request_id,
            prompt,
            sampling,
            body,
            stop=params.stop,
            skip_special_tokens=params.skip_special_tokens,
            keep_stop=bool(params.no_stop_trim),
        )
        jobs.append(job)
    return jobs


class _Reply:
    """Answers in SGLang's shape; in a stream each event repeats all text so far."""

    def __init__(self, body: GenerateBody, answers: list[Answer], several: bool) -> None:
        self._body = body
        self._answers = answers
        self._several = several

    async def whole(self) -> Response:
        """All answers when they have ended; a list where the request gave a list."""
        collected = await collect(self._answers)
        outputs = [self._output(index, whole) for index, whole in enumerate(collected)]
        return json_reply(outputs if self._several else outputs[0])

    async def events(self) -> AsyncGenerator[bytes]:
        """All answers so far, each time one of them grows."""
        texts = [""] * len(self._answers)
        logprobs: list[list[TokenLogprob]] = [[] for _ in self._answers]
        async with aclosing(merged(self._answers)) as pieces:
            async for index, delta in pieces:
                answer = self._answers[index]
                if delta is not None:
                    texts[index] += delta.text
                    logprobs[index] += delta.logprobs
                    if answer.end is not None:
                        continue
                so_far = Collected(text=texts[index], ids=answer.ids, logprobs=logprobs[index])
                output = self._output(index, so_far)
                yield sse(output | {"index": index} if self._several else output)
        yield DONE

    def _output(self, index: int, collected: Collected) -> dict[str, Any]:
        answer = self._answers[index]
        name = answer.job.header_id
        meta: dict[str, Any] = {
            "id": f"{name}-{index}" if self._several else name,
            "finish_reason": _finish_reason(answer.end),
            "prompt_tokens": len(answer.job.prompt),
            "completion_tokens": completion_tokens(answer),
            "cached_tokens": cached_tokens(answer.started.sources),
            "e2e_latency": asyncio.get_running_loop().time() - answer.job.arrived,
            "kvloop": kvloop_of([answer]),
        }
        if self._body.return_logprob:
            with_top = bool(self._body.top_logprobs_num)
            meta |= sglang_logprobs(collected.logprobs, with_top)
        return {"text": collected.text, "output_ids": collected.ids, "meta_info": meta}


def _finish_reason(end: End | None) -> dict[str, Any] | None:
    if end is None:
        return None
    if end.reason == "length":
        return {"type": "length", "length": end.completion_tokens}
    return {"type": "stop", "matched": end.matched}
