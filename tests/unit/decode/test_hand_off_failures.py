"""What /server_info tells of hand-offs that decode gave up: the canary quotes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from decode_engine import Decode, save_config

from kvloop.engine.messages import HandOffBroken, HandOffEvent
from kvloop.shared_cache.wire import Refused


def failures(decode: Decode) -> Any:
    described = msgspec.json.decode(msgspec.json.encode(decode.scheduler.describe()))
    return described["hand_off_failures"]


def test_each_attempt_that_was_given_up_is_told_with_its_node_and_cause(tmp_path: Path) -> None:
    decode = Decode(save_config(tmp_path), 40, False)
    urls = ("http://a", "http://b", "http://c")
    ask = decode.submit("r1", 40, prefills=urls)
    assert failures(decode) == []
    decode.push(ask, 0, checksum=1)
    second = decode.said_last(type(ask))
    refusal = Refused(status=409, kind="namespace", message="another namespace")
    event = HandOffEvent("r1", second.request.attempt, refusal, 0.0)
    decode.scheduler.handle(event)
    third = decode.said_last(type(ask))
    decode.scheduler.handle(HandOffBroken("r1", third.request.attempt, "connection reset"))
    names = ("request_id", "prefill_node", "reason", "status")
    told = [tuple(one[name] for name in names) for one in failures(decode)]
    assert told == [
        ("r1", "http://a", "checksum of layer 0 does not match", None),
        ("r1", "http://b", "refused: another namespace", 409),
        ("r1", "http://c", "connection reset", None),
    ]
