"""Metering: the ledger of guest calls, budgets, advice, recordings of failures. Wiring."""

from __future__ import annotations

from plugin_sdk import GraphQL, PluginContext, Routes, hookimpl
from plugin_sdk.data import Schema
from plugin_sdk.services import ActivationControl, Database, KeyProvider, KvStore, Marketplace, StatementSigner
from plugins.builtin.metering import graphql
from plugins.builtin.metering.advising import Advisor
from plugins.builtin.metering.application import Metering
from plugins.builtin.metering.figures import Figures
from plugins.builtin.metering.infrastructure import SCHEMA, SqlProfiles, SqlRecordings, SqlUsage
from plugins.builtin.metering.keeping import Bounds, Recordings
from plugins.builtin.metering.redaction import Redactor
from plugins.builtin.metering.rest import advice_router, budgets_router, recordings_router, usage_router


class MeteringPlugin:
    """Hook implementations."""

    def __init__(
        self, metering: Metering, recordings: Recordings, advisor: Advisor, figures: Figures | None = None
    ) -> None:
        self._figures = figures
        self._metering = metering
        self._recordings = recordings
        self._advisor = advisor

    @hookimpl
    def contribute_tables(self) -> Schema:
        return SCHEMA

    @hookimpl
    def contribute_routes(self) -> list[Routes]:
        routers = (
            usage_router(self._metering),
            budgets_router(self._metering),
            advice_router(self._advisor),
            recordings_router(self._recordings),
        )
        return [Routes(router) for router in routers]

    @hookimpl
    def contribute_graphql(self) -> GraphQL:
        return graphql.types(self._metering)

    @hookimpl
    async def starting(self) -> None:
        await self._metering.start()
        self._recordings.start()
        if self._figures is not None:
            self._figures.start()

    @hookimpl
    async def stopping(self) -> None:
        if self._figures is not None:
            await self._figures.stop()
        await self._recordings.stop()
        await self._metering.stop()


def start(platform: PluginContext) -> MeteringPlugin:
    """Wire the plugin; from now on every guest call is metered."""
    services, settings = platform.services, platform.settings
    database, control = services.get(Database), services.get(ActivationControl)
    recordings = Recordings(
        database,
        SqlRecordings(),
        services.get(KeyProvider),
        Redactor(settings.personal_fields),
        on=settings.recordings == "failures",
        bounds=Bounds(settings.recordings_per_plugin, settings.recordings_max_kb, settings.recordings_days),
    )
    metering = Metering(
        database,
        SqlUsage(database.dialect),
        retention_days=settings.usage_days,
        prune_also=recordings.prune,
    )
    advisor = Advisor(database, SqlProfiles(), control, services.get(KvStore), metering.flush)
    control.gate_calls(metering.admit)
    control.listen("budget.changed", metering.budgets_changed)
    control.watch_calls(metering.ledger.note)
    control.watch_calls(recordings.note)
    figures = None
    if settings.marketplace_figures:
        figures = Figures(lambda: services.get(Marketplace), lambda: services.get(StatementSigner))
        control.watch_calls(figures.note)
    return MeteringPlugin(metering, recordings, advisor, figures)
