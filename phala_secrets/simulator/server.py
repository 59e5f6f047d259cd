"""HTTP on loopback: it reads requests and writes responses."""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
import uuid
from email.utils import format_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.endpoints import respond
from phala_secrets.simulator.loopback import Loopback
from phala_secrets.simulator.oidc import TOKEN_PATH
from phala_secrets.simulator.stream import Stream
from phala_secrets.simulator.wire import Answer, RefusalError, Request

if TYPE_CHECKING:
    from collections.abc import Callable
    from ssl import SSLContext
    from types import TracebackType

_PREFIX = "/api/v1"
_PCCS = ("/sgx/", "/tdx/")
_PEEK = "/_simulator/cvms/"
_LOOPBACK = ("127.0.0.1", "localhost")
_REASONS = {465: "Approval Required", 466: "Hash Invalid", 467: "Not Verified", 468: "Not Allowed"}
_CLOSE_SECONDS = 5.0


class Handler(BaseHTTPRequestHandler):
    """One connection: `handle_request` for each of its requests."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        with self.server.connections_changed:
            self.server.connections.add(self.connection)

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            with self.server.connections_changed:
                self.server.connections.discard(self.connection)
                self.server.connections_changed.notify_all()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Print nothing."""

    def serve(self) -> None:
        """Read one request of any method and respond."""
        simulator = self.server.simulator
        self.began = simulator.cloud.clock.monotonic()
        self.request_id = uuid.uuid4().hex
        self.recorded: Request | None = None
        body = self._read_body(simulator.cloud.max_body)
        if body is None:
            return
        url = urlsplit(self.path)
        if url.path.startswith(_PCCS):
            self.send_answer(simulator.cloud.tee.respond(url.path, parse_qs(url.query)))
            return
        if not url.path.startswith(_PREFIX + "/") and url.path != TOKEN_PATH:
            self.send_answer(self._peek(simulator.cloud, url.path))
            return
        request = Request(
            method=self.command,
            path=url.path.removeprefix(_PREFIX),
            query=parse_qs(url.query, keep_blank_values=True),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
            request_id=self.request_id,
            connection=self.client_address[1],
            started=self.server.simulator.cloud.clock.monotonic(),
        )
        simulator.cloud.requests.append(request)
        self.recorded = request
        self.handle_request(request)

    def handle_request(self, request: Request) -> None:
        """Carry out a request and respond."""
        self.respond(self.carry_out(request))

    def carry_out(self, request: Request) -> Answer | Stream:
        """Let the cloud carry out a request after the simulator's latency."""
        simulator = self.server.simulator
        answer = self._answer(simulator.cloud, request)
        if simulator.latency:
            simulator.cloud.clock.sleep(simulator.latency)
        return answer

    def respond(self, answer: Answer | Stream) -> None:
        """Send a response, or follow a stream to its end."""
        if isinstance(answer, Stream):
            self.send_stream(answer)
        else:
            self.send_answer(answer)

    def event_sent(self) -> bool:
        """Do nothing after an event of a stream; return whether the stream is to break off there."""
        return False

    def _answer(self, cloud: Cloud, request: Request) -> Answer | Stream:
        try:
            answer = respond(cloud, request)
        except RefusalError as refusal:
            answer = refusal.answer(request.request_id)
        return answer if isinstance(answer, Stream) else cloud.tamper(request, answer)

    def _read_body(self, limit: int) -> bytes | None:
        """Return the body, or None if it was refused, which ends the connection."""
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isdecimal() or int(length) > limit:
            self.close_connection = True
            self.send_answer(Answer({"detail": "Request Entity Too Large"}, 413))
            return None
        return self.rfile.read(int(length)) if length != "0" else b""

    def _peek(self, cloud: Cloud, path: str) -> Answer:
        """Return the environment of a guest, to users of this machine and not to pages of another origin."""
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        if host not in _LOOPBACK:
            return Answer({"detail": "Loopback only"}, 403)
        if self.command != "GET" or not path.startswith(_PEEK):
            return Answer({"detail": "Not Found"}, 404)
        try:
            cvm = cloud.find_cvm(unquote(path[len(_PEEK) :]))
        except RefusalError as refusal:
            return refusal.answer(self.request_id)
        with cloud.changed:
            return Answer(
                {
                    "id": cvm.id,
                    "name": cvm.name,
                    "app_id": cvm.app_id,
                    "status": cvm.status,
                    "boot_error": cvm.boot_error,
                    "allowed_envs": cvm.allowed_envs,
                    "compose_hash": cvm.compose_hash,
                    "environment": cvm.environment,
                    "decrypted_json": cvm.decrypted_json,
                }
            )

    def send_answer(self, answer: Answer) -> None:
        """Write a response, with its body as JSON unless it is bytes."""
        body = answer.body
        if not isinstance(body, bytes):
            body = json.dumps(body, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **answer.headers}
        self.wfile.write(self.head(answer.status, headers) + body)

    def head(self, status: int, headers: dict[str, str]) -> bytes:
        """Return status line and headers up to the blank line. Record and trace the response."""
        simulator, now = self.server.simulator, self.server.simulator.cloud.clock.monotonic()
        if self.recorded is not None:
            self.recorded.status, self.recorded.ended = status, now
        simulator.trace(self.command, self.path.partition("?")[0], status, now - self.began)
        reason = _REASONS.get(status) or HTTPStatus(status).phrase
        lines = [
            f"HTTP/1.1 {status} {reason}",
            f"Date: {format_datetime(simulator.cloud.now(), usegmt=True)}",
            f"X-Request-ID: {self.request_id}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        if self.close_connection:
            lines.append("Connection: close")
        return "\r\n".join((*lines, "\r\n")).encode("latin-1")

    def send_stream(self, stream: Stream) -> None:
        """Write the events of a stream until it ends, or its reader or the server is gone."""
        try:
            headers = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}
            self.wfile.write(self.head(200, {**headers, "Cache-Control": "no-cache"}))
            for event in stream:
                if self.server.closing.is_set() or self.reader_is_gone():
                    raise ConnectionAbortedError
                if event:
                    self.send_chunk(event)
                    if self.event_sent():
                        return
            self.wfile.write(b"0\r\n\r\n")
        finally:
            stream.close()

    def send_chunk(self, data: bytes) -> None:
        """Write a chunk of a body whose length is not known."""
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def reader_is_gone(self) -> bool:
        """Return whether the reader of a stream hung up: it sends nothing else."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable)


for _method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
    setattr(Handler, f"do_{_method}", Handler.serve)


class Server(Loopback):
    """The listening socket, and the connections that it accepted."""

    def __init__(self, port: int, simulator: Simulator) -> None:
        super().__init__(port, simulator.handler)
        self.simulator = simulator
        self.connections: set[socket.socket] = set()
        self.connections_changed = threading.Condition()

    def hang_up(self) -> None:
        """End the connections, and wait until their threads have let go of them."""
        with self.connections_changed:
            for connection in self.connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # it ended by itself
            self.connections_changed.wait_for(lambda: not self.connections, _CLOSE_SECONDS)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a broken connection. Print any other error."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Simulator:
    """A Phala Cloud on loopback, from here until `close`; also a context manager.

    ``cloud`` is its state (default: a new one). ``port`` 0 takes a free one. ``latency`` in seconds of the
    cloud's clock is added to every response. ``tls`` is a server's context, for https.
    """

    handler: type[Handler] = Handler
    """The handler of a connection. A subclass may spoil responses."""

    def __init__(
        self,
        cloud: Cloud | None = None,
        port: int = 0,
        latency: float = 0.0,
        tls: SSLContext | None = None,
    ) -> None:
        self.cloud = cloud or Cloud()
        self.latency = latency
        self.trace: Callable[[str, str, int, float], None] = _nowhere
        """Called as each response begins: method, path, status, and the seconds that it took until then."""
        self._scheme = "http" if tls is None else "https"
        self._server = Server(port, self)
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.cloud.tokens.audiences.add(self.url)
        self._server.start()

    @property
    def token_url(self) -> str:
        """The URL of a job's tokens (``ACTIONS_ID_TOKEN_REQUEST_URL``)."""
        return f"{self.origin}{TOKEN_PATH}?api-version=2.0"

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def origin(self) -> str:
        """``http://127.0.0.1:PORT``."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The API's base URL, without a slash at its end."""
        return self.origin + _PREFIX

    def wait(self) -> None:
        """Wait until it is closed."""
        self._server.wait()

    def close(self) -> None:
        """Stop listening, and end every connection."""
        self._server.stop()
        self._server.hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _nowhere(*_: object) -> None:
    """Trace nothing."""
