"""The head that every generating endpoint shares: whose request it is, its body, its jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from kvloop.router.body import read_body
from kvloop.router.jobs import Job
from kvloop.router.openai_types import CacheOptions, ServedFields
from kvloop.router.sampling import stop_strings
from kvloop.router.service import Service
from kvloop.router.streams import unless_gone
from kvloop.router.validation import check_extra, parse
from kvloop.shared_cache.keys import cache_seed
from kvloop.shared_cache.wire import CacheMode, Sampling, StripRule

B = TypeVar("B", bound=ServedFields)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """What is known of a request before its body; times are those of the event loop's clock."""

    header_id: str
    tenant: str | None
    arrived: float
    deadline: float

    def seed(self, salt: str | None) -> bytes | None:
        """What the page keys of this request start from."""
        return cache_seed(self.tenant, salt)

    def job(
        self,
        request_id: str,
        prompt: list[int],
        sampling: Sampling,
        body: ServedFields,
        *,
        stop: str | list[str] | None,
        skip_special_tokens: bool | None,
        keep_stop: bool = False,
        strip: StripRule | None = None,
        returns: bool | None = None,
    ) -> Job:
        """One prompt of this request; raises BadRequest for unknown fields of `body.kvloop`.

        What the client says of its session goes before `returns`.
        """
        said = body.kvloop.session if body.kvloop is not None else None
        return Job(
            request_id=request_id,
            header_id=self.header_id,
            prompt=prompt,
            sampling=sampling,
            seed=self.seed(body.cache_salt),
            tenant=self.tenant or "",
            priority=body.priority or 0,
            cache=_cache_mode(body.kvloop),
            stops=stop_strings(stop),
            skip_special_tokens=skip_special_tokens is not False,
            keep_stop=keep_stop,
            arrived=self.arrived,
            deadline=self.deadline,
            strip=strip,
            returns=returns if said is None else said == "returns",
        )


def context_of(service: Service, request: Request) -> RequestContext:
    """Raises ApiError 401 without a valid key, where keys are configured."""
    now = asyncio.get_running_loop().time()
    return RequestContext(
        header_id=request.scope["state"]["request_id"],
        tenant=service.tenants.tenant_of(request.headers.get("authorization")),
        arrived=now,
        deadline=now + service.config.request_timeout_s,
    )


async def serve(
    service: Service,
    request: Request,
    kind: type[B],
    answer: Callable[[Service, RequestContext, B], Coroutine[Any, Any, Response]],
) -> Response:
    """Answer a request whose body is of `kind`, unless its client goes; raises ApiError."""
    context = context_of(service, request)
    body = parse(kind, await read_body(request, service.config.max_body_bytes))
    return await unless_gone(request, answer(service, context, body))


def _cache_mode(options: CacheOptions | None) -> CacheMode:
    if options is None:
        return "on"
    check_extra(options, where="kvloop.", neutral={}, harmless=())
    return options.cache
