"""The only composition root: settings in, a wired platform out. Nothing here decides; it connects.

Order: stores and bus, then the kernel's own objects, then plugins in start order, then what they
contribute. ``Platform.start`` runs the same order over time; ``stop`` runs it backwards. Long on purpose:
who is given what is to be found in one file.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from kernel.activation import Activations
from kernel.activation_sync import ActivationSync
from kernel.adapters import open_bus
from kernel.adapters.local_blobs import open_blobs
from kernel.adapters.local_keys import open_keys
from kernel.adapters.otlp import open_otlp
from kernel.adapters.sql import SqlDatabase, open_database
from kernel.background import Background
from kernel.blocking import LoopWatch
from kernel.breakers import Breakers
from kernel.consumers import ConsumerRunner, DeadLetters
from kernel.context import new_id
from kernel.discovery import (
    COMPONENT_INSPECTOR,
    CONTRACT_CHECKER,
    GUEST_RUNTIME,
    Found,
    HeldBack,
    choose,
    find_plugins,
    load_entry_point,
)
from kernel.errors import KeelstoneError, PluginFailed
from kernel.events import EventTypes
from kernel.guests import Guests
from kernel.hooks import Dispatcher
from kernel.manifest import PluginManifest
from kernel.observing import handler_for, observers_of
from kernel.permissions import PLATFORM_PERMISSIONS, Permission, declared_permissions
from kernel.ports import (
    BlobStore,
    BreakerStore,
    Bus,
    Database,
    EventStore,
    GuestCall,
    GuestRuntime,
    KeyProvider,
    KvStore,
    LogLine,
    ServiceCalls,
)
from kernel.projections import Projections
from kernel.relay import Relay
from kernel.service_calls import ServiceBook
from kernel.settings import Settings
from kernel.tables import Schema
from kernel.telemetry import Telemetry
from marketplace.connect import max_package_bytes, open_client, registry_folder, trusted_witnesses
from marketplace.mirror.opening import BundleShelf
from marketplace.mirror.syncing import Mirror
from marketplace.oidc.issuers import read_issuers
from marketplace.registry import Registry
from marketplace.service import create_app as create_marketplace
from plugin_sdk.contributions import HealthCheck, PluginContext
from plugin_sdk.services import (
    ActivationControl,
    BreakerControl,
    BundleOpener,
    Marketplace,
    PermissionCatalogue,
    Services,
)

if TYPE_CHECKING:
    from api.development import Development

logger = logging.getLogger(__name__)
STOP_SECONDS = 30.0
CHECK_SECONDS = 5.0
plugin_log = logging.getLogger("keelstone.plugin")


class _Permissions:
    """Every permission: the platform's own and the running plugins'."""

    def __init__(self, hooks: Dispatcher, own: Sequence[Permission]) -> None:
        self._hooks = hooks
        self._own = own

    def permissions(self) -> list[Permission]:
        return [*self._own, *declared_permissions(self._hooks.manifests.values())]


@dataclass(slots=True)
class Platform:
    """One wired platform process."""

    settings: Settings
    services: Services
    hooks: Dispatcher
    activations: Activations
    sync: ActivationSync
    database: SqlDatabase
    events: EventStore
    bus: Bus
    relay: Relay
    runners: list[ConsumerRunner]
    dead_letters: DeadLetters
    projections: Projections
    runtime: GuestRuntime
    telemetry: Telemetry
    held_back: list[HeldBack]
    health_checks: list[HealthCheck]
    registry: Registry | None = None
    marketplace_app: Any = None
    development: Development | None = None
    loop_watch: LoopWatch | None = None
    closing: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    instance: str = field(default_factory=new_id)
    ready: bool = False
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        """Connect, migrate, start plugins, load activations, consume and relay. Undone if it fails."""
        async with AsyncExitStack() as stack:
            for close in self.closing:
                stack.push_async_callback(close)
            stack.push_async_callback(self.runtime.close)
            stack.push_async_callback(self.database.close)
            await self.database.start()
            schemas = [schema for _, schema in self.hooks.contribute("contribute_tables")]
            await self.database.migrate(schemas)
            await self.bus.start()
            stack.push_async_callback(self.bus.close)
            stack.push_async_callback(self._run_hook, "stopping")
            # Before any call: a plugin that was resting when the last process ended goes on resting.
            await self.hooks.breakers.start()
            stack.push_async_callback(self.hooks.breakers.stop)
            await self._run_hook("starting")
            await self.sync.load()
            listening = await self.bus.listen(self.sync.on_message)
            stack.push_async_callback(listening.close)
            for runner in self.runners:
                await runner.start(self.bus)
                stack.push_async_callback(runner.close)
            stack.callback(self.database.on_events(self.relay.wake))
            await self.relay.start()
            stack.push_async_callback(self.relay.close)
            if self.loop_watch is not None:
                self.loop_watch.start()
                stack.push_async_callback(self.loop_watch.close)
            if self.registry is not None:
                registry, mirror = self.registry, Mirror(self.registry)
                for kept in (
                    Background(lambda: registry.keep_fresh(logger.warning), "marketplace-keep-fresh"),
                    Background(lambda: mirror.keep_following(logger.warning), "marketplace-upstreams"),
                ):
                    kept.start()
                    stack.push_async_callback(kept.stop)
            self._stack = stack.pop_all()
        self.ready = True
        for held in self.held_back:
            logger.warning("plugin %s does not run: %s", held.plugin, held.reason)

    async def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Everything backwards. What does not stop in time is named in the log and left behind."""
        self.ready = False
        try:
            async with asyncio.timeout(seconds):
                await self._stack.aclose()
        except TimeoutError:
            left = ", ".join(sorted(task.get_name() for task in asyncio.all_tasks() if not task.done()))
            logger.error("the platform did not stop within %.0f s; still running: %s", seconds, left)
        except Exception:
            logger.exception("something did not stop cleanly; the rest did")

    async def check(self) -> dict[str, Any]:
        """Readiness: each check with its result."""
        results: dict[str, str] = {}
        for check in self.health_checks:
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    await check.check()
                results[check.name] = "ok"
            except TimeoutError:
                results[check.name] = f"failed: no answer within {CHECK_SECONDS:.0f} s"
            except Exception as error:
                results[check.name] = f"failed: {error}"
        return {
            "ready": self.ready and all(r == "ok" for r in results.values()),
            "checks": results,
            "plugins": {m.id: m.version for m in self.hooks.manifests.values()},
            "held_back": {h.plugin: h.reason for h in self.held_back},
            "generation": self.activations.current.generation,
            "instance": self.instance,
        }

    async def _run_hook(self, hook: str) -> None:
        failures: list[PluginFailed] = []
        for manifest, started in self.hooks.contribute(hook):
            try:
                if inspect.isawaitable(started):
                    await started
            except Exception as error:
                failed = PluginFailed(
                    f"{manifest.id} failed while {hook}: {type(error).__name__}: {error}",
                    plugin=manifest.id,
                    hook=hook,
                    fix=f"Mend it, or leave it out with KEELSTONE_PLUGINS_DISABLED={manifest.id}.",
                )
                failed.__cause__ = error
                failures.append(failed)
        # Each plugin has its turn, above all when stopping: then the first failure is told.
        if failures:
            raise failures[0]


