"""Releases and activations in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Boolean, Column, MetaData, String, Text, delete, insert, select, update

from plugin_sdk import ActivationState, ReleaseState, manifest_from_dict
from plugin_sdk.data import Schema, UtcDateTime, json_type, platform_table, tenant_table
from plugin_sdk.services import Build, ReleaseOrigin, Transaction
from plugins.builtin.catalog.domain import Activation, Release
from plugins.builtin.catalog.upgrades.trial import Trial

metadata = MetaData()
releases = platform_table(
    metadata,
    "catalog_releases",
    Column("plugin", String(110), primary_key=True),
    Column("version", String(80), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("component", String(64), nullable=False),
    Column("state", String(20), nullable=False),
    Column("manifest", json_type(), nullable=False),
    Column("settings_schema", json_type()),
    Column("readme", Text, nullable=False),
    Column("changelog", Text, nullable=False),
    Column("chain", json_type(), nullable=False),
    Column("installed_at", UtcDateTime),
    Column("installed_by", String(64), nullable=False),
    Column("published_at", UtcDateTime),
    Column("origin", json_type()),
    shared=True,
)
activations = tenant_table(
    metadata,
    "catalog_activations",
    Column("plugin", String(110), primary_key=True),
    Column("version", String(80), nullable=False),
    Column("state", String(20), nullable=False),
    Column("grants", json_type(), nullable=False),
    Column("denied", json_type(), nullable=False),
    Column("settings", json_type(), nullable=False),
    Column("previous", String(80)),
    Column("pinned", Boolean, nullable=False),
    Column("changed_at", UtcDateTime),
    Column("changed_by", String(64), nullable=False),
    Column("channel", String(20), nullable=False, server_default="stable"),
    Column("upgrade", json_type()),
)
SCHEMA = Schema("keelstone/catalog", metadata, Path(__file__).parent / "migrations")


class SqlCatalog:
    """Implements ``application.CatalogRepository``."""

    async def releases(self, transaction: Transaction, plugin: str | None = None) -> list[Release]:
        """Every stored release, or one plugin's."""
        query = select(releases)
        if plugin is not None:
            query = query.where(releases.c.plugin == plugin)
        return [_release(row) for row in await transaction.execute(query)]

    async def release(self, transaction: Transaction, plugin: str, version: str) -> Release | None:
        """One stored release."""
        query = select(releases).where(releases.c.plugin == plugin, releases.c.version == version)
        row = (await transaction.execute(query)).one_or_none()
        return None if row is None else _release(row)

    async def find(self, transaction: Transaction, plugin: str, version: str) -> Release | None:
        """As :meth:`release`: what ``trust.application.Releases`` asks."""
        return await self.release(transaction, plugin, version)

    async def put_release(self, transaction: Transaction, release: Release) -> None:
        """Insert or replace."""
        await self.delete_release(transaction, release.manifest.id, release.manifest.version)
        await transaction.execute(
            insert(releases).values(
                plugin=release.manifest.id,
                version=release.manifest.version,
                digest=release.digest,
                component=release.component,
                state=str(release.state),
                manifest=release.manifest.model_dump(mode="json", exclude_defaults=True) | {"manifest": 1},
                settings_schema=None if release.settings_schema is None else dict(release.settings_schema),
                readme=release.readme,
                changelog=release.changelog,
                chain=list(release.chain),
                installed_at=release.installed_at,
                installed_by=release.installed_by,
                published_at=release.published_at,
                origin=None if release.origin is None else _plain_origin(release.origin),
            )
        )

    async def delete_release(self, transaction: Transaction, plugin: str, version: str) -> None:
        """Delete if it is there."""
        mine = (releases.c.plugin == plugin, releases.c.version == version)
        await transaction.execute(delete(releases).where(*mine))

    async def activation(self, transaction: Transaction, plugin: str) -> Activation | None:
        """The tenant's activation of a plugin."""
        query = select(activations).where(activations.c.plugin == plugin)
        row = (await transaction.execute(query)).one_or_none()
        return None if row is None else _activation(row)

    async def put_activation(self, transaction: Transaction, activation: Activation) -> None:
        """Insert or replace."""
        values = {
            "version": activation.version,
            "state": str(activation.state),
            "grants": sorted(activation.grants),
            "denied": sorted(activation.denied),
            "settings": dict(activation.settings),
            "previous": activation.previous,
            "pinned": activation.pinned,
            "changed_at": activation.changed_at,
            "changed_by": activation.changed_by,
            "channel": activation.channel,
            "upgrade": None if activation.upgrade is None else _plain_trial(activation.upgrade),
        }
        change = update(activations).where(activations.c.plugin == activation.plugin).values(**values)
        if not (await transaction.execute(change)).rowcount:
            await transaction.execute(insert(activations).values(plugin=activation.plugin, **values))

    async def activations(self, transaction: Transaction) -> list[Activation]:
        """Every activation of the tenant, by plugin."""
        return [_activation(r) for r in await transaction.execute(select(activations).order_by(activations.c.plugin))]

    async def all_activations(
        self, transaction: Transaction, plugin: str | None = None
    ) -> list[tuple[str, Activation]]:
        """(tenant, activation) of every tenant."""
        query = select(activations).order_by(activations.c.tenant_id, activations.c.plugin)
        if plugin is not None:
            query = query.where(activations.c.plugin == plugin)
        return [(row.tenant_id, _activation(row)) for row in await transaction.execute(query)]

    async def delete_activations(self, transaction: Transaction, plugin: str, version: str | None) -> int:
        """Delete a plugin's activations (of one version) in every tenant; their number."""
        gone = delete(activations).where(activations.c.plugin == plugin)
        if version is not None:
            gone = gone.where(activations.c.version == version)
        return int((await transaction.execute(gone)).rowcount)


