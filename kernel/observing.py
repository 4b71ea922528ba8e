"""Who handles an event for its tenant: plugins as consumers, each where it is on."""

from __future__ import annotations

from dataclasses import replace

from kernel.activation import Activations
from kernel.causation import MAX_HOPS
from kernel.consumers import EventHandler
from kernel.context import system_context
from kernel.events import Event
from kernel.hooks import Dispatcher
from kernel.implementations import Implementation
from kernel.manifest import PluginManifest
from kernel.outcomes import save_effects
from kernel.ports import KvStore, Transaction


def handler_for(activations: Activations, manifest: PluginManifest, handler: EventHandler) -> EventHandler:
    """An extension's handler gets the events of tenants that have it on; a built-in's gets all."""
    if manifest.kind != "extension":
        return handler

    async def handle(event: Event, transaction: Transaction) -> None:
        if activations.current.of(event.tenant).get(manifest.id) is not None:
            await handler.handle(event, transaction)

    return replace(handler, handle=handle)


def observers_of(hooks: Dispatcher, kv: KvStore, event: Event) -> list[EventHandler]:
    """Each plugin that observes events for the event's tenant, as a consumer of its own."""
    share = event.correlation_id or event.id
    return [_observer(hooks, kv, impl) for impl in hooks.observers(event.tenant, call=share)]


def _observer(hooks: Dispatcher, kv: KvStore, impl: Implementation) -> EventHandler:
    async def handle(event: Event, transaction: Transaction) -> None:
        context = system_context(event.tenant, event.correlation_id or None)
        effects = await hooks.deliver(impl, event.view(), context)
        if effects:
            await save_effects(transaction, kv, event.tenant, impl.plugin, effects)

    return EventHandler(
        f"plugin:{impl.plugin}", impl.manifest.events.subscribes, handle, replayable=False, max_hops=MAX_HOPS
    )