def bootstrap(settings: Settings) -> Platform:
    """Wire a platform. Does no I/O beyond making the data folder and reading manifests and keys."""
    settings.home.mkdir(parents=True, exist_ok=True)
    os.chmod(settings.home, 0o700)
    types, telemetry, services = EventTypes(), Telemetry(), Services()
    database = open_database(settings, types)
    bus, blobs, keys = open_bus(settings), open_blobs(settings), open_keys(settings)
    development = _development() if settings.development else None
    open_runtime = partial(
        load_entry_point(GUEST_RUNTIME, "wasmtime"),
        settings,
        kv=database.kv,
        event_schema=lambda name: found.schema if (found := types.get(name)) else None,
        log=_log_line if development is None else development.reading(_log_line),
        find=services.find,
    )
    runtime: GuestRuntime = open_runtime()
    if development is not None:
        runtime = development.around(runtime, lambda native: open_runtime(native=native))
    activations, guests = Activations(), Guests(runtime)
    guests.watch(telemetry.guest_call)
    breakers = Breakers(database.breakers)
    telemetry.show_breakers(breakers.states)
    hooks = Dispatcher(activations, guests, kv=database.kv, on_trace=telemetry.dispatch, breakers=breakers)
    sync = ActivationSync(activations, guests, runtime, blobs, types)

    services.publish(Database, database)
    services.publish(EventStore, database.events)
    services.publish(KvStore, database.kv)
    services.publish(Bus, bus)
    services.publish(BlobStore, blobs)
    services.publish(KeyProvider, keys)
    services.publish(GuestRuntime, runtime)
    services.publish(ActivationControl, sync)
    services.publish(BreakerControl, breakers)
    services.publish(BreakerStore, database.breakers)
    offered = ServiceBook(lambda tenant, plugin: _offers(hooks, activations, tenant, plugin))
    services.publish(ServiceCalls, offered)
    services.publish(PermissionCatalogue, _Permissions(hooks, PLATFORM_PERMISSIONS))
    closing: list[Callable[[], Awaitable[None]]] = []
    registry, market_app, market = _marketplace(settings, closing)
    if development is not None:
        market = development.offering(market)
        guests.watch(development.note)
    services.publish(Marketplace, market)
    services.publish(BundleOpener, BundleShelf(settings))
    otlp = open_otlp(settings, telemetry)
    if otlp is not None:
        closing.append(otlp.close)

    chosen, held_back = choose(find_plugins(), settings.plugins_disabled)
    for found in chosen:
        hooks.register(_started(found, PluginContext(found.manifest, settings, services, hooks)), found.manifest)
        sync.register_types(found.manifest)

    for manifest, method in hooks.contribute("contribute_services"):
        offered.add(manifest.id, method)
    handlers = [handler_for(activations, m, h) for m, h in hooks.contribute("contribute_event_handlers")]
    projections = Projections(
        database,
        database.events,
        database.projections,
        database.leases,
        [projection for _, projection in hooks.contribute("contribute_projections")],
    )
    runners = [
        ConsumerRunner(database, database.consumers, group="handlers", handlers=[*handlers, *projections.handlers()]),
        ConsumerRunner(
            database,
            database.consumers,
            group="observers",
            dynamic=lambda event: observers_of(hooks, database.kv, event),
        ),
    ]
    return Platform(
        settings=settings,
        services=services,
        hooks=hooks,
        activations=activations,
        sync=sync,
        database=database,
        events=database.events,
        bus=bus,
        relay=Relay(database.events, bus, database.checkpoints, database.leases),
        runners=runners,
        dead_letters=DeadLetters(database, database.consumers, runners),
        projections=projections,
        runtime=runtime,
        telemetry=telemetry,
        held_back=held_back,
        health_checks=[
            HealthCheck("database", database.ping),
            HealthCheck("bus", bus.ping),
            *(_named(manifest, check) for manifest, check in hooks.contribute("contribute_health_checks")),
        ],
        registry=registry,
        marketplace_app=market_app,
        development=development,
        loop_watch=_loop_watch(settings, chosen, hooks, telemetry),
        closing=closing,
    )


