"""Fetching an issuer's public documents: https only, within bounds, and from nowhere that the operator did not mean."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from kernel.errors import BackendUnavailable

MAX_BYTES = 256 * 1024
DEADLINE_SECONDS = 10.0
"""For everything about one document: names, connection, headers and body."""
Resolve = Callable[[str, int], Awaitable[list[str]]]


def is_open(address: str) -> bool:
    """Whether an address is one of the open internet's. IPv4 inside IPv6 is refused whatever it carries."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if ip.is_multicast or ip.is_reserved or ip.is_unspecified or not ip.is_global:
        return False
    return isinstance(ip, ipaddress.IPv4Address) or not (
        ip.scope_id or ip.ipv4_mapped or ip.sixtofour or ip.teredo or ip in _NAT64
    )


_NAT64 = ipaddress.IPv6Network("64:ff9b::/32")


async def resolve(host: str, port: int) -> list[str]:
    """The system's answer. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


async def fetch_json(
    url: str,
    *,
    private: bool = False,
    trust: ssl.SSLContext | None = None,
    resolve: Resolve = resolve,
    deadline: float = DEADLINE_SECONDS,
) -> Any:
    """The JSON document at ``url``. ``private`` allows addresses of one's own network; ``trust`` has other
    authorities than the usual ones. Follows no redirect and knows no proxy. Raises BackendUnavailable.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise _failed(url, f"it is no address: {error}") from error
    if parsed.scheme != "https" or not parsed.host or parsed.userinfo:
        raise _failed(url, "it is no https address")
    try:
        async with asyncio.timeout(deadline):
            return json.loads(await _read(parsed, private, trust, resolve))
    except TimeoutError as error:
        raise _failed(url, f"it did not answer within {deadline:g} seconds") from error
    except (OSError, httpx.HTTPError) as error:
        raise _failed(url, f"{type(error).__name__}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise _failed(url, "what it sends is no JSON") from error


async def _read(url: httpx.URL, private: bool, trust: ssl.SSLContext | None, resolve: Resolve) -> bytes:
    addresses = await resolve(url.host, url.port or 443)
    refused = [address for address in addresses if not (private or is_open(address))]
    if refused or not addresses:
        raise _failed(str(url), f"its address is not one of the open internet: {', '.join(refused) or 'none'}")
    # The address that was looked at is the one that is used: a name may have another one a moment later.
    pinned = url.copy_with(host=sorted(addresses, key=lambda each: ":" in each)[0])
    headers = {"Host": url.netloc.decode(), "Accept": "application/json", "Accept-Encoding": "identity"}
    named = {"sni_hostname": url.host}
    body = bytearray()
    async with (
        httpx.AsyncClient(verify=trust or True, trust_env=False, follow_redirects=False) as client,
        client.stream("GET", pinned, headers=headers, extensions=named) as response,
    ):
        if response.status_code != 200:
            raise _failed(str(url), f"it answered with status {response.status_code}")
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_BYTES:
                raise _failed(str(url), f"it sends more than {MAX_BYTES:,} bytes")
    return bytes(body)


def _failed(url: str, why: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"The issuer's document {url[:200]} was not fetched: {why}.",
        fix="Try again; or ask the marketplace's operator.",
    )
