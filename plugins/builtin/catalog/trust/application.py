"""Holding updates behind which somebody else stands, until a person allows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from plugin_sdk import ALL_TENANTS, PLATFORM_TENANT, Conflict, Context, NewEvent, NotFound, system_context
from plugin_sdk.services import Database, ReleaseOrigin, Transaction
from plugins.builtin.catalog.trust.domain import Doubt, Hold, UpdateHeld, Windows, doubts, held, told


class Known(Protocol):
    """What is known of an installed release."""

    @property
    def digest(self) -> str: ...

    @property
    def origin(self) -> ReleaseOrigin | None: ...


class Releases(Protocol):
    """Where installed releases are."""

    async def find(self, transaction: Transaction, plugin: str, version: str) -> Known | None: ...


class Holds(Protocol):
    """Where holds are kept."""

    async def put(self, transaction: Transaction, hold: Hold) -> None: ...

    async def of(self, transaction: Transaction, tenants: list[str], plugin: str, version: str) -> list[Hold]: ...

    async def find(self, transaction: Transaction) -> list[Hold]: ...


class Trust:
    """Compares who stands behind releases. Every door that moves a tenant to another version asks it."""

    def __init__(
        self,
        database: Database,
        releases: Releases,
        holds: Holds,
        windows: Windows,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._releases = releases
        self._holds = holds
        self._windows = windows
        self._now = now

    async def doubts(self, plugin: str, before: str, after: str) -> tuple[Doubt, ...]:
        """What changed between two installed releases; nothing if one is not here."""
        async with self._database.read(ALL_TENANTS) as transaction:
            return (await self._compare(transaction, plugin, before, after))[0]

    async def against(self, tenant: str, plugin: str, before: str, after: str) -> Hold | None:
        """What holds the update from ``before`` to ``after`` in a tenant; None if nothing does. Notes nothing."""
        if before == after:
            return None
        async with self._database.read(ALL_TENANTS) as transaction:
            found, digest = await self._compare(transaction, plugin, before, after)
            hold = Hold(tenant, plugin, before, after, digest, found, "held", self._now())
            return await self._open(transaction, hold)

    async def foresee(
        self, tenant: str, plugin: str, old: Known | None, before: str, new: Known, after: str
    ) -> UpdateHeld | None:
        """As :meth:`against`, of a release that need not be installed: the error that moving to it would end with."""
        found = () if old is None else doubts(old.origin, new.origin, self._windows)
        hold = Hold(tenant, plugin, before, after, new.digest, found, "held", self._now())
        async with self._database.read(ALL_TENANTS) as transaction:
            open_ = await self._open(transaction, hold)
        return None if open_ is None else held(open_, self._now(), tenant)

    async def _open(self, transaction: Transaction, hold: Hold) -> Hold | None:
        """The hold, unless there is nothing to hold it for or a person has allowed it."""
        if not hold.doubts:
            return None
        for each in await self._holds.of(transaction, [hold.tenant, PLATFORM_TENANT], hold.plugin, hold.version):
            # An allowance is of what was known then: another package, or another doubt, is held again.
            if each.state == "allowed" and each.digest == hold.digest and hold.kinds <= each.kinds:
                return hold if hold.until is not None and hold.until > self._now() else None
        return hold

    async def why_not(self, tenant: str, plugin: str, before: str, after: str) -> str | None:
        """As :meth:`against`, in words; the tenant's admins are told of it by an event, once."""
        hold = await self.against(tenant, plugin, before, after)
        if hold is None:
            return None
        await self._note(hold)
        return str(held(hold, self._now(), tenant))

    async def check(self, tenant: str, plugin: str, before: str, after: str) -> None:
        """Raise UpdateHeld if the update is held there."""
        hold = await self.against(tenant, plugin, before, after)
        if hold is not None:
            await self._note(hold)
            raise held(hold, self._now(), tenant)

    async def list(self, owner: str) -> list[Hold]:
        """Held and allowed updates, newest first: a tenant's, or all of them for the operator."""
        async with self._database.read(ALL_TENANTS if owner == PLATFORM_TENANT else owner) as transaction:
            return await self._holds.find(transaction)

    async def allow(self, context: Context, owner: str, plugin: str, version: str, reason: str) -> Hold:
        """Let an update through that is held: in the tenant ``owner``, or (an operator) everywhere.

        Raises NotFound if nothing is held, and Conflict while a new owner's window is open.
        """
        mine = [h for h in await self.list(owner) if (h.plugin, h.version, h.state) == (plugin, version, "held")]
        if not mine:
            raise NotFound(
                f"No update to {plugin} {version} is held here.",
                plugin=plugin,
                tenant=None if owner == PLATFORM_TENANT else owner,
                fix="See `keelstone marketplace held`, or `keelstone tenant held TENANT`.",
            )
        all_doubts = {doubt.kind: doubt for hold in mine for doubt in hold.doubts}
        hold = replace(mine[0], tenant=owner, doubts=tuple(all_doubts.values()))
        until = hold.until
        if until is not None and until > self._now():
            raise Conflict(
                f"Updates of the new owner of {plugin} wait until {until:%Y-%m-%d %H:%M} UTC, whoever asks.",
                plugin=plugin,
                expected=f"{until.isoformat()} or later",
                found=self._now().isoformat(),
                fix="Look meanwhile who they are. The operator's settings KEELSTONE_MARKETPLACE_OWNER_DAYS and "
                "KEELSTONE_MARKETPLACE_RECOVERY_DAYS say how long it is.",
            )
        decided = replace(hold, state="allowed", decided_by=context.principal.id, decided_at=self._now(), reason=reason)
        acting = replace(system_context(owner, context.correlation_id), principal=context.principal)
        async with self._database.write(owner, acting) as transaction:
            await self._holds.put(transaction, decided)
            transaction.emit(f"release:{plugin}", self._event("plugin.update_allowed", decided))
        return decided

    async def _compare(
        self, transaction: Transaction, plugin: str, before: str, after: str
    ) -> tuple[tuple[Doubt, ...], str]:
        old = await self._releases.find(transaction, plugin, before)
        new = await self._releases.find(transaction, plugin, after)
        if old is None or new is None:
            return (), ""
        return doubts(old.origin, new.origin, self._windows), new.digest

    async def _note(self, hold: Hold) -> None:
        async with self._database.write(hold.tenant, system_context(hold.tenant)) as transaction:
            for known in await self._holds.of(transaction, [hold.tenant], hold.plugin, hold.version):
                if (known.digest, known.kinds) == (hold.digest, hold.kinds):
                    return
            await self._holds.put(transaction, hold)
            transaction.emit(f"release:{hold.plugin}", self._event("plugin.update_held", hold))

    def _event(self, type: str, hold: Hold) -> NewEvent:
        data = {
            "plugin": hold.plugin,
            "from": hold.before,
            "to": hold.version,
            "doubts": sorted(hold.kinds),
            "why": told(hold.doubts, self._now()),
        }
        return NewEvent(type, data | ({"reason": hold.reason} if hold.state == "allowed" else {}))