def _loop_watch(settings: Settings, found: list[Found], hooks: Dispatcher, telemetry: Telemetry) -> LoopWatch | None:
    if not settings.blocked_loop_ms:
        return None
    folders = {plugin.folder: plugin.manifest.id for plugin in found}
    watch = LoopWatch(folders, hooks.breaker_of, threshold=settings.blocked_loop_ms / 1000)
    telemetry.registry.register(watch)
    return watch


async def migration_standings(settings: Settings, schemas: Sequence[Schema]) -> list[Any]:
    """How far the database has come (``migrate.Standing``); changes nothing. Raises BackendUnavailable."""
    database = open_database(settings, EventTypes())
    try:
        await database.start()
        return list(await database.standings(schemas))
    finally:
        await database.close()


def _marketplace(settings: Settings, closing: list[Callable[[], Awaitable[None]]]) -> tuple[Registry | None, Any, Any]:
    """The embedded registry with its service, unless a marketplace elsewhere is named; and the client."""
    registry = None
    app = None
    if settings.marketplace_url is None:
        registry = Registry.open(
            registry_folder(settings),
            max_package_bytes=max_package_bytes(settings),
            inspect_component=load_entry_point(COMPONENT_INSPECTOR, "wasm"),
            check_contract=load_entry_point(CONTRACT_CHECKER, "sdk") if settings.check_contracts else None,
            rules=settings.marketplace_rules,
            witnesses=trusted_witnesses(settings),
            threshold=settings.marketplace_severity,
            issuers=read_issuers(settings.marketplace_issuers),
            issuers_authority=settings.marketplace_issuers_authority,
            search_url=settings.marketplace_search_url,
        )
        app = create_marketplace(registry)
        closing.append(registry.close)
    client = open_client(settings, registry)
    closing.append(client.close)
    return registry, app, client


def _named(manifest: PluginManifest, check: HealthCheck) -> HealthCheck:
    return replace(check, name=f"{manifest.id}: {check.name}")


def _started(found: Found, context: PluginContext) -> Any:
    try:
        return found.load()(context)
    except KeelstoneError:
        raise
    except Exception as error:
        raise PluginFailed(
            f"{found.manifest.id} does not start: {type(error).__name__}: {error}",
            plugin=found.manifest.id,
            file=str(found.folder),
            fix=f"Mend it, or leave it out with KEELSTONE_PLUGINS_DISABLED={found.manifest.id}.",
        ) from error


def _development() -> Development:
    # Its author's tools take a quarter of a second to import, which no other platform shall wait for.
    from api.development import Development

    return Development()


def _offers(hooks: Dispatcher, activations: Activations, tenant: str, plugin: str) -> bool:
    """Whether a plugin's services are there for a tenant: a built-in's always, an extension's where it is on."""
    manifest = hooks.manifests.get(plugin)
    if manifest is None:
        return False
    return manifest.kind == "builtin" or activations.current.of(tenant).get(plugin) is not None


def _log_line(call: GuestCall, line: LogLine) -> None:
    level = {"debug": 10, "info": 20, "warn": 30, "error": 40}[line.level]
    where = {
        "plugin": call.plugin,
        "version": call.version,
        "hook": call.hook,
        "tenant": call.context.tenant,
        "correlation_id": call.context.correlation_id,
    }
    plugin_log.log(level, "%s", line.message, extra=where)
