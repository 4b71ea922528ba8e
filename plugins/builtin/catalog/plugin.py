"""Catalog: the plugin service. Wiring."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from plugin_sdk import ALL_TENANTS, GraphQL, PluginContext, Routes, hookimpl
from plugin_sdk.data import Schema
from plugin_sdk.reporting import platform_name
from plugin_sdk.services import (
    ActivationControl,
    BlobStore,
    BreakerControl,
    BreakerStore,
    BundleOpener,
    Database,
    EventStore,
    KeyProvider,
    KvStore,
    Marketplace,
    SecretSource,
    StatementSigner,
)
from plugins.builtin.catalog import graphql
from plugins.builtin.catalog.advisories.graphql import advisory_types
from plugins.builtin.catalog.advisories.keeper import AdvisoryKeeper
from plugins.builtin.catalog.advisories.rest import advisories_router
from plugins.builtin.catalog.application import TenantPlugins
from plugins.builtin.catalog.bundles import bundles_router
from plugins.builtin.catalog.consent.graphql import consent_types, run_types
from plugins.builtin.catalog.consent.receipts import Receipts
from plugins.builtin.catalog.consent.rest import consents_router, runs_router
from plugins.builtin.catalog.consent.runs import Runs
from plugins.builtin.catalog.consent.updates import Updates
from plugins.builtin.catalog.domain import Release
from plugins.builtin.catalog.health import HealthKeeper, Rule
from plugins.builtin.catalog.health_rest import health_router, reset_router
from plugins.builtin.catalog.infrastructure import SCHEMA, SqlCatalog
from plugins.builtin.catalog.moves import Mover
from plugins.builtin.catalog.news import Teller
from plugins.builtin.catalog.operations import Operations
from plugins.builtin.catalog.policy.application import Policies
from plugins.builtin.catalog.policy.gate import PolicyGate
from plugins.builtin.catalog.policy.graphql import policy_types
from plugins.builtin.catalog.policy.infrastructure import SqlPolicies
from plugins.builtin.catalog.policy.rest import operator_policy_router, tenant_policy_router
from plugins.builtin.catalog.ratings import TenantRatings, ratings_router
from plugins.builtin.catalog.rest import activations_router, plugins_router
from plugins.builtin.catalog.revocations import RevocationKeeper
from plugins.builtin.catalog.secrets.application import PluginSecrets
from plugins.builtin.catalog.secrets.graphql import secret_types
from plugins.builtin.catalog.secrets.rest import secrets_router
from plugins.builtin.catalog.told import SqlTold
from plugins.builtin.catalog.trust.application import Trust
from plugins.builtin.catalog.trust.domain import Windows
from plugins.builtin.catalog.trust.graphql import held_types
from plugins.builtin.catalog.trust.owners import OwnerKeeper
from plugins.builtin.catalog.trust.rest import operator_holds_router, owners_router, tenant_holds_router
from plugins.builtin.catalog.upgrades.infrastructure import SqlUpgrades
from plugins.builtin.catalog.upgrades.wiring import Trials


class CatalogPlugin:
    """Hook implementations."""

    def __init__(
        self,
        tenants: TenantPlugins,
        operations: Operations,
        secrets: PluginSecrets,
        trials: Trials,
        health: HealthKeeper,
        policies: Policies,
        updates: Updates,
        receipts: Receipts,
        revocations: RevocationKeeper,
        ratings: TenantRatings,
        trust: Trust,
        owners: OwnerKeeper,
        advisories: AdvisoryKeeper,
        runs: Runs,
        bundles: Callable[[], BundleOpener],
    ) -> None:
        self._runs, self._bundles = runs, bundles
        self._advisories = advisories
        self._trust, self._owners = trust, owners
        self._tenants = tenants
        self._secrets = secrets
        self._operations = operations
        self._trials = trials
        self._health = health
        self._policies = policies
        self._updates = updates
        self._receipts = receipts
        self._revocations = revocations
        self._ratings = ratings

    @hookimpl
    def contribute_tables(self) -> Schema:
        return SCHEMA

    @hookimpl
    def contribute_routes(self) -> list[Routes]:
        return [
            Routes(plugins_router(self._tenants, self._operations)),
            Routes(bundles_router(self._operations, self._bundles)),
            Routes(activations_router(self._tenants, self._policies, self._updates)),
            Routes(secrets_router(self._secrets)),
            Routes(operator_policy_router(self._policies)),
            Routes(tenant_policy_router(self._policies)),
            Routes(consents_router(self._receipts)),
            Routes(runs_router(self._runs)),
            Routes(ratings_router(self._ratings)),
            Routes(operator_holds_router(self._trust)),
            Routes(tenant_holds_router(self._trust)),
            Routes(owners_router(self._owners)),
            *self._trials.routes(),
            Routes(health_router(self._health)),
            Routes(reset_router(self._health)),
            Routes(advisories_router(self._advisories)),
        ]

    @hookimpl
    def contribute_graphql(self) -> list[GraphQL]:
        return [
            graphql.types(self._tenants),
            secret_types(self._secrets),
            self._trials.graphql(),
            policy_types(self._policies),
            consent_types(self._receipts),
            run_types(self._runs),
            held_types(self._trust, self._owners),
            advisory_types(self._advisories),
        ]

    @hookimpl
    def starting(self) -> None:
        self._trials.start()
        self._health.start()
        self._revocations.start()
        self._advisories.start()
        self._owners.start()

    @hookimpl
    async def stopping(self) -> None:
        await self._owners.stop()
        await self._advisories.stop()
        await self._revocations.stop()
        await self._health.stop()
        await self._trials.stop()


def start(platform: PluginContext) -> CatalogPlugin:
    """Wire the plugin; from now on activations come from it."""
    services, repository = platform.services, SqlCatalog()
    database, control = services.get(Database), services.get(ActivationControl)
    store = SqlPolicies()
    windows = Windows(
        timedelta(days=platform.settings.marketplace_owner_days),
        timedelta(days=platform.settings.marketplace_recovery_days),
    )
    teller = Teller(database, SqlTold(), lambda: datetime.now(UTC))
    advisories = AdvisoryKeeper(lambda: services.get(Marketplace), database, repository, teller)
    owners = OwnerKeeper(
        lambda: services.get(Marketplace), database, repository, repository, teller, windows, lambda: datetime.now(UTC)
    )
    gate = PolicyGate(database, store, windows=windows, weaknesses=advisories)
    receipts = Receipts(database, lambda: services.get(StatementSigner))
    tenants = TenantPlugins(database, repository, control, platform.hooks, gate, receipts)
    upgrades, mover = SqlUpgrades(), Mover(database, repository, control, platform.hooks, gate)
    operations = Operations(
        database,
        repository,
        control,
        platform.hooks,
        services.get(BlobStore),
        services.get(KvStore),
        lambda: services.get(Marketplace),
        mover,
        upgrades,
        gate,
    )
    secrets = PluginSecrets(database, services.get(KeyProvider), tenants)
    services.publish(SecretSource, secrets)
    control.use(tenants)
    breakers = services.get(BreakerControl)
    updates = Updates(database, repository, tenants, services.get(BlobStore), windows)
    trials = Trials(
        database,
        repository,
        control,
        tenants,
        operations,
        mover,
        breakers,
        platform.hooks,
        services.get(BlobStore),
        lambda: services.get(Marketplace),
        gate,
        updates,
    )
    policies = Policies(database, store, gate, repository, tenants, lambda: services.get(Marketplace))
    rule = Rule(platform.settings.quarantine_tenants, platform.settings.quarantine_minutes)
    health = HealthKeeper(
        database,
        repository,
        control,
        breakers,
        services.get(BreakerStore),
        operations.install,
        rule,
    )

    async def installed() -> list[Release]:
        async with database.read(ALL_TENANTS) as transaction:
            return await repository.releases(transaction)

    def host() -> str:
        return platform_name(services.get(StatementSigner).public_keys())

    revocations = RevocationKeeper(
        lambda: services.get(Marketplace),
        installed,
        health.quarantine,
        host if platform.settings.marketplace_reports else None,
    )
    ratings = TenantRatings(tenants, lambda: services.get(Marketplace), lambda: services.get(StatementSigner))
    return CatalogPlugin(
        tenants,
        operations,
        secrets,
        trials,
        health,
        policies,
        updates,
        receipts,
        revocations,
        ratings,
        gate.trust,
        owners,
        advisories,
        Runs(database, services.get(EventStore), repository),
        lambda: services.get(BundleOpener),
    )
