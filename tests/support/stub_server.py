"""An OpenAI-compatible server that computes nothing: it streams at a steady pace, or misbehaves.

    python stub_server.py --port 0 --interval-ms 100

Prints its port, then serves until it is killed. It imports nothing of kvloop, and uvloop only
where that is there. GET /requests tells what it was asked, the head of the last such request, how
many streams it had at once at most, and the CPU seconds it has used.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import time
from dataclasses import dataclass, field
from typing import Any

_PAGE = 16
_KEPT_REQUESTS = 2000
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_KVLOOP_SOURCES = ("device", "host", "storage", "transfer_skipped")


@dataclass
class Stub:
    """What all connections share."""

    args: argparse.Namespace
    requests: list[dict[str, Any]] = field(default_factory=list)
    last_head: str = ""
    pages: set[int] = field(default_factory=set)
    num_answered: int = 0
    num_streams: int = 0
    most_streams: int = 0
    draw: random.Random = field(default_factory=lambda: random.Random(0))

    def note(self, body: dict[str, Any]) -> None:
        self.requests.append(body)
        del self.requests[:-_KEPT_REQUESTS]

    def num_cached(self, body: dict[str, Any], words: list[Any]) -> int:
        """Tokens of the prompt's leading pages that were stored under its salt; stores the rest."""
        mode = (body.get("kvloop") or {}).get("cache", "on")
        if mode == "off" and self.args.kvloop:
            return 0
        cached, key = 0, hash(body.get("cache_salt"))
        is_known = True
        for end in range(_PAGE, len(words), _PAGE):
            key = hash((key, *words[end - _PAGE : end]))
            is_known = is_known and key in self.pages
            cached += _PAGE * is_known
            self.pages.add(key)
        return cached

    def refusal(self, body: dict[str, Any]) -> tuple[int, str] | None:
        """Status and words of a request that is not answered."""
        args = self.args
        for name in args.refuse_field:
            if name in body:
                return 400, f"Unrecognized request argument supplied: {name}"
        for status, share in ((429, args.share_429), (503, args.share_503)):
            if self.draw.random() < share:
                return status, f"made up refusal {status}"
        if self.num_answered < args.refuse_first:
            self.num_answered += 1
            return 429, "made up refusal 429"
        return None


class Connection(asyncio.Protocol):
    """One client; one request at a time."""

    def __init__(self, stub: Stub) -> None:
        self._stub, self._args = stub, stub.args
        self._loop = asyncio.get_running_loop()
        self._unread = b""
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._is_streaming = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._end_stream()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        head, found, rest = self._unread.partition(b"\r\n\r\n")
        if not found:
            return
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(rest) < length:
            return
        self._unread = rest[length:]
        method, path, _ = head.split(b" ", 2)
        key = self._args.api_key
        if key is not None and f"Authorization: Bearer {key}".encode() not in head:
            self._json(401, {"error": {"message": "no such key"}})
        elif method == b"GET":
            self._get(path.decode())
        else:
            self._stub.last_head = head.decode()
            self._post(json.loads(rest[:length]))

    def _get(self, path: str) -> None:
        if path == "/v1/models":
            owner = "kvloop" if self._args.kvloop else "stub"
            card = {"id": "stub", "max_model_len": self._args.context, "owned_by": owner}
            self._json(200, {"data": [card]})
        elif path == "/requests":
            stub = self._stub
            seen = {"requests": stub.requests, "most_streams": stub.most_streams}
            self._json(200, seen | {"last_head": stub.last_head, "cpu_s": time.process_time()})
        else:
            self._json(404, {"error": {"message": f"no {path}"}})

    def _post(self, body: dict[str, Any]) -> None:
        stub, args = self._stub, self._args
        stub.note(body)
        refusal = stub.refusal(body)
        if refusal is not None:
            more = f"Retry-After: {args.retry_after}\r\n" if args.retry_after else ""
            self._json(refusal[0], {"error": {"message": refusal[1]}}, more)
            return
        stub.num_answered += 1
        if args.die_after and stub.num_answered > args.die_after:
            os._exit(1)
        if args.not_streamed:
            self._json(200, {"choices": [{"text": "t"}], "usage": {"prompt_tokens": 1}})
            return
        stub.num_streams += 1
        stub.most_streams = max(stub.most_streams, stub.num_streams)
        self._is_streaming = True
        self._begin(body)

    def _begin(self, body: dict[str, Any]) -> None:
        args = self._args
        is_chat = "messages" in body
        words = _words(body) if is_chat else body["prompt"]
        num_tokens = max(body["max_tokens"] - args.short_by, 1)
        usage = self._usage(body, words, num_tokens)
        answer = Answer(args, num_tokens, is_chat, bool(body.get("return_token_ids")), usage)
        self._transport.write(_HEAD)
        due = self._loop.time() + args.first_ms / 1000
        if args.first_ms > 0:
            self._timer = self._loop.call_at(due, self._go_on, answer, 0, due)
        else:
            self._go_on(answer, 0, due)

    def _go_on(self, answer: Answer, number: int, due: float) -> None:
        """Write the token that was due, and come back for the next one."""
        args = self._args
        if number == args.stall_after:
            return
        if number == args.truncate_after:
            self._transport.write(b"0\r\n\r\n")
            self._end_stream()
            return
        if number == args.cut_after:
            self._transport.abort()
            return
        if number == args.error_after:
            self._transport.write(_chunk(b'data: {"error": {"message": "made up error"}}\n\n'))
        if number == args.garbage_after:
            self._transport.write(_chunk(b"data: {oops\n\n"))
        if number < answer.num_tokens:
            self._transport.write(answer.token(number))
            due += args.interval_ms / 1000
            self._timer = self._loop.call_at(due, self._go_on, answer, number + 1, due)
            return
        self._end_stream()
        self._transport.write(answer.end())

    def _usage(self, body: dict[str, Any], words: list[Any], num_tokens: int) -> dict[str, Any]:
        cached = self._stub.num_cached(body, words)
        usage: dict[str, Any] = {"prompt_tokens": len(words), "completion_tokens": num_tokens}
        usage["prompt_tokens_details"] = {"cached_tokens": cached}
        if self._args.odd_usage:
            usage["prompt_tokens"] = "many"
        if self._args.kvloop:
            mode = (body.get("kvloop") or {}).get("cache", "on")
            source = "storage" if mode == "l3_only" else "device"
            sources = dict.fromkeys(_KVLOOP_SOURCES, 0) | {source: cached}
            usage["kvloop"] = sources | {"computed": len(words) - cached}
        return usage

    def _end_stream(self) -> None:
        self._stub.num_streams -= self._is_streaming
        self._is_streaming = False

    def _json(self, status: int, body: dict[str, Any], more: str = "") -> None:
        data = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{more}"
        self._transport.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)


