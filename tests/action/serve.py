"""A simulator behind TLS, where a container action can reach it: loopback there is the container's own.

``serve.py ADDRESS FOLDER`` writes ``FOLDER/ca.pem``, then ``FOLDER/url``, and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from contextlib import suppress
from pathlib import Path

import trustme

from phala_secrets.simulator.server import Simulator

PORT = 8443


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    writer.close()


async def serve(address: str, folder: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(address).configure_cert(context)
    with Simulator() as simulator:
        cvm = simulator.cloud.add_cvm("my-app", environment={"GREETING": "hello from before"})

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", simulator.port)
            await asyncio.gather(relay(reader, inner_writer), relay(inner_reader, writer))

        async with await asyncio.start_server(connect, address, PORT, ssl=context) as server:
            origin = f"https://{address}:{PORT}"
            (folder / "guest").write_text(f"{simulator.origin}/_simulator/cvms/{cvm.id}")
            (folder / "url").write_text(simulator.url.replace(simulator.origin, origin))
            await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
