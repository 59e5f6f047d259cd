"""A simulator that can be told what goes wrong on the way, and how each fault looks on the wire."""

from __future__ import annotations

import json
import socket
import struct
import zlib
from ssl import SSLContext
from typing import TYPE_CHECKING, NoReturn

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.server import Handler, Simulator
from phala_secrets.simulator.stream import Stream
from phala_secrets.simulator.wire import Answer, Request
from tests.support.faults import Fault, Faults

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = b" " * (1024 * 1024)
_ERROR_PAGE = b"<!DOCTYPE html><html><head><title>Bad gateway</title></head><body><h1>502</h1></body></html>"
_HTML = {"Content-Type": "text/html; charset=utf-8"}
_JSON = {"Content-Type": "application/json"}
_PING_SECONDS = 0.25


class FaultyHandler(Handler):
    """A connection that spoils answers as ``faults`` say.

    Stalls are of the machine's own time: they are about what a client does while a socket is silent.
    What drips, or keeps a stream open, moves the cloud's clock: that is about a client's patience.
    """

    fault: Fault | None = None

    def handle_request(self, request: Request) -> None:
        simulator = self.server.simulator
        assert isinstance(simulator, FaultySimulator)
        fault = self.fault = simulator.faults.take(request.method, request.path)
        if fault is None:
            super().handle_request(request)
            return
        self.spoil_before(fault)
        answer = self.carry_out(request) if fault.carries_out else Answer(None)
        if isinstance(answer, Stream) or not self.spoil(fault, answer):
            self.respond(answer)

    def event_sent(self) -> bool:
        fault = self.fault
        while fault is not None and fault.kind == "mute" and not self.reader_is_gone():
            self.send_chunk(b": ping\n\n")
            self.pass_time(_PING_SECONDS)
            self.sleep(_PING_SECONDS / 25)  # so that a reader keeps up with a clock that a test moves
        return fault is not None and self.spoil_stream(fault)

    def sleep(self, seconds: float) -> None:
        """Let time go by, until the server closes at the latest."""
        if self.server.closing.wait(seconds):
            raise ConnectionAbortedError

    def pass_time(self, seconds: float) -> None:
        """Let time go by on the cloud's clock, unless the server closes."""
        if self.server.closing.is_set():
            raise ConnectionAbortedError
        self.server.simulator.cloud.clock.sleep(seconds)

    def spoil_before(self, fault: Fault) -> None:
        """What happens before the request is handled."""
        if fault.kind == "stall" and fault.where == "before":
            self.sleep(fault.seconds)
        elif fault.kind == "reset_before":
            self._reset()

    def spoil(self, fault: Fault, answer: Answer) -> bool:
        """Send something in place of ``answer``; false where it is to be sent as it is."""
        match fault.kind:
            case "reset_after":
                self._reset()
            case "status" if isinstance(fault.body, bytes):
                self._send_bytes(fault.status, fault.body, fault.headers)
            case "status":
                self.send_answer(Answer(fault.body, fault.status, fault.headers))
            case "redirect":
                self.send_answer(Answer({"detail": "moved"}, 307, {"Location": fault.location}))
            case "html_200":
                self._send_bytes(200, _ERROR_PAGE, _HTML)
            case "not_json":
                self._send_bytes(200, b'{"items": [', _JSON)
            case "huge_body":
                self._send_huge(fault)
            case "gzip_bomb":
                self._send_blocks({**_JSON, "Content-Encoding": "gzip"}, _gzip_bomb(fault.size))
            case "half_body":
                self._send_half(answer, 0.0)
            case "drip":
                self._drip(answer, fault.seconds)
            case "stall" if fault.where == "body":
                self._send_half(answer, fault.seconds)
            case "stall" if fault.where == "after":
                self.sleep(fault.seconds)
                return False
            case _:
                return False
        return True

    def spoil_stream(self, fault: Fault) -> bool:
        """After an event; true where the stream ends here."""
        if fault.kind == "stall" and fault.where == "body":
            self.sleep(fault.seconds)
        elif fault.kind == "reset_after":
            self._reset()
        elif fault.kind == "half_body":
            self.close_connection = True
            return True
        return False

    def _reset(self) -> NoReturn:
        """RST in place of FIN: with a linger time of zero, and every reference to the socket closed."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.wfile.close()
        self.connection.close()
        raise ConnectionAbortedError

    def _send_bytes(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.wfile.write(self.head(status, {"Content-Length": str(len(body)), **headers}) + body)

    def _send_half(self, answer: Answer, seconds: float) -> None:
        head, body = self._bytes_of(answer)
        half = len(body) // 2
        self.wfile.write(head + body[:half])
        if seconds:
            self.sleep(seconds)
            self.wfile.write(body[half:])
        else:
            self.close_connection = True

    def _drip(self, answer: Answer, seconds: float) -> None:
        head, body = self._bytes_of(answer)
        self.wfile.write(head)
        for byte in body:
            self.wfile.write(bytes((byte,)))
            self.pass_time(seconds)

    def _bytes_of(self, answer: Answer) -> tuple[bytes, bytes]:
        body = json.dumps(answer.body).encode()
        return self.head(answer.status, {**_JSON, "Content-Length": str(len(body)), **answer.headers}), body

    def _send_huge(self, fault: Fault) -> None:
        if fault.chunked:
            self._send_blocks(_JSON, _spaces(fault.size))
            return
        self.wfile.write(self.head(200, {**_JSON, "Content-Length": str(fault.size)}))
        for block in _spaces(fault.size):
            self.wfile.write(block)

    def _send_blocks(self, headers: dict[str, str], blocks: Iterator[bytes]) -> None:
        self.wfile.write(self.head(200, {**headers, "Transfer-Encoding": "chunked"}))
        for block in blocks:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block))
        self.wfile.write(b"0\r\n\r\n")


class FaultySimulator(Simulator):
    """A simulator that answers as it should but for the ``faults`` that a test adds."""

    handler = FaultyHandler

    def __init__(
        self,
        cloud: Cloud | None = None,
        port: int = 0,
        latency: float = 0.0,
        tls: SSLContext | None = None,
    ) -> None:
        self.faults = Faults()
        super().__init__(cloud, port, latency, tls)


def _spaces(size: int) -> Iterator[bytes]:
    """JSON of ``size`` bytes: white space, then ``{}``."""
    for _ in range((size - 2) // len(_BLOCK)):
        yield _BLOCK
    yield _BLOCK[: (size - 2) % len(_BLOCK)] + b"{}"


def _gzip_bomb(size: int) -> Iterator[bytes]:
    """One gzip member that unpacks to about ``size`` bytes; the same packed block again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    yield packer.compress(_BLOCK) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(_BLOCK) + packer.flush(zlib.Z_FULL_FLUSH)
    for _ in range(max(1, size // len(_BLOCK)) - 1):
        yield block
    yield packer.compress(b"{}") + packer.flush()  # its checksum is of three blocks: nobody gets here
