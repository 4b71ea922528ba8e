"""Degraded, recovered, quarantined: what breakers say becomes the state of activations and releases.

An activation is degraded while a breaker of its version is open for the tenant, and is active again
once none is. A release is quarantined by an operator, or by the operator's rule: when it is degraded
for so many tenants within so many minutes (settings ``quarantine_tenants``, ``quarantine_minutes``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from plugin_sdk import (
    ALL_TENANTS,
    PLATFORM_TENANT,
    ActivationState,
    Background,
    Context,
    KeelstoneError,
    NewEvent,
    NotFound,
    ReleaseState,
    next_activation_state,
    next_release_state,
    parse_version,
    system_context,
)
from plugin_sdk.services import ActivationControl, BreakerControl, BreakerRecord, BreakerStore, Database, Transaction
from plugins.builtin.catalog.application import CatalogRepository, utc_now
from plugins.builtin.catalog.domain import Activation, Release

logger = logging.getLogger(__name__)
Install = Callable[[Context, str, str], Awaitable[list[Release]]]


@dataclass(frozen=True, slots=True)
class Rule:
    """When a release is quarantined by itself: ``tenants`` within ``minutes``; 0 tenants: never."""

    tenants: int = 0
    minutes: int = 10


@dataclass(frozen=True, slots=True)
class Health:
    """How one plugin fares for one tenant."""

    tenant: str
    plugin: str
    version: str
    state: str
    breakers: tuple[BreakerRecord, ...] = ()


class HealthKeeper:
    """Follows the breakers of this process; what other processes know is read from the store."""

    def __init__(
        self,
        database: Database,
        repository: CatalogRepository,
        control: ActivationControl,
        breakers: BreakerControl,
        store: BreakerStore,
        install: Install,
        rule: Rule,
        *,
        now: Callable[[], datetime] = utc_now,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._repository = repository
        self._control = control
        self._breakers = breakers
        self._store = store
        self._install = install
        self._rule = rule
        self._now = now
        self._wall = wall
        self._waiting: deque[BreakerRecord] = deque()
        self._news = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._background = Background(self._run, "plugin-health")
        breakers.watch(self._note)
        control.listen("plugin.reset", self._heard_of_reset)

    def _note(self, record: BreakerRecord) -> None:
        if record.state != "half_open":
            self._waiting.append(record)
            self._news.set()

    def _heard_of_reset(self, tenant: str, data: Mapping[str, Any]) -> None:
        self._breakers.reset(tenant, str(data.get("plugin")))

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Follow the breakers from now on."""
        self._background.start()

    async def stop(self) -> None:
        """Stop, and carry out what has been noted."""
        await self._background.stop()
        with contextlib.suppress(KeelstoneError):
            await self.settle()

    async def _run(self) -> None:
        with contextlib.suppress(KeelstoneError):
            await self._reconcile()
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self.settle()
            except KeelstoneError as error:
                logger.warning("the health of a plugin could not be noted (tried again): %s", error)
                await asyncio.sleep(1.0)
                self._news.set()
            except Exception:
                logger.exception("the health of a plugin could not be noted")

    async def settle(self) -> None:
        """Carry out what has been noted so far."""
        async with self._one_at_a_time:
            while self._waiting:
                record = self._waiting[0]
                await self._follow(record)
                self._waiting.popleft()
                if record.state == "open":
                    await self._judge(record)

    async def _reconcile(self) -> None:
        """After a start: who is degraded without an open breaker (it was forgotten) is active again."""
        known = {(r.tenant, r.plugin, r.version) for r in [*await self._store.load(), *self._breakers.states()]}
        async with self._database.read(ALL_TENANTS) as transaction:
            found = await self._repository.all_activations(transaction)
        for tenant, activation in found:
            missing = (tenant, activation.plugin, activation.version) not in known
            if activation.state is ActivationState.DEGRADED and missing:
                await self._follow(BreakerRecord(activation.plugin, activation.version, tenant, "", "closed"))

    # ------------------------------------------------------------------ tenants

    async def _follow(self, record: BreakerRecord) -> None:
        async with self._database.write(record.tenant, system_context(record.tenant)) as transaction:
            present = await self._repository.activation(transaction, record.plugin)
            if present is None or present.version != record.version:
                return
            if record.state == "open" and present.state is ActivationState.ACTIVE:
                data = {
                    "plugin": record.plugin,
                    "version": record.version,
                    "hook": record.hook,
                    "failures": record.failures,
                    "error": record.error,
                    "until": datetime.fromtimestamp(record.until, UTC).isoformat(),
                }
                await self._change(transaction, present, "degrade", NewEvent("plugin.degraded", data))
            elif record.state == "closed" and present.state is ActivationState.DEGRADED:
                if await self._still_open(record):
                    return
                seconds = max(0, round(self._wall() - record.since)) if record.since else 0
                data = {
                    "plugin": record.plugin,
                    "version": record.version,
                    "hook": record.hook,
                    "seconds": seconds,
                }
                await self._change(transaction, present, "activate", NewEvent("plugin.recovered", data))

    async def _still_open(self, record: BreakerRecord) -> bool:
        """Whether another breaker of the same activation is open, here or in another process."""
        mine = (record.tenant, record.plugin, record.version)
        known = {(r.tenant, r.plugin, r.version, r.hook): r for r in await self._store.load()}
        known |= {(r.tenant, r.plugin, r.version, r.hook): r for r in self._breakers.states()}
        known.pop((*mine, record.hook), None)
        return any(key[:3] == mine and r.state != "closed" for key, r in known.items())

    async def _change(self, transaction: Transaction, present: Activation, step: str, event: NewEvent) -> None:
        state = next_activation_state(present.state, step, plugin=present.plugin, tenant=transaction.scope)
        after = replace(present, state=state, changed_at=self._now(), changed_by="system")
        await self._repository.put_activation(transaction, after)
        transaction.emit(f"activation:{present.plugin}", event)

    # ------------------------------------------------------------------ the platform

    async def _judge(self, record: BreakerRecord) -> None:
        if not self._rule.tenants:
            return
        since = self._wall() - self._rule.minutes * 60
        open_ones = [*await self._store.load(), *self._breakers.states(plugin=record.plugin)]
        failing = {
            r.tenant
            for r in open_ones
            if (r.plugin, r.version) == (record.plugin, record.version) and r.state != "closed" and r.since >= since
        }
        if len(failing) < self._rule.tenants:
            return
        reason = (
            f"its breakers opened for {len(failing)} tenants within {self._rule.minutes} minutes "
            f"(the operator's rule: {self._rule.tenants}); last error: {record.error}"
        )
        with contextlib.suppress(NotFound):
            await self.quarantine(system_context(PLATFORM_TENANT), record.plugin, record.version, reason)

    async def quarantine(self, context: Context, plugin: str, version: str, reason: str) -> Release:
        """Withdraw a release: no call reaches it from now on, in any process, and its hooks fail by their
        policy. Raises NotFound, LifecycleError."""
        async with self._database.write(ALL_TENANTS, context) as transaction:
            release = await self._release(transaction, plugin, version)
            if release.state is ReleaseState.QUARANTINED:
                return release
            state = next_release_state(release.state, "quarantine", plugin=plugin)
            after = replace(release, state=state)
            await self._repository.put_release(transaction, after)
            data = {"plugin": plugin, "version": release.manifest.version, "reason": reason[:500]}
            transaction.emit(f"release:{plugin}", NewEvent("plugin.quarantined", data), tenant=PLATFORM_TENANT)
            for tenant, activation in await self._repository.all_activations(transaction, plugin):
                if activation.running and activation.version == release.manifest.version:
                    transaction.emit(f"activation:{plugin}", NewEvent("plugin.quarantined", data), tenant=tenant)
        logger.warning("%s %s is quarantined: %s", plugin, version, reason)
        await self._control.reload(plugin, release.manifest.version)
        return after

    async def release(self, context: Context, plugin: str, version: str) -> Release:
        """Let a quarantined release back in: it is verified, checked by policy and installed anew.

        Raises NotFound, LifecycleError (it is not quarantined), and what an install raises.
        """
        async with self._database.write(ALL_TENANTS, context) as transaction:
            held = await self._release(transaction, plugin, version)
            back = replace(held, state=next_release_state(held.state, "release", plugin=plugin))
            await self._repository.put_release(transaction, back)
        try:
            installed = await self._install(context, plugin, f"={held.manifest.version}")
        except BaseException:
            async with self._database.write(ALL_TENANTS, context) as transaction:
                await self._repository.put_release(transaction, held)
            raise
        await self._control.reload(plugin, held.manifest.version)
        return next(r for r in installed if r.manifest.id == plugin)

    async def _release(self, transaction: Transaction, plugin: str, version: str) -> Release:
        wanted = str(parse_version(version))
        found = await self._repository.release(transaction, plugin, wanted)
        if found is None or found.state is ReleaseState.UNINSTALLED:
            raise NotFound(f"{plugin} {version} is not installed on this platform.", plugin=plugin, found=version)
        return found

    # ------------------------------------------------------------------ for people

    async def health(self, tenant: str | None) -> list[Health]:
        """Every running activation with its breakers that are not at peace; ``tenant`` None: of every tenant."""
        await self.settle()
        async with self._database.read(tenant or ALL_TENANTS) as transaction:
            found = (
                [(tenant, a) for a in await self._repository.activations(transaction)]
                if tenant
                else await self._repository.all_activations(transaction)
            )
        async with self._database.read(ALL_TENANTS) as transaction:
            stored = await self._repository.releases(transaction)
        held = {(r.manifest.id, r.manifest.version) for r in stored if r.state is ReleaseState.QUARANTINED}
        # This process knows better than what an earlier one stored.
        known = {(r.plugin, r.version, r.tenant, r.hook): r for r in await self._store.load()}
        known |= {(r.plugin, r.version, r.tenant, r.hook): r for r in self._breakers.states()}
        return [
            Health(
                owner,
                a.plugin,
                a.version,
                "quarantined" if (a.plugin, a.version) in held else str(a.state),
                tuple(r for r in known.values() if (r.tenant, r.plugin, r.version) == (owner, a.plugin, a.version)),
            )
            for owner, a in found
            if a.running
        ]

    async def reset(self, context: Context, plugin: str) -> int:
        """Close the plugin's breakers for the tenant in hand, here and (told by event) in every other
        process; how many were not closed here."""
        closed = self._breakers.reset(context.tenant, plugin)
        async with self._database.write(context.tenant, context) as transaction:
            transaction.emit(f"activation:{plugin}", NewEvent("plugin.reset", {"plugin": plugin}))
        return closed
