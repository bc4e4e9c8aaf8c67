"""Encryption of a stream of KV events: CURVE, under keys that derive from the nodes' secret."""

from __future__ import annotations

import zmq
from zmq.utils import z85

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.kv_events import curve_secret

_ZAP_ADDRESS = "inproc://zeromq.zap.01"
_ZAP_VERSION = b"1.0"


def encrypt(socket: zmq.Socket[bytes], secret: str) -> None:
    """Make a socket that will be bound or connected a CURVE server; raises ConfigError."""
    if not zmq.has("curve"):
        raise ConfigError(
            "--kv-events-config: pyzmq's libzmq has no CURVE to encrypt with; "
            'install one that has, or set "curve" to false'
        )
    socket.curve_secretkey = z85.encode(curve_secret(secret, "publisher"))
    socket.curve_server = True


class Gatekeeper:
    """Answers libzmq's question, for a context's CURVE servers, whether a peer may connect."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], secret: str) -> None:
        known = zmq.curve_public(z85.encode(curve_secret(secret, "subscriber")))
        self._known_key = z85.decode(known)
        self.socket = context.socket(zmq.REP)
        self.socket.bind(_ZAP_ADDRESS)

    def answer(self) -> None:
        """One question, which must be there."""
        version, request, _domain, _address, _identity, mechanism, *keys = (
            self.socket.recv_multipart()
        )
        is_known = mechanism == b"CURVE" and keys == [self._known_key]
        verdict = (b"200", b"OK") if is_known else (b"400", b"unknown key")
        assert version == _ZAP_VERSION
        self.socket.send_multipart([version, request, *verdict, b"", b""])
