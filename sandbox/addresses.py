"""Which network addresses a guest may reach: public ones, checked after resolving, used as checked."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable

Resolver = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of (host, port), as text."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
_TRANSLATED = ipaddress.IPv6Network("::ffff:0:0:0/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet's.

    Private, loopback, link-local, carrier-grade NAT, multicast, reserved and documentation ranges
    are not, whether written in IPv4, in IPv6, or as IPv4 carried inside IPv6 (mapped, compatible,
    NAT64, 6to4, Teredo).
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return _is_public_v4(ip)
    if ip.scope_id or ip.is_multicast or ip.is_site_local or not ip.is_global or ip in _NAT64_LOCAL:
        return ip.ipv4_mapped is not None and not ip.scope_id and _is_public_v4(ip.ipv4_mapped)
    carried = ip.ipv4_mapped or ip.sixtofour
    if ip.teredo is not None:
        return False
    if ip in _NAT64 or ip in _TRANSLATED or ip in _COMPATIBLE:
        carried = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return carried is None or _is_public_v4(carried)


def _is_public_v4(ip: ipaddress.IPv4Address) -> bool:
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


async def resolve(host: str, port: int) -> list[str]:
    """The system's answer. Raises OSError if there is none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
