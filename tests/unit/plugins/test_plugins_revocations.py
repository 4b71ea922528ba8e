"""What the marketplace revokes is carried out, told once, and never makes a platform spin."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from plugin_sdk import ReleaseState
from plugin_sdk.services import Revocation
from plugins.builtin.catalog.domain import Release
from plugins.builtin.catalog.revocations import RevocationKeeper
from tests.benchmarks.guests import manifest

REVOKED = Revocation("d" * 64, "acme/guard", "1.0.0", "It misbehaves.", "2026-01-01T00:00:00.000Z")
MADE = 1_767_225_600.0


class Market:
    """A marketplace that lists what it is told to, and says that there is more."""

    def __init__(self, *revoked: Revocation, promises: int = 0) -> None:
        self.revoked, self.promises = revoked, promises
        self.asked, self.first = 0, asyncio.Event()
        self.told: list[tuple[str, str, bool, float]] = []

    async def revocations(self) -> tuple[Revocation, ...]:
        return self.revoked

    async def await_revocations(self, known: int) -> int:
        self.asked += 1
        self.first.set()
        await asyncio.sleep(0)
        if self.promises:
            return self.promises
        return await asyncio.get_running_loop().create_future()

    async def report_reach(self, digest: str, host: str, installed: bool, seconds: float) -> None:
        self.told.append((digest, host, installed, seconds))


def release(state: ReleaseState, digest: str = REVOKED.digest) -> Release:
    return Release(manifest("wrap"), digest, "c" * 64, state)


def keeper(market: Market, *releases: Release, reports: bool = True) -> tuple[RevocationKeeper, list[tuple[str, str]]]:
    done: list[tuple[str, str]] = []

    async def installed() -> list[Release]:
        return list(releases)

    async def quarantine(context: object, plugin: str, version: str, reason: str) -> None:
        done.append((plugin, reason))

    host = (lambda: "platform-1") if reports else None
    return RevocationKeeper(lambda: market, installed, quarantine, host, now=lambda: MADE + 2.5), done  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("state", "quarantined", "had"),
    [
        (ReleaseState.INSTALLED, True, True),
        (ReleaseState.QUARANTINED, False, True),
        (ReleaseState.UNINSTALLED, False, False),
    ],
)
async def test_what_runs_is_quarantined_and_each_revocation_told_once(
    state: ReleaseState, quarantined: bool, had: bool
) -> None:
    market = Market(REVOKED)
    keeping, done = keeper(market, release(state), release(ReleaseState.INSTALLED, "e" * 64))
    for _ in range(2):
        assert await keeping.carry_out() == 1
    plugin, reason = manifest("wrap").id, "revoked by the marketplace: It misbehaves."
    assert set(done) == ({(plugin, reason)} if quarantined else set())
    assert market.told == [(REVOKED.digest, "platform-1", had, 2.5)]


async def test_who_does_not_want_to_tell_does_not() -> None:
    market = Market(REVOKED, replace(REVOKED, digest="e" * 64))
    keeping, _ = keeper(market, reports=False)
    assert await keeping.carry_out() == 2
    assert market.told == []


async def test_a_marketplace_that_only_speaks_of_news_keeps_nobody_busy() -> None:
    market = Market(REVOKED, promises=999)
    keeping, _ = keeper(market)
    keeping.start()
    await market.first.wait()
    await asyncio.sleep(0.2)
    await keeping.stop()
    assert market.asked == 1
