"""What stands in for a service: a server on loopback that is started, awaited, and ended."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.command import ROOT

TOOLS = ROOT / ".venv-recipes/bin"


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def process(command: Sequence[str], port: int, environ: Mapping[str, str], log: Path) -> Iterator[str]:
    """A server of somebody else's; yields its origin. AssertionError, with its log, if it does not start."""
    with log.open("wb") as file:
        server = subprocess.Popen(command, env=environ, stdout=file, stderr=subprocess.STDOUT)
    try:
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.1)
        else:
            raise AssertionError(log.read_text())
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


class Moto:
    """AWS, played by moto, for one who may do everything."""

    def __init__(self, origin: str, environ: Mapping[str, str]) -> None:
        self.environ = {
            "AWS_ENDPOINT_URL": origin,
            "AWS_ACCESS_KEY_ID": "AKIAROTATOR",
            "AWS_SECRET_ACCESS_KEY": "rotator",
            "AWS_DEFAULT_REGION": "eu-central-1",
        }
        self._base = environ

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """``aws …``: what it prints, as text."""
        command = [str(TOOLS / "aws"), *arguments, "--output", "text"]
        environ = {**self._base, **self.environ}
        done = subprocess.run(command, env=environ, input=stdin, capture_output=True, text=True, check=True)
        return done.stdout.strip()


@contextmanager
def moto(environ: Mapping[str, str], log: Path) -> Iterator[Moto]:
    """AWS on loopback."""
    port = free_port()
    command = [str(TOOLS / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with process(command, port, environ, log) as origin:
        yield Moto(origin, environ)


class Service:
    """A service of HTTP: what it is asked, and what it answers to each request."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.requests: list[tuple[str, Mapping[str, str], str]] = []
        """Path, headers and body of each."""


@contextmanager
def service(answer: Callable[[str, Mapping[str, str]], tuple[int, object]]) -> Iterator[Service]:
    """Serve ``answer(path, headers)``, a status and JSON."""

    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = dict(self.headers.items())
            running.requests.append((self.path, headers, body.decode()))
            status, content = answer(self.path, headers)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815 (http.server's name)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        running = Service(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield running
        finally:
            server.shutdown()
            thread.join()
