"""/healthz and /readyz of a process that serves no HTTP otherwise."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kvloop.shared_cache.errors import ConfigError

Check = Callable[[], bool]


@contextlib.contextmanager
def health_server(
    port: int | None, *, is_alive: Check = lambda: True, is_ready: Check
) -> Iterator[None]:
    """On all addresses, by threads of its own; none without a port. ConfigError if it is taken."""
    if port is None:
        yield
        return
    checks = {"/healthz": is_alive, "/readyz": is_ready}
    try:
        server = _Server(("", port), _handler(checks))
    except OSError as error:
        raise ConfigError(f"--health-port {port}: cannot listen: {error.strerror}") from None
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def _handler(checks: dict[str, Check]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5.0
        """Of a connection that says nothing."""

        def do_GET(self) -> None:
            check = checks.get(self.path)
            if check is None:
                self._answer(HTTPStatus.NOT_FOUND)
            else:
                self._answer(HTTPStatus.OK if check() else HTTPStatus.SERVICE_UNAVAILABLE)

        def _answer(self, status: HTTPStatus) -> None:
            body = f"{status.phrase}\n".encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as in the base
            """Probes are no news."""

    return Handler
