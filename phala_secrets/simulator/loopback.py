"""A listening socket on loopback, with a thread for each connection."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Loopback(ThreadingHTTPServer):
    """Serves from `start` to `stop`. ``port`` 0 is a free one. It polls nothing, so it stops at once."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.closing = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def server_bind(self) -> None:
        """Bind without the base class's lookup of the host name. A port that was left just now is free."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])

    def start(self) -> None:
        """Accept connections from now on."""
        self._thread.start()

    def wait(self) -> None:
        """Wait until it was stopped."""
        self._thread.join()

    def stop(self) -> None:
        """Accept no more connections. Those that it has go on."""
        if self.closing.is_set():
            return
        self.closing.set()
        with socket.create_connection(("127.0.0.1", self.server_port)):  # wakes the thread, on any system
            self._thread.join()
        self.server_close()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                connection, address = self.get_request()
            except OSError:
                continue  # its other side is gone
            if self.closing.is_set():
                connection.close()
            else:
                self.process_request(connection, address)
