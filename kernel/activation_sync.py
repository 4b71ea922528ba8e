"""Keeps this process's snapshot equal to what is stored: at boot, after a change here, and when the
bus says that another process changed something."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from kernel.activation import Activations
from kernel.errors import KeelstoneError, PluginQuarantined, PluginUnavailable
from kernel.events import EventType, EventTypes
from kernel.guests import CallGate, GuestObserver, Guests, MirrorSink
from kernel.hookspecs import HOOKS
from kernel.manifest import HookUse, PluginManifest
from kernel.ports import (
    ActivationRecord,
    ActivationSource,
    BlobStore,
    BusMessage,
    GuestCall,
    GuestRelease,
    GuestResult,
    GuestRuntime,
)

logger = logging.getLogger(__name__)

CHANGES = frozenset(
    {
        "plugin.activated",
        "plugin.deactivated",
        "plugin.configured",
        "plugin.consented",
        "plugin.updated",
        "plugin.upgrade_started",
        "plugin.upgrade_promoted",
        "plugin.upgrade_rolled_back",
    }
)
"""Event types after which a tenant's activations are read again."""
NewsObserver = Callable[[str, Mapping[str, Any]], None]
"""Takes an event's tenant and data."""
RELEASE_CHANGES = frozenset({"plugin.quarantined", "plugin.installed"})
"""Event types after which a release is read again: it may have been withdrawn, or be good again."""


