"""The operator's page of affected releases: those with weak parts, and the advisories that platforms are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from marketplace.registry.parts import AffectedRelease
from marketplace.storefront.gate import private
from marketplace.storefront.rendering import Renderer

if TYPE_CHECKING:
    from marketplace.registry import Registry
    from marketplace.registry.reader import RegistryReader

SHOWN = 200
"""Releases on the page; the gravest come first, and the command line has them all."""


@dataclass(frozen=True, slots=True)
class WeakRelease:
    """A release with all its weak parts. ``ended``: it was revoked, so no platform runs it."""

    plugin: str
    version: str
    parts: tuple[AffectedRelease, ...]
    ended: bool

    @property
    def malicious(self) -> bool:
        """Whether one of its parts is an attack."""
        return any(each.weakness.malicious for each in self.parts)


def add_weakness_page(
    router: APIRouter,
    registry: Registry,
    renderer: Renderer,
    admitted: Callable[[Request], Awaitable[None]],
    most: int = SHOWN,
) -> None:
    """Add it below the operator's pages; it shows ``most`` releases."""

    @router.get("/affected")
    async def affected(request: Request) -> Response:
        await admitted(request)
        values = await asyncio.to_thread(_found, registry.reader, most)
        return private(renderer.page(request, "desk_affected.html", **values))


def _found(reader: RegistryReader, most: int) -> Mapping[str, Any]:
    revoked = {each.revocation.digest for each in reader.state.revoked()}
    by_release: dict[str, list[AffectedRelease]] = {}
    for each in reader.parts.affected():
        by_release.setdefault(each.digest, []).append(each)
    releases = [
        WeakRelease(parts[0].plugin, parts[0].version, tuple(parts), digest in revoked)
        for digest, parts in by_release.items()
    ]
    # The gravest first, as they came; what is ended already needs nobody any more.
    releases.sort(key=lambda each: each.ended)
    return {
        "state": reader.parts.index.state(),
        "releases": releases[:most],
        "total": len(releases),
        "advisories": [each for each in reader.advisories.all() if each.withdrawn is None],
    }