def _release(row: Any) -> Release:
    return Release(
        manifest=manifest_from_dict(row.manifest, file=f"{row.plugin} {row.version}"),
        digest=row.digest,
        component=row.component,
        state=ReleaseState(row.state),
        settings_schema=row.settings_schema,
        readme=row.readme,
        changelog=row.changelog,
        chain=tuple(row.chain),
        installed_at=row.installed_at,
        installed_by=row.installed_by,
        published_at=row.published_at,
        origin=None if row.origin is None else _origin(row.origin),
    )


def _plain_origin(origin: ReleaseOrigin) -> dict[str, Any]:
    since = None if origin.owned_since is None else origin.owned_since.isoformat()
    return {**asdict(origin), "owned_since": since}


def _origin(said: Mapping[str, Any]) -> ReleaseOrigin:
    since = None if said["owned_since"] is None else datetime.fromisoformat(said["owned_since"])
    lists = {name: tuple(said[name]) for name in ("signers", "lineage")}
    build = None if said.get("build") is None else Build(**said["build"])
    return ReleaseOrigin(**{**said, **lists, "owned_since": since, "build": build})


def _activation(row: Any) -> Activation:
    return Activation(
        plugin=row.plugin,
        version=row.version,
        state=ActivationState(row.state),
        grants=frozenset(row.grants),
        denied=frozenset(row.denied),
        settings=row.settings,
        previous=row.previous,
        pinned=row.pinned,
        changed_at=row.changed_at,
        changed_by=row.changed_by,
        channel=row.channel,
        upgrade=None if row.upgrade is None else _trial(row.upgrade),
    )


def _plain_trial(trial: Trial) -> dict[str, Any]:
    return {
        "id": trial.id,
        "version": trial.version,
        "mode": trial.mode,
        "calls": trial.calls,
        "started_at": trial.started_at.isoformat(),
        "grants": sorted(trial.grants),
        "denied": sorted(trial.denied),
        "settings": dict(trial.settings),
    }


def _trial(data: Mapping[str, Any]) -> Trial:
    return Trial(
        id=data["id"],
        version=data["version"],
        mode=data["mode"],
        calls=data["calls"],
        started_at=datetime.fromisoformat(data["started_at"]),
        grants=frozenset(data["grants"]),
        denied=frozenset(data["denied"]),
        settings=data["settings"],
    )
