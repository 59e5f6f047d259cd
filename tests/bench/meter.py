"""A proxy on loopback that counts the bytes that come back through it: what an installer really fetches."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self


class Meter:
    """``fetched`` counts what servers sent through the tunnels, TLS included."""

    def __init__(self) -> None:
        self.fetched = 0
        self._lock = threading.Lock()
        meter = self

        class Handler(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True

            def do_CONNECT(self) -> None:
                host, _, port = self.path.rpartition(":")
                with socket.create_connection((host, int(port)), timeout=60) as there:
                    self.send_response(200)
                    self.end_headers()
                    back = threading.Thread(target=meter._pump, args=(there, self.connection), daemon=True)
                    back.start()
                    meter._pump(self.connection, there, count=False)
                    back.join()

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def _pump(self, source: socket.socket, sink: socket.socket, *, count: bool = True) -> None:
        try:
            while data := source.recv(65536):
                if count:
                    with self._lock:
                        self.fetched += len(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # one side hung up

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
