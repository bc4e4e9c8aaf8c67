"""What is known of a request before its body: id, tenant, deadline."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.requests import Request

from kvloop.router.jobs import Job
from kvloop.router.openai_types import CacheOptions
from kvloop.router.service import Service
from kvloop.router.validation import check_extra
from kvloop.shared_cache.keys import cache_seed
from kvloop.shared_cache.wire import CacheMode, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """Times are those of the event loop's clock."""

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
        *,
        salt: str | None,
        cache: CacheMode,
        stops: tuple[str, ...],
        skip_special_tokens: bool | None,
        keep_stop: bool = False,
    ) -> Job:
        """One prompt of this request."""
        return Job(
            request_id=request_id,
            header_id=self.header_id,
            prompt=prompt,
            sampling=sampling,
            seed=self.seed(salt),
            cache=cache,
            stops=stops,
            skip_special_tokens=skip_special_tokens is not False,
            keep_stop=keep_stop,
            arrived=self.arrived,
            deadline=self.deadline,
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


def cache_mode(options: CacheOptions | None) -> CacheMode:
    """The request's `kvloop.cache`; refuses other fields of that object."""
    if options is None:
        return "on"
    check_extra(options, where="kvloop.", neutral={}, harmless=())
    return options.cache