class ActivationSync:
    """Loads activations from their source into snapshots, and the releases they need into ``guests``."""

    def __init__(
        self, activations: Activations, guests: Guests, runtime: GuestRuntime, blobs: BlobStore, types: EventTypes
    ) -> None:
        self._activations = activations
        self._guests = guests
        self._runtime = runtime
        self._blobs = blobs
        self._types = types
        self._source: ActivationSource | None = None
        self._listeners: dict[str, list[NewsObserver]] = {}
        self._lock = asyncio.Lock()

    def use(self, source: ActivationSource) -> None:
        """Take activations from ``source`` (the plugin catalog). Without one, nothing is active."""
        self._source = source

    async def load(self) -> None:
        """Everything, at boot."""
        if self._source is None:
            return
        async with self._lock:
            records = await self._source.load_all()
            await self._load_releases(records)
            self._activations.load(records)

    async def refresh(self, tenant: str) -> None:
        """One tenant, after a change. Calls under way keep what they began with."""
        if self._source is None:
            return
        async with self._lock:
            records = await self._source.load_tenant(tenant)
            await self._load_releases(records)
            self._activations.replace(tenant, records)

    async def prepare(self, manifest: PluginManifest, digest: str) -> None:
        """Make a release callable here: compile its component if need be, register its event types.

        Raises the sandbox's error or PluginUnavailable if it can't be.
        """
        if not self._runtime.prepared(digest):
            component = await self._blobs.get(digest)
            if component is None:
                raise PluginUnavailable(
                    f"The component of {manifest.id} {manifest.version} is not stored here.",
                    plugin=manifest.id,
                    expected=f"blob {digest}",
                    fix="Set KEELSTONE_BLOB_URL to a folder that all processes share, or install the plugin again.",
                )
            await self._runtime.prepare(digest, component, manifest)
        self.register_types(manifest)
        broken = self._guests.broken(manifest.id, manifest.version)
        self._guests.add(GuestRelease(manifest, digest))
        if broken:
            # What was bound while it was broken would go on failing.
            self._activations.refresh()

    def register_types(self, manifest: PluginManifest) -> None:
        """Register the event types that a manifest declares. Raises SchemaIncompatible."""
        declared = manifest.events.declares
        self._types.register(*(EventType(d.type, manifest.id, d.summary, d.data) for d in declared))

    async def forget(self, manifest: PluginManifest, digest: str, *, keep_artifact: bool = False) -> None:
        """Take a release away once no call of it is under way."""
        for _ in range(300):
            if not self._guests.active(manifest.id, manifest.version):
                break
            await asyncio.sleep(0.1)
        self._guests.remove(manifest.id, manifest.version)
        if not keep_artifact:
            await self._runtime.forget(digest)

    def callable_here(self, plugin: str, version: str) -> bool:
        """Whether the release can be called in this process."""
        return self._guests.has(plugin, version)

    def watch_calls(self, observer: GuestObserver) -> None:
        """Call ``observer`` after each guest call."""
        self._guests.watch(observer)

    def gate_calls(self, gate: CallGate) -> None:
        """Ask ``gate`` before each guest call; what it raises is the call's answer."""
        self._guests.gate(gate)

    def active(self, tenant: str) -> list[tuple[PluginManifest, frozenset[str]]]:
        """The guests that are on for a tenant, each with what it was granted."""
        found = []
        for activation in self._activations.current.of(tenant).activations:
            manifest = self._guests.manifest(activation.plugin, activation.version)
            if manifest is not None:
                found.append((manifest, activation.grants))
        return found

    async def reload(self, plugin: str, version: str) -> None:
        """Read one release again, if it is in use here: it was quarantined, or installed anew after that."""
        if self._source is None or self._guests.manifest(plugin, version) is None:
            return
        async with self._lock:
            release = await self._source.load_guest(plugin, version)
            if release is not None and (release.withdrawn or self._guests.broken(plugin, version)):
                await self._load(release)
                self._activations.refresh()

    def mirror_calls(self, sink: MirrorSink) -> None:
        """Hand the calls of plugins with a shadow to ``sink``, after they were answered."""
        self._guests.mirror(sink)

    async def rehearse(self, call: GuestCall) -> GuestResult:
        """Run a mirrored call: nobody is told of it. Raises what the runtime raises."""
        return await self._guests.rehearse(call)

    def listen(self, type: str, observer: NewsObserver) -> None:
        """Call ``observer`` with the tenant and data of each event of a type, committed in whatever process."""
        self._listeners.setdefault(type, []).append(observer)

    async def on_message(self, message: BusMessage) -> None:
        """A committed event passed by on the bus, from whatever process."""
        event = orjson.loads(message.value)
        for observer in self._listeners.get(event.get("type"), ()):
            observer(str(event.get("tenant")), event.get("data") or {})
        if event.get("type") in CHANGES:
            try:
                await self.refresh(str(event["tenant"]))
            except KeelstoneError:
                logger.exception("activations could not be read again", extra={"tenant": event.get("tenant")})
        elif event.get("type") in RELEASE_CHANGES:
            data = event.get("data") or {}
            try:
                await self.reload(str(data.get("plugin")), str(data.get("version")))
            except KeelstoneError:
                logger.exception("a release could not be read again", extra={"plugin": data.get("plugin")})

    async def _load_releases(self, records: list[ActivationRecord]) -> None:
        assert self._source is not None
        wanted = {(r.plugin, r.version) for r in records}
        wanted |= {(r.plugin, r.upgrade.version) for r in records if r.upgrade is not None}
        for plugin, version in sorted(wanted):
            if self._guests.has(plugin, version):
                continue
            try:
                release = await self._source.load_guest(plugin, version)
            except KeelstoneError as error:
                logger.error("stored release can't be read: %s", error, extra={"plugin": plugin, "version": version})
                self._guests.add_broken(_unreadable(plugin, version), error)
                continue
            if release is None:
                # Not a guest: an extension, running in this process or left out by the operator.
                continue
            await self._load(release)

    async def _load(self, release: GuestRelease) -> None:
        plugin, version = release.manifest.id, release.manifest.version
        if release.withdrawn:
            withdrawn = PluginQuarantined(
                f"{plugin} {version} was withdrawn from the platform: {release.withdrawn}",
                plugin=plugin,
                fix="Switch it off, or move to another version; an operator may install it anew.",
            )
            self._guests.add_broken(release, withdrawn)
            return
        try:
            await self.prepare(release.manifest, release.digest)
        except KeelstoneError as error:
            logger.error("plugin cannot be loaded: %s", error, extra={"plugin": plugin, "version": version})
            self._guests.add_broken(release, error)


def _unreadable(plugin: str, version: str) -> GuestRelease:
    """Stands for a release whose manifest can't be read: it may implement any hook, so it fails them all."""
    hooks = {name: HookUse() for name, spec in HOOKS.items() if spec.for_guests}
    summary = "A release whose stored manifest can't be read."
    manifest = PluginManifest(
        manifest=1, id=plugin, version=version, name=plugin[-60:], summary=summary, license="unknown", hooks=hooks
    )
    return GuestRelease(manifest, "")
