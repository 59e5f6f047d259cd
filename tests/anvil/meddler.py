"""An RPC that is not to be trusted: a proxy on loopback that changes, delays or drops what passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

import httpx

from phala_secrets.simulator.loopback import Loopback

Forward = Callable[[], Any]
Meddle = Callable[[str, list[Any], Forward], Any]


class DroppedError(Exception):
    """Raised by a ``Meddle`` to close the connection without an answer."""


class Meddler:
    """Passes JSON-RPC on to ``upstream``, except that ``meddle`` has the last word on each answer.

    ``meddle(method, params, forward)`` returns the whole answer; ``forward()`` asks the chain,
    so to drop an answer after the request arrived is to forward, and then to raise ``DroppedError``.
    ``seen`` has the methods in order.
    """

    def __init__(self, upstream: str, meddle: Meddle) -> None:
        self.seen: list[str] = []
        meddler, http = self, httpx.Client(timeout=30, trust_env=False)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = json.loads(body)
                meddler.seen.append(request["method"])
                try:
                    answer = meddle(
                        request["method"],
                        request["params"],
                        lambda: http.post(
                            upstream, content=body, headers={"Content-Type": "application/json"}
                        ).json(),
                    )
                except DroppedError:
                    self.close_connection = True
                    return
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._http = http
        self._server = Loopback(0, Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._http.close()


def result(value: Any) -> dict[str, Any]:
    """A JSON-RPC answer that brings ``value``."""
    return {"jsonrpc": "2.0", "id": 1, "result": value}
