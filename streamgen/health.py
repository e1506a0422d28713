"""Whether the worker lives and is ready, and the HTTP server that tells it beside the metrics."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, MetricsHandler

from streamgen.errors import ConfigError


class Health:
    """What the loop says of itself; the server's threads read it.

    The loop lives while it made a turn within the last `patience_s` seconds; the constructor counts as one.
    """

    def __init__(self, patience_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds from anywhere on; it must never go back."""
        self._patience_s, self._clock = patience_s, clock
        self._turn = clock()
        self._assigned: int | None = None
        self._restoring = self.replay_left = 0
        self._broker = False

    def turn(self) -> None:
        """The loop made a turn."""
        self._turn = self._clock()

    def assigned(self, partitions: int) -> None:
        """The group gave this worker so many partitions; none is fine, others have them."""
        self._assigned = partitions

    def restoring(self, partitions: int, records: int) -> None:
        """So many partitions are not live yet: their state is read, or so many records are replayed."""
        self._restoring, self.replay_left = partitions, records

    @property
    def partitions_restoring(self) -> int:
        """Partitions that are not live yet."""
        return self._restoring

    def broker(self, ok: bool) -> None:
        """Whether a broker answered the last time."""
        self._broker = ok

    def stuck(self) -> str | None:
        """A sentence when the loop stands still; None while it lives."""
        still_s = self._clock() - self._turn
        if still_s <= self._patience_s:
            return None
        return f"the loop made no turn for {still_s:.0f} s (allowed: {self._patience_s:.0f} s)"

    def not_ready(self) -> dict[str, str]:
        """What is missing, with a sentence for each; empty when ready."""
        missing = {}
        if self._assigned is None:
            missing["assigned"] = "the group has not given this worker its partitions yet"
        if self._restoring:
            missing["restored"] = f"{self._restoring} of {self._assigned or 0} partitions are being restored"
        if not self._broker:
            missing["broker"] = "no broker answered the last request"
        return missing


class HealthServer:
    """Serves `/metrics`, `/livez` and `/readyz` from daemon threads; a context manager.

    `port` is the one that is listened on, also where 0 was asked for.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Health) -> None:
        """Listen at once. Raises ConfigError when the address cannot be had."""
        handler = type("Handler", (_Handler,), {"registry": registry, "health": health})
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            server_type = type("Server", (_Server,), {"address_family": family})
            self._server: _Server = server_type((host, port), handler)
        except OSError as error:
            raise ConfigError(
                f"metrics cannot be served at {host}:{port} ({error.strerror}); set metrics.port to a "
                "free port, to 0 for any free one, or to null for none, or metrics.host to an address of "
                "this machine"
            ) from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="streamgen-metrics", daemon=True, args=(0.05,)
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening; a request in progress may still be answered."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a scraper that hangs must not keep the worker from ending

    def server_bind(self) -> None:
        # HTTPServer looks its own name up, which takes seconds where name service is slow; nothing needs it.
        TCPServer.server_bind(self)


class _Handler(MetricsHandler):
    """The library's handler negotiates format and compression; this one adds the two health pages."""

    health: Health
    timeout = 10  # seconds that a client may be silent

    def do_GET(self) -> None:
        route = urlsplit(self.path).path
        if route == "/metrics":
            super().do_GET()
        elif route == "/livez":
            stuck = self.health.stuck()
            self._answer(stuck is None, stuck or "ok", "text/plain; charset=utf-8")
        elif route == "/readyz":
            missing = self.health.not_ready()
            content = json.dumps({"ready": not missing, "missing": missing})
            self._answer(not missing, content, "application/json")
        else:
            self.send_error(HTTPStatus.NOT_FOUND, explain="There are /metrics, /livez and /readyz.")

    def _answer(self, ok: bool, content: str, kind: str) -> None:
        body = f"{content}\n".encode()
        self.send_response(HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
