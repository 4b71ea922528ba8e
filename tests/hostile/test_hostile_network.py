"""Guests that use the way out for what it is not: private addresses, forged headers, bombs, endless answers."""

from __future__ import annotations

import asyncio
import gzip
import socket
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from kernel.errors import GuestFailure
from kernel.manifest import PluginManifest
from tests.hostile.conftest import Opener
from tests.hostile.corpus import manifest_of
from tests.hostile.door import Door
from tests.hostile.probes import SEPARATOR, sender
from tests.hostile.text import compiled

PUBLIC, METADATA = "93.184.215.14", "169.254.169.254"
WHY = "needed by the tests"


@dataclass
class Outside:
    """Names as an attacker's resolver answers them, and every address that anybody tried to reach."""

    answers: dict[str, list[list[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tried: list[tuple[str, int]] = field(default_factory=list)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Outside:
    """The resolver answers what the test says, each answer once and the last for ever; what is not
    loopback cannot be reached. Both stand in for the system's own, below everything of ours."""
    state = Outside()
    resolve, connect = socket.getaddrinfo, socket.socket.connect

    def answer(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host not in state.answers:
            return resolve(host, port, *arguments, **options)
        state.asked.append(host)
        found = state.answers[host]
        addresses = found.pop(0) if len(found) > 1 else found[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            state.tried.append(address[:2])
            if not str(address[0]).startswith("127."):
                raise ConnectionRefusedError(f"{address[0]} is not to be reached from a test")
        connect(self, address)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    monkeypatch.setattr(socket.socket, "connect", guarded)
    return state


Answer = Callable[[bytes, asyncio.StreamWriter], Any]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server on loopback; ``answer`` gets each request's head and writes what it likes. Port and heads."""
    heads: list[bytes] = []
    writers: set[asyncio.StreamWriter] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await answer(heads[-1], writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


def replying(status: str = "200 OK", body: bytes = b"", *headers: str) -> Answer:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]

    async def answer(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await writer.drain()

    return answer


def going_to(*hosts: str, **limits: Any) -> PluginManifest:
    http = {"why": WHY, "hosts": list(hosts), "methods": ["GET", "POST"]}
    return manifest_of(capabilities={"http": http}, events={}, limits={"time_ms": 20_000} | limits)


def wish(url: str, name: str = "x-guest", value: str = "yes", method: str = "GET") -> str:
    return SEPARATOR.join((method, url, name, value))


async def send(door: Door, manifest: PluginManifest, payload: str) -> str:
    return (await door.run(compiled(sender()), payload, manifest=manifest)).output


# ---------------------------------------------------------------------------------- addresses

PRIVATE = [
    "127.0.0.1", "10.0.0.8", "172.16.3.4", "192.168.1.1", METADATA, "100.64.0.1", "0.0.0.0", "224.0.0.1", "192.0.2.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_name_with_a_private_address_is_refused(door: Door, outside: Outside, address: str) -> None:
    outside.answers["api.example.com"] = [[address]]
    assert await send(door, going_to("api.example.com"), wish("https://api.example.com/")) == "!denied"
    assert outside.tried == []


async def test_one_private_address_among_public_ones_is_refused(door: Door, outside: Outside) -> None:
    outside.answers["api.example.com"] = [[PUBLIC, METADATA]]
    assert await send(door, going_to("api.example.com"), wish("https://api.example.com/")) == "!denied"
    assert outside.tried == []


async def test_an_answer_that_changes_between_check_and_use_is_not_asked_for_again(
    door: Door, outside: Outside
) -> None:
    async with serving(replying()) as (port, heads):
        host = f"api.example.com:{port}"
        outside.answers["api.example.com"] = [[PUBLIC], ["127.0.0.1"]]
        assert await send(door, going_to(host), wish(f"https://{host}/")) == "!unavailable"
        assert outside.asked == ["api.example.com"]
        assert outside.tried == [(PUBLIC, port)], "the connection goes to the very address that was checked"
        assert heads == []


async def test_a_redirect_is_checked_like_the_first_address(doors: Opener, outside: Outside) -> None:
    outside.answers["inner.example.com"] = [["10.0.0.8"]]
    async with serving(replying()) as (victim, victims):
        targets = [
            f"http://{METADATA}/latest/meta-data/",
            "https://inner.example.com/",
            f"http://127.0.0.1:{victim}/",
            f"http://localhost:{victim}/",
            f"//127.0.0.1:{victim}/",
            "http://2130706433/",
            "http://0x7f000001/",
            f"http://[::ffff:127.0.0.1]:{victim}/",
            "file:///etc/passwd",
            "gopher://127.0.0.1/",
            "https://user:word@api.example.com/",
        ]

        async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
            target = targets[int(head.split(b" ")[1].strip(b"/"))]
            await replying("302 Found", b"", f"Location: {target}")(head, writer)

        async with serving(answer) as (port, _):
            outside.answers["api.example.com"] = [["127.0.0.1"]]
            host = f"api.example.com:{port}"
            # The operator allows this one address, and it sends the guest on to where nobody allowed.
            manifest = going_to(host, "inner.example.com", host_calls=100)
            async with doors(http_private_allow=host) as door:
                for number in range(len(targets)):
                    found = await send(door, manifest, wish(f"http://{host}/{number}"))
                    assert found in ("!denied", "!invalid"), targets[number]
            assert set(outside.tried) == {("127.0.0.1", port)}
            assert victims == []


async def test_redirects_end(doors: Opener, outside: Outside) -> None:
    async with serving(replying("302 Found", b"", "Location: /again")) as (port, heads):
        outside.answers["api.example.com"] = [["127.0.0.1"]]
        host = f"api.example.com:{port}"
        async with doors(http_private_allow=host) as door:
            assert await send(door, going_to(host), wish(f"http://{host}/")) == "!denied"
        assert len(heads) == 6


ODD = [
    "http://api.example.com@127.0.0.1/", "https://127.0.0.1/", "https://[::1]/", "https://localhost/", "https:///",
    "https://api.example.com.evil.example/", "https://evil.example/#@api.example.com", "https://api.example.com\\@evil/",
    "https://api.example.com:22/", "ftp://api.example.com/", "https://api.example.com%00.evil.example/", "https://",
    "not a url", "", "https://" + "a" * 5_000, "https://api.example.com:99999/", "https://\u0430pi.example.com/",
]  # fmt: skip


@pytest.mark.parametrize("url", ODD)
async def test_addresses_that_read_like_an_allowed_one_are_refused(door: Door, outside: Outside, url: str) -> None:
    outside.answers["api.example.com"] = [[PUBLIC]]
    assert await send(door, going_to("api.example.com"), wish(url)) in ("!denied", "!invalid")
    assert outside.tried == []


# ---------------------------------------------------------------------------------- headers

FORGED = [
    ("x-guest", "yes\r\nX-Admin: true"), ("x-guest", "yes\nX-Admin: true"), ("x-guest", "yes\r\n\r\nGET /other"),
    ("x-guest\r\nX-Admin", "true"), ("x-guest: yes\r\nX-Admin", "true"), ("x guest", "yes"), ("", "yes"),
    ("x-guest", "yes\0"), ("x-gu\u00e9st", "yes"), ("x-guest", "\u2028yes"), ("x-guest", "y" * 20_000),
    ("Host", "inner.example.com"), ("hOsT", "inner.example.com"), ("Content-Length", "0"),
    ("Transfer-Encoding", "chunked"),
    ("Connection", "upgrade"), ("Proxy-Authorization", "Basic x"), ("X-Forwarded-For", "127.0.0.1"), ("Expect", "100"),
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET\r\nX: y", "get", "CONNECT", "TRACE", "GET /other HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_a_method_that_nobody_allowed_is_refused(door: Door, outside: Outside, method: str) -> None:
    outside.answers["api.example.com"] = [[PUBLIC]]
    manifest = going_to("api.example.com")
    assert await send(door, manifest, wish("https://api.example.com/", method=method)) in ("!denied", "!invalid")
    assert outside.tried == []


async def test_no_header_can_be_forged_or_smuggled(doors: Opener, outside: Outside) -> None:
    async with serving(replying(body=b"fine")) as (port, heads):
        outside.answers["api.example.com"] = [["127.0.0.1"]]
        host = f"api.example.com:{port}"
        manifest = going_to(host)
        async with doors(http_private_allow=host) as door:
            for name, value in FORGED:
                found = await send(door, manifest, wish(f"http://{host}/", name, value))
                assert found in ("!invalid", "!denied"), (name, value[:40])
            assert heads == []
            assert await send(door, manifest, wish(f"http://{host}/")) == "fine"
            assert await send(door, manifest, wish(f"http://{host}/a b\r\nX-Admin: true")) in ("fine", "!invalid")
        assert all(b"X-Admin" not in head.split(b"\r\n", 1)[1] for head in heads)
        assert b"x-guest: yes" in heads[0]


# ---------------------------------------------------------------------------------- answers


async def _bomb(doors: Opener, outside: Outside, body: bytes, *headers: str) -> str:
    async with serving(replying("200 OK", body, *headers)) as (port, _):
        outside.answers["api.example.com"] = [["127.0.0.1"]]
        host = f"api.example.com:{port}"
        async with doors(http_private_allow=host) as door:
            found = await send(door, going_to(host, http_kb=256), wish(f"http://{host}/"))
            await door.serves()
            return found


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_decompression_bomb_costs_what_is_allowed_and_no_more(
    doors: Opener, outside: Outside, coding: str
) -> None:
    data = bytes(256 << 20)
    body = gzip.compress(data, 9) if coding == "gzip" else zlib.compress(data, 9)
    assert len(body) < 300_000
    assert (await _bomb(doors, outside, body, f"Content-Encoding: {coding}")).startswith("!limit")


async def test_codings_that_were_not_asked_for_are_not_decoded(doors: Opener, outside: Outside) -> None:
    twice = gzip.compress(gzip.compress(bytes(1 << 20)))
    assert await _bomb(doors, outside, twice, "Content-Encoding: gzip, gzip") == "!unavailable"


async def test_an_answer_larger_than_allowed_is_cut_off(doors: Opener, outside: Outside) -> None:
    assert (await _bomb(doors, outside, b"x" * (1 << 20))).startswith("!limit")


async def test_headers_without_end_are_cut_off(doors: Opener, outside: Outside) -> None:
    found = await _bomb(doors, outside, b"", *(f"x-{n}: {'y' * 4_000}" for n in range(2_000)))
    assert found.startswith("!")


@pytest.mark.parametrize(
    "junk", [b"", b"\0\0\0\0\r\n\r\n", b"HTTP/1.1 999999 X\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"]
)
async def test_an_answer_that_is_not_http_is_a_failure_like_another(
    doors: Opener, outside: Outside, junk: bytes
) -> None:
    async def answer(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(junk)

    async with serving(answer) as (port, _):
        outside.answers["api.example.com"] = [["127.0.0.1"]]
        host = f"api.example.com:{port}"
        async with doors(http_private_allow=host) as door:
            assert await send(door, going_to(host), wish(f"http://{host}/")) == "!unavailable"


async def test_an_answer_that_drips_ends_with_the_calls_time(doors: Opener, outside: Outside) -> None:
    ended = asyncio.Event()

    async def drip(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        try:
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    async with serving(drip) as (port, _):
        outside.answers["api.example.com"] = [["127.0.0.1"]]
        host = f"api.example.com:{port}"
        async with doors(http_private_allow=host) as door:
            # Whether the guest still has a moment to say so or is interrupted first, nobody waits longer.
            try:
                assert await send(door, going_to(host, time_ms=300), wish(f"http://{host}/")) == "!deadline"
            except GuestFailure as error:
                assert error.code == "guest-time-limit"  # noqa: PT017
            async with asyncio.timeout(60):
                await ended.wait()
            await door.serves()
