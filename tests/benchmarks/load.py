"""A small HTTP load generator in a process of its own: keep-alive connections, a fixed number of requests.

Usage: ``python -m tests.benchmarks.load HOST PORT REQUESTS CONNECTIONS < raw-request``; prints requests/s.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


async def _connection(host: str, port: int, request: bytes, times: int) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        for _ in range(times):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"not 200: {head[:200]!r}")
            length = _LENGTH.search(head)
            await reader.readexactly(int(length.group(1)) if length else 0)
    finally:
        writer.close()


async def _main(host: str, port: int, requests: int, connections: int, request: bytes) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(_connection(host, port, request, requests // connections) for _ in range(connections)))
    return requests / (time.perf_counter() - began)


if __name__ == "__main__":
    import uvloop

    arguments = sys.argv[1:]
    work = _main(arguments[0], *map(int, arguments[1:4]), sys.stdin.buffer.read())
    print(uvloop.run(work))