class Answer:
    """The chunks of one stream."""

    def __init__(
        self,
        args: argparse.Namespace,
        num_tokens: int,
        is_chat: bool,
        with_ids: bool,
        usage: dict[str, Any],
    ) -> None:
        self.num_tokens = num_tokens
        self._args, self._is_chat = args, is_chat
        self._with_ids = with_ids and not args.no_token_ids
        self._usage = usage

    def token(self, number: int) -> bytes:
        # As a server's frames look: a few hundred bytes, most of them of no use here.
        ids = f',"token_ids":[{1000 + number}]' if self._with_ids else ""
        words = f'"delta":{{"content":" t{number}"}}' if self._is_chat else f'"text":" t{number}"'
        return _chunk(
            b'data: {"id":"stub-0123456789abcdef","object":"chunk","created":1700000000,'
            b'"model":"stub","choices":[{"index":0,%s,"logprobs":null,"finish_reason":null%s}],'
            b'"usage":null}\n\n' % (words.encode(), ids.encode())
        )

    def end(self) -> bytes:
        if self._args.no_usage:
            return _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        event = json.dumps({"choices": [], "usage": self._usage}).encode()
        return _chunk(b"data: " + event + b"\n\ndata: [DONE]\n\n") + b"0\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _words(body: dict[str, Any]) -> list[str]:
    return [word for one in body["messages"] for word in (one["role"], *one["content"].split())]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    flag = parser.add_argument
    flag("--port", type=int, default=0)
    flag("--first-ms", type=float, default=0.0, help="before the first token")
    flag("--interval-ms", type=float, default=0.0, help="between tokens")
    flag("--context", type=int, help="max_model_len of /v1/models")
    flag("--api-key", help="401 to requests without it")
    flag("--kvloop", action="store_true", help="answer with usage.kvloop, know its `cache` field")
    flag("--share-429", type=float, default=0.0, help="of requests, from 0 to 1")
    flag("--share-503", type=float, default=0.0)
    flag("--refuse-first", type=int, default=0, help="so many requests with 429")
    flag("--retry-after", default="", help="header of refusals")
    flag("--refuse-field", action="append", default=[], help="400 to requests that have it")
    flag("--die-after", type=int, default=0, help="answered requests")
    flag("--short-by", type=int, default=0, help="answers lack so many tokens")
    flag("--stall-after", type=int, help="tokens, then silence")
    flag("--truncate-after", type=int, help="tokens, then a proper end without [DONE]")
    flag("--cut-after", type=int, help="tokens, then the connection is gone")
    flag("--error-after", type=int, help="tokens, then an error event")
    flag("--garbage-after", type=int, help="tokens, then an event that is no JSON")
    flag("--not-streamed", action="store_true", help="one JSON instead of a stream")
    flag("--no-usage", action="store_true")
    flag("--odd-usage", action="store_true", help="a number of tokens that is no number")
    flag("--no-token-ids", action="store_true")
    return parser.parse_args()


async def _serve(args: argparse.Namespace) -> None:
    stub, loop = Stub(args), asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(stub), "127.0.0.1", args.port, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve until a signal comes."""
    try:
        import uvloop

        new_loop = uvloop.new_event_loop
    except ImportError:
        new_loop = asyncio.new_event_loop
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_serve(_parse()))


if __name__ == "__main__":
    main()
