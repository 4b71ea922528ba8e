"""Who may see the operator's pages. Denied unless all of it holds: the request comes from this machine and names it,
nobody forwarded it, and it has a session that a link from ``keelstone marketplace pages`` was exchanged for.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from fastapi import Request
from fastapi.responses import Response

from marketplace.errors import DeskClosed
from marketplace.storefront.rendering import HEADERS

if TYPE_CHECKING:
    from marketplace.registry import Registry

COOKIE = "keelstone-desk"
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


def gate(registry: Registry) -> Callable[[Request], Awaitable[None]]:
    """What each page asks first. It raises DeskClosed."""

    async def admitted(request: Request) -> None:
        check_local(request)
        session = request.cookies.get(COOKIE, "")
        if not session or not await asyncio.to_thread(registry.reader.access.holds, session, registry.now()):
            raise DeskClosed(
                "These pages are for the marketplace's operator.",
                fix="On the marketplace's machine, `keelstone marketplace pages` prints a link that lets you in.",
            )

    return admitted


def check_local(request: Request) -> None:
    """Raise DeskClosed unless the request comes straight from this machine, by one of its own names."""
    host = request.client.host if request.client else ""
    named = (request.url.hostname or "").strip("[]")
    forwarded = [name for name in _FORWARDED if name in request.headers]
    # A stranger's name that leads here would make the browser a door from outside (DNS rebinding).
    if not _is_here(host) or not (named == "localhost" or _is_here(named)) or forwarded:
        raise DeskClosed(
            "The operator's pages open on the marketplace's own machine only.",
            expected="a request from this machine, to 127.0.0.1, [::1] or localhost, that no proxy forwarded",
            found=f"from {host or 'nowhere'} to {named or 'nowhere'}{', forwarded' if forwarded else ''}",
            fix="From elsewhere, tunnel to it: ssh -L.",
        )


def check_same_site(request: Request) -> None:
    """Raise DeskClosed for a form that another site's page sent."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    strange = site not in (None, "same-origin", "none") or (
        origin is not None and origin != f"{request.url.scheme}://{request.url.netloc}"
    )
    if strange:
        raise DeskClosed("This form was not sent from the operator's pages.", found=origin or site)


def _is_here(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def private(answer: Response) -> Response:
    """An answer that no cache keeps."""
    answer.headers.update({**HEADERS, "Cache-Control": "no-store"})
    return answer
