"""A server that answers like SGLang's router and nodes, with a cache as whole as a test wants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

PAGE = 16


@dataclass(slots=True, kw_only=True)
class SGLangServer:
    """One process stands for router, prefill and decode; a word is a token."""

    tells_cached: bool = True
    tells_storage: bool = False
    stores: bool = True
    """Decode's pages are found by the next turn."""
    from_storage: bool = True
    counts_transfers: bool = True
    counts_backups: bool = True
    fails_at: int | None = None
    """The turn, from 1, that is answered 500."""
    refuses_details: bool = False
    """Like a server that knows no return_cached_tokens_details."""
    metrics_status: int = 200
    bodies: list[dict[str, Any]] = field(default_factory=list)
    transfers: int = 0
    backed_up: int = 0
    kept: list[str] = field(default_factory=list)

    def app(self) -> web.Application:
        """To be served."""
        made = web.Application()
        made.router.add_post("/v1/chat/completions", self._chat)
        made.router.add_get("/metrics", self._metrics)
        for path in ("/health", "/server_info", "/model_info"):
            made.router.add_get(path, _about)
        return made

    async def _chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.refuses_details and "return_cached_tokens_details" in body:
            refused = {"message": "unrecognized argument: return_cached_tokens_details"}
            return web.json_response({"error": refused}, status=400)
        self.bodies.append(body)
        if self.fails_at == len(self.bodies):
            error = {"message": "KVTransferError: decode is gone", "code": 500}
            return web.json_response({"error": error}, status=500)
        tokens = _tokens(body["messages"])
        cached = self._cached(tokens)
        num = body.get("max_tokens") or body["max_completion_tokens"]  # as the router writes it
        answer = [f"word{number}" for number in range(num)]
        # The last sampled token has no KV; prefill keeps its prompt, decode stores its answer.
        whole = [*tokens, *answer][:-1] if self.stores else tokens
        self.kept = whole[: len(whole) // PAGE * PAGE]
        self.transfers += int(self.counts_transfers)
        self.backed_up += num if self.counts_backups and self.stores else 0
        return web.json_response(self._answer(tokens, cached, answer))

    def _answer(self, tokens: list[str], cached: int, answer: list[str]) -> Mapping[str, Any]:
        usage: dict[str, Any] = {
            "prompt_tokens": len(tokens),
            "completion_tokens": len(answer),
            "total_tokens": len(tokens) + len(answer),
        }
        if self.tells_cached:
            usage["prompt_tokens_details"] = {"cached_tokens": cached}
        message = {"role": "assistant", "content": " ".join(answer)}
        told: dict[str, Any] = {"choices": [{"index": 0, "message": message}], "usage": usage}
        if self.tells_storage:
            stored = cached if self.from_storage else 0
            told["sglext"] = {
                "cached_tokens_details": {"device": 0, "host": cached - stored, "storage": stored}
            }
        return told

    def _cached(self, tokens: list[str]) -> int:
        same = 0
        for ours, theirs in zip(tokens, self.kept, strict=False):
            if ours != theirs:
                break
            same += 1
        return same // PAGE * PAGE

    async def _metrics(self, _: web.Request) -> web.Response:
        lines = ["# TYPE sglang:num_requests counter", "sglang:num_requests_total 1"]
        if self.counts_transfers:
            name = "sglang:kv_transfer_latency_ms"
            lines += [f"# TYPE {name} histogram", f'{name}_bucket{{le="+Inf"}} {self.transfers}']
            lines += [f"{name}_count {self.transfers}", f"{name}_sum 1"]
        if self.counts_backups:
            lines += ["# TYPE sglang:backuped_tokens counter"]
            lines += [f"sglang:backuped_tokens_total {self.backed_up}"]
        return web.Response(text="\n".join(lines) + "\n", status=self.metrics_status)


async def _about(_: web.Request) -> web.Response:
    """What SGLang's router asks of a node before it sends it anything."""
    return web.json_response({"model_path": "m", "served_model_name": "m", "tp_size": 1})


def _tokens(messages: list[dict[str, str]]) -> list[str]:
    """Without a word at a message's head, so that an answer goes on where its prompt ended."""
    return " ".join(message["content"] for message in messages).split()
