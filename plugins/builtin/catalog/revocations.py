"""Carries out what the marketplace revokes: a release that runs here is quarantined within seconds, everywhere.

One connection waits for news; what counts is the verified list. Quarantining tells every process over the bus.
The marketplace hears that it was done, so that its operator can say how far a revocation has come.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

from plugin_sdk import PLATFORM_TENANT, Background, Context, KeelstoneError, ReleaseState, system_context
from plugin_sdk.services import Marketplace, Revocation
from plugins.builtin.catalog.domain import Release

logger = logging.getLogger(__name__)
FIRST_REST, LONGEST_REST = 1.0, 60.0
"""Seconds before a marketplace that does not answer is asked again, doubling."""
Quarantine = Callable[[Context, str, str, str], Awaitable[object]]
Installed = Callable[[], Awaitable[list[Release]]]


class RevocationKeeper:
    """Follows one marketplace's revocations. ``host`` names this platform in what it reports; None: nothing is."""

    def __init__(
        self,
        marketplace: Callable[[], Marketplace],
        installed: Installed,
        quarantine: Quarantine,
        host: Callable[[], str] | None,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._marketplace, self._installed, self._quarantine = marketplace, installed, quarantine
        self._host, self._now = host, now
        self._told: set[str] = set()
        self._background = Background(self._run, "revocations")

    def start(self) -> None:
        """Begin: what was revoked while nobody looked is carried out first."""
        self._background.start()

    async def stop(self) -> None:
        """Stop waiting."""
        await self._background.stop()

    async def _run(self) -> None:
        rest, promised = FIRST_REST, 0
        while True:
            try:
                known = await self.carry_out()
                if known >= promised:
                    rest, promised = FIRST_REST, await self._marketplace().await_revocations(known)
                    continue
                # Who only speaks of news must not keep everybody busy.
                logger.warning("the marketplace speaks of %d revocations, and its signed list has %d", promised, known)
            except KeelstoneError as error:
                logger.warning("revocations can't be followed (tried again in %.0f s): %s", rest, error)
            except Exception:
                logger.exception("a revocation could not be carried out; tried again in %.0f s", rest)
            await asyncio.sleep(rest)
            rest = min(rest * 2, LONGEST_REST)

    async def carry_out(self) -> int:
        """Quarantine what is revoked and runs here; how many releases are revoked.

        Raises VerificationFailed, BackendUnavailable, or what quarantining raises.
        """
        revoked = await self._marketplace().revocations()
        # All of them each time: an install may have been under way when one of them was new.
        here = {release.digest: release for release in await self._installed()} if revoked else {}
        for each in revoked:
            release = here.get(each.digest)
            if release is not None and release.state is ReleaseState.INSTALLED:
                reason = f"revoked by the marketplace: {each.reason}"
                version = release.manifest.version
                await self._quarantine(system_context(PLATFORM_TENANT), release.manifest.id, version, reason)
            if self._host is not None and each.digest not in self._told:
                await self._tell(self._host(), each, release)
                self._told.add(each.digest)
        return len(revoked)

    async def _tell(self, host: str, revoked: Revocation, release: Release | None) -> None:
        took = max(self._now() - datetime.fromisoformat(revoked.at).timestamp(), 0.0)
        # Nothing depends on it, so a marketplace that can't take it down now goes without.
        with contextlib.suppress(KeelstoneError):
            had = release is not None and release.state is not ReleaseState.UNINSTALLED
            await self._marketplace().report_reach(revoked.digest, host, had, took)
