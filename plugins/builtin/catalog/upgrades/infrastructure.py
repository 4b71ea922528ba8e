"""Upgrades, their figures and tenants' windows in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import time
from typing import Any

from sqlalchemy import Column, Float, Integer, String, Text, delete, insert, select, update

from plugin_sdk.data import UtcDateTime, json_type, tenant_table
from plugin_sdk.services import Transaction
from plugins.builtin.catalog.infrastructure import metadata
from plugins.builtin.catalog.upgrades.domain import Upgrade, UpgradeState
from plugins.builtin.catalog.upgrades.figures import Thresholds
from plugins.builtin.catalog.upgrades.windows import Window

upgrades = tenant_table(
    metadata,
    "catalog_upgrades",
    Column("id", String(32), primary_key=True),
    Column("plugin", String(110), nullable=False),
    Column("version", String(80), nullable=False),
    Column("mode", String(10), nullable=False),
    Column("tenants", Float, nullable=False),
    Column("calls", Float, nullable=False),
    Column("thresholds", json_type(), nullable=False),
    Column("state", String(20), nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("started_by", String(64), nullable=False),
    Column("ended_at", UtcDateTime),
    Column("reason", Text, nullable=False),
    Column("looked", json_type(), nullable=False),
    Column("looks", Integer, nullable=False),
)
figures = tenant_table(
    metadata,
    "catalog_upgrade_figures",
    Column("upgrade", String(32), primary_key=True),
    Column("instance", String(32), primary_key=True),
    Column("arm", String(10), primary_key=True),
    Column("figures", json_type(), nullable=False),
)
windows = tenant_table(
    metadata,
    "catalog_windows",
    Column("kind", String(20), primary_key=True),
    Column("days", json_type(), nullable=False),
    Column("begins", String(5), nullable=False),
    Column("ends", String(5), nullable=False),
    Column("zone", String(60), nullable=False),
)
_KIND = "upgrades"


class SqlUpgrades:
    """Where upgrades are kept. Rows belong to the upgrade's owner, figures to the tenant they are about."""

    async def add(self, transaction: Transaction, upgrade: Upgrade) -> None:
        """Insert, in the owner's scope."""
        await transaction.execute(insert(upgrades).values(id=upgrade.id, **_row(upgrade), looks=0))

    async def save(self, transaction: Transaction, upgrade: Upgrade) -> bool:
        """Update, in the owner's scope, unless somebody else did since ``upgrade`` was read."""
        seen = (upgrades.c.id == upgrade.id, upgrades.c.looks == upgrade.looks)
        change = update(upgrades).where(*seen).values(**_row(upgrade), looks=upgrade.looks + 1)
        return bool((await transaction.execute(change)).rowcount)

    async def find(
        self, transaction: Transaction, *, plugin: str | None = None, states: Iterable[str] = (), limit: int = 200
    ) -> list[Upgrade]:
        """Those of the scope (every owner's with ALL_TENANTS), newest first."""
        query = select(upgrades).order_by(upgrades.c.started_at.desc()).limit(limit)
        if plugin is not None:
            query = query.where(upgrades.c.plugin == plugin)
        if states:
            query = query.where(upgrades.c.state.in_([str(s) for s in states]))
        return [_upgrade(row) for row in await transaction.execute(query)]

    async def get(self, transaction: Transaction, id: str) -> Upgrade | None:
        """One of the scope."""
        row = (await transaction.execute(select(upgrades).where(upgrades.c.id == id))).one_or_none()
        return None if row is None else _upgrade(row)

    async def put_figures(
        self, transaction: Transaction, upgrade: str, instance: str, arm: str, data: Mapping[str, Any]
    ) -> None:
        """What one process has measured of one arm so far, in the scope of the tenant it is about."""
        mine = (figures.c.upgrade == upgrade, figures.c.instance == instance, figures.c.arm == arm)
        change = update(figures).where(*mine).values(figures=dict(data))
        if not (await transaction.execute(change)).rowcount:
            values = {"upgrade": upgrade, "instance": instance, "arm": arm, "figures": dict(data)}
            await transaction.execute(insert(figures).values(**values))

    async def figures(self, transaction: Transaction, upgrade: str) -> list[tuple[str, str, Mapping[str, Any]]]:
        """(tenant, arm, figures) of every process, in the scope."""
        query = select(figures).where(figures.c.upgrade == upgrade).order_by(figures.c.tenant_id)
        return [(row.tenant_id, row.arm, row.figures) for row in await transaction.execute(query)]

    async def forget(self, transaction: Transaction, plugin: str) -> None:
        """Delete everything about a plugin's upgrades, in the scope."""
        mine = select(upgrades.c.id).where(upgrades.c.plugin == plugin)
        await transaction.execute(delete(figures).where(figures.c.upgrade.in_(mine)))
        await transaction.execute(delete(upgrades).where(upgrades.c.plugin == plugin))

    async def windows(self, transaction: Transaction) -> dict[str, Window]:
        """By tenant, in the scope."""
        found = await transaction.execute(select(windows).where(windows.c.kind == _KIND))
        return {row.tenant_id: _window(row) for row in found}

    async def put_window(self, transaction: Transaction, window: Window | None) -> None:
        """Replace the tenant's window; None takes it away."""
        await transaction.execute(delete(windows).where(windows.c.kind == _KIND))
        if window is not None:
            values: dict[str, Any] = {"days": list(window.days), "zone": window.zone}
            hours = {"begins": f"{window.begins:%H:%M}", "ends": f"{window.ends:%H:%M}"}
            await transaction.execute(insert(windows).values(kind=_KIND, **values, **hours))


def _row(upgrade: Upgrade) -> dict[str, Any]:
    return {
        "plugin": upgrade.plugin,
        "version": upgrade.version,
        "mode": upgrade.mode,
        "tenants": upgrade.tenants,
        "calls": upgrade.calls,
        "thresholds": asdict(upgrade.thresholds),
        "state": str(upgrade.state),
        "started_at": upgrade.started_at,
        "started_by": upgrade.started_by,
        "ended_at": upgrade.ended_at,
        "reason": upgrade.reason,
        "looked": dict(upgrade.looked),
    }


def _upgrade(row: Any) -> Upgrade:
    return Upgrade(
        id=row.id,
        owner=row.tenant_id,
        plugin=row.plugin,
        version=row.version,
        mode=row.mode,
        tenants=row.tenants,
        calls=row.calls,
        thresholds=Thresholds(**row.thresholds),
        state=UpgradeState(row.state),
        started_at=row.started_at,
        started_by=row.started_by,
        ended_at=row.ended_at,
        reason=row.reason,
        looked=row.looked,
        looks=row.looks,
    )


def _window(row: Any) -> Window:
    return Window(tuple(row.days), time.fromisoformat(row.begins), time.fromisoformat(row.ends), row.zone)
