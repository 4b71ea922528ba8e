"""Measures upgrades in this process, shares the figures with the others, and acts on what all of them say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from plugin_sdk import (
    ALL_TENANTS,
    PLATFORM_TENANT,
    Background,
    Conflict,
    KeelstoneError,
    LifecycleError,
    NotFound,
    new_id,
    system_context,
)
from plugin_sdk.services import BreakerControl, BreakerRecord, Database, GuestCall
from plugins.builtin.catalog.application import utc_now
from plugins.builtin.catalog.policy.domain import PolicyBlocked
from plugins.builtin.catalog.upgrades.application import Upgrades
from plugins.builtin.catalog.upgrades.comparison import Report, Result, micros_of
from plugins.builtin.catalog.upgrades.domain import Upgrade, UpgradeState
from plugins.builtin.catalog.upgrades.figures import Arm, verdict
from plugins.builtin.catalog.upgrades.ports import UpgradeRepository
from plugins.builtin.catalog.upgrades.reporting import NEW, OLD, SHADOW

logger = logging.getLogger(__name__)
TOO_LARGE = 413
Key = tuple[str, str, str]


class Monitor:
    """Counts calls by (upgrade, tenant, arm). Every ``interval`` seconds: figures are stored, the verdict is
    asked, an automatic rollback or promotion done. Every ``round`` seconds tenants are brought where they belong."""

    def __init__(
        self,
        database: Database,
        repository: UpgradeRepository,
        upgrades: Upgrades,
        breakers: BreakerControl,
        *,
        interval: float = 2.0,
        round: float = 30.0,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._repository = repository
        self._upgrades = upgrades
        self._breakers = breakers
        self._interval = interval
        self._round = round
        self._now = now
        self._instance = new_id()
        self._canaries: dict[str, list[Upgrade]] = {}
        self._figures: dict[Key, Arm | Report] = {}
        self._unsaved: set[Key] = set()
        self._wake = asyncio.Event()
        self._background = Background(self._run, "upgrades-monitor")
        self._next_round = 0.0
        self._opened: dict[str, BreakerRecord] = {}
        upgrades.changed = self._changed
        breakers.watch(self._breaker)

    # ------------------------------------------------------------------ on the request path

    def note(self, call: GuestCall, result: Result) -> None:
        """Count a call of a plugin with a canary, for the version that answered it."""
        for upgrade in self._canaries.get(call.plugin, ()):
            if not upgrade.for_all and upgrade.owner != call.context.tenant:
                continue
            # What is about the payload is the caller's to mend, and says nothing about the version.
            if isinstance(result, KeelstoneError) and result.status == TOO_LARGE:
                continue
            key = (upgrade.id, call.context.tenant, NEW if call.version == upgrade.version else OLD)
            arm = self._figures.setdefault(key, Arm())
            if isinstance(arm, Arm):
                arm.note(micros_of(result), isinstance(result, KeelstoneError))
                self._unsaved.add(key)

    def _changed(self, upgrade: Upgrade) -> None:
        others = [u for u in self._canaries.get(upgrade.plugin, ()) if u.id != upgrade.id]
        counted = upgrade.mode == "canary" and upgrade.state is UpgradeState.RUNNING
        self._canaries = {**self._canaries, upgrade.plugin: [*others, upgrade] if counted else others}
        self._wake.set()

    def heard(self, tenant: str, data: object) -> None:
        """An upgrade began, in whatever process: look at once, so that its first calls here count too."""
        self._wake.set()

    def _breaker(self, record: BreakerRecord) -> None:
        """A breaker of a new version that opens is cause enough: calls no longer reach it to be counted."""
        for upgrade in self._canaries.get(record.plugin, ()):
            if record.state == "open" and record.version == upgrade.version:
                self._opened[upgrade.id] = record
                self._wake.set()

    def compared(self, upgrade: str, call: GuestCall, old: Result, new: Result | None) -> None:
        """Add a mirrored call to its tenant's report; ``new`` is None if there was no room to run it."""
        key = (upgrade, call.context.tenant, SHADOW)
        found = self._figures.setdefault(key, Report())
        if isinstance(found, Report):
            if new is None:
                found.skipped += 1
            else:
                found.note(call, old, new)
            self._unsaved.add(key)

    # ------------------------------------------------------------------ beside it

    def start(self) -> None:
        """Begin."""
        self._background.start()

    async def stop(self) -> None:
        """Stop, and store what was measured."""
        await self._background.stop()
        await self.flush()

    async def _run(self) -> None:
        while True:
            try:
                await self.tick()
            except Exception:
                # Whatever it is, a canary must not be left without anybody who watches it.
                logger.exception("upgrades could not be looked at; they are again in a moment")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._interval)
            self._wake.clear()

    async def tick(self) -> None:
        """One look at everything."""
        known = self._canaries
        found = await self._upgrades.open()
        # What began while it was read is known better than by what was read.
        if self._canaries is known:
            self._watch(found)
        await self.flush()
        for upgrade in found:
            try:
                await self._look(upgrade)
            except KeelstoneError:
                logger.exception("the upgrade of %s could not be looked at", upgrade.plugin)
        if time.monotonic() >= self._next_round:
            self._next_round = time.monotonic() + self._round
            await self.round(found)

    def _watch(self, found: list[Upgrade]) -> None:
        canaries: dict[str, list[Upgrade]] = {}
        for upgrade in found:
            if upgrade.mode == "canary" and upgrade.state is UpgradeState.RUNNING:
                canaries.setdefault(upgrade.plugin, []).append(upgrade)
        self._canaries = canaries
        self._opened = {id: record for id, record in self._opened.items() if id in {u.id for u in found}}
        open_ids = {u.id for u in found}
        for key in [k for k in self._figures if k[0] not in open_ids and k not in self._unsaved]:
            del self._figures[key]

    async def flush(self) -> None:
        """Store what this process has measured. What can't be stored now is kept for the next time."""
        for key in tuple(self._unsaved):
            # What is counted from now on is for the next time.
            self._unsaved.discard(key)
            upgrade, tenant, arm = key
            try:
                async with self._database.write(tenant, system_context(tenant)) as transaction:
                    data = self._figures[key].plain()
                    await self._repository.put_figures(transaction, upgrade, self._instance, arm, data)
            except KeelstoneError:
                logger.exception("figures of an upgrade could not be stored", extra={"tenant": tenant})
                self._unsaved.add(key)
            except BaseException:
                self._unsaved.add(key)
                raise

    async def round(self, found: list[Upgrade] | None = None) -> None:
        """Bring tenants where they belong: windows that opened, tenants that are new, processes that stopped
        half-way."""
        found = await self._upgrades.open() if found is None else found
        context = system_context(PLATFORM_TENANT)
        for upgrade in found:
            try:
                current = await self._upgrades.get(upgrade.id, upgrade.owner)
                await self._upgrades.reconcile(context, current)
            except (NotFound, Conflict) as error:
                logger.warning("an upgrade of %s can't go on: %s", upgrade.plugin, error)
        await self._upgrades.end_strays(context, {u.id for u in found})

    async def _look(self, upgrade: Upgrade) -> None:
        if upgrade.mode != "canary" or upgrade.state is not UpgradeState.RUNNING:
            return
        opened = self._opened.get(upgrade.id)
        reason = self._resting(upgrade)
        try:
            if reason is not None:
                # The calls that opened it came after the last flush.
                await self.flush()
            async with self._database.read(ALL_TENANTS if upgrade.for_all else upgrade.owner) as transaction:
                measured = await self._repository.figures(transaction, upgrade.id)
        except BaseException:
            if opened is not None:
                self._opened.setdefault(upgrade.id, opened)
            raise
        totals = {OLD: Arm(), NEW: Arm()}
        for _, arm, data in measured:
            totals[arm] = totals[arm] + Arm.of(data)
        canary = totals[NEW] - Arm.of(upgrade.looked.get(NEW, {}))
        if reason is None:
            if canary.calls < upgrade.thresholds.min_calls:
                return
            # Each look judges calls that no look before it has judged, beside all that the stable version did.
            reason = verdict(canary, totals[OLD], upgrade.thresholds)
        context = system_context(upgrade.owner)
        figures: dict[str, Any] = {NEW: canary.summary(), OLD: totals[OLD].summary()}
        try:
            if reason is not None:
                logger.warning("upgrade of %s to %s goes back: %s", upgrade.plugin, upgrade.version, reason)
                await self._upgrades.roll_back(context, upgrade, reason, figures)
                return
            looked = {name: arm.plain() for name, arm in totals.items()}
            judged = replace(upgrade, looked=looked)
            async with self._database.write(upgrade.owner, context) as transaction:
                saved = await self._repository.save(transaction, judged)
            minutes = upgrade.thresholds.promote_after_minutes
            if saved and minutes and self._now() - upgrade.started_at >= timedelta(minutes=minutes):
                judged = replace(judged, looks=judged.looks + 1)
                try:
                    await self._upgrades.promote(context, judged, f"{minutes:g} minutes without cause to go back")
                except PolicyBlocked as error:
                    await self._upgrades.roll_back(context, judged, error.detail, figures)
        except (Conflict, LifecycleError):
            # Another process, or a person, was first.
            return

    def _resting(self, upgrade: Upgrade) -> str | None:
        opened = self._opened.pop(upgrade.id, None)
        if opened is None:
            return None
        both = [r for r in self._breakers.states(plugin=upgrade.plugin) if r.state == "open"]
        if any(r.version != upgrade.version for r in both):
            # The stable version fails too: whatever it is, the upgrade is not the cause.
            return None
        return (
            f"{opened.failures} calls of the new version in a row failed {opened.hook} for {opened.tenant}, "
            f"so its breaker opened: {opened.error}"
        )
