"""One extension in this process, called as the platform calls it, with services that are fakes.

The kernel's own dispatcher calls its hooks, so signatures, order of events, deadlines, breakers and the
types of answers are the platform's.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pydantic import ValidationError

from kernel.activation import Activations
from kernel.blocking import Blocked, LoopWatch
from kernel.consumers import EventHandler
from kernel.context import Context, new_id
from kernel.errors import PluginFailed, Rejected, ValidationFailed
from kernel.events import Event, NewEvent
from kernel.hooks import Dispatcher
from kernel.hookspecs import HookKind, hook_spec
from kernel.manifest import load_manifest
from kernel.payloads import EventView
from kernel.ports import ActivationRecord
from kernel.settings import Settings
from plugin_sdk.contributions import PluginContext
from plugin_sdk.services import Services
from plugin_sdk.testing.fakes import FakeTransaction
from plugin_sdk.testing.guest import Filtered, GuestRefused
from plugin_sdk.testing.samples import sample_event

T = TypeVar("T")


class Extension:
    """The extension whose manifest lies in ``folder`` (a package). Use it as an async context manager.

    Publish the services that it asks for before the first call: ``extension.publish(UserDirectory, fake)``.
    ``blocked`` lists the times that its code held up the event loop. ``module`` is where ``start`` is, by
    default ``plugin`` in the package.
    """

    def __init__(
        self,
        folder: Path,
        *,
        module: str = "plugin",
        tenant: str = "acme",
        settings: Settings | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.manifest = load_manifest(folder)
        if self.manifest.kind == "guest":
            raise GuestRefused(f"{self.manifest.id} is a guest: use the fixture `guest`")
        self.tenant = tenant
        self.services = Services()
        self.blocked: list[Blocked] = []
        self.plugin: Any = None
        self._module = module
        self._settings = settings
        self._activations = Activations()
        self._hooks = Dispatcher(self._activations)
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._watch: LoopWatch | None = None

    async def __aenter__(self) -> Extension:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def publish(self, protocol: type[T], service: T) -> None:
        """Offer a service to the extension. Raises ValueError if one is published already."""
        self.services.publish(protocol, service)

    async def start(self) -> Any:
        """Call its start function and register it; calls do it themselves. Returns what it started."""
        if self.plugin is not None:
            return self.plugin
        if self._settings is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="keelstone-extension-")
            self._settings = Settings(home=Path(self._scratch.name))
        parent = str(self.folder.parent)
        if parent not in sys.path:
            sys.path.insert(0, parent)
        module = importlib.import_module(f"{self.folder.name}.{self._module}")
        context = PluginContext(self.manifest, self._settings, self.services, self._hooks)
        self.plugin = module.start(context)
        self._hooks.register(self.plugin, self.manifest)
        record = ActivationRecord(self.tenant, self.manifest.id, self.manifest.version)
        self._activations.load([record])
        self._watch = LoopWatch({self.folder: self.manifest.id}, self._hooks.breaker_of, on_blocked=self.blocked.append)
        self._watch.start()
        return self.plugin

    async def close(self) -> None:
        """Stop watching the loop; ``stopping`` of the extension is the test's to call."""
        if self._watch is not None:
            await self._watch.close()
        if self._scratch is not None:
            self._scratch.cleanup()
        self._watch = self._scratch = None

    async def filter(self, hook: str, payload: Mapping[str, Any]) -> Filtered:
        """Call a filter hook. Raises the failure that the platform would note."""
        before = await self._ready(hook, payload, "filter")
        try:
            outcome = await self._hooks.filter(hook, before, self._context())
        except Rejected as refusal:
            return Filtered(before.model_dump(mode="json"), False, refusal.detail)
        after = outcome.payload
        return Filtered(after.model_dump(mode="json"), after != before, None)

    async def decide(self, hook: str, payload: Mapping[str, Any]) -> dict[str, Any] | None:
        """Call a decide hook: its answer, or None for no opinion."""
        asked = await self._ready(hook, payload, "decide")
        answer = (await self._hooks.decide(hook, asked, self._context())).payload
        return None if answer is None else dict(answer.model_dump(mode="json"))

    async def observe(self, event_type: str, data: Mapping[str, Any], **envelope: Any) -> None:
        """Hand it an event by the hook ``event_received``. Raises its failure."""
        event = sample_event(event_type, dict(data), **{"tenant": self.tenant, **envelope})
        seen = await self._ready("event_received", event, "observe")
        for implementation in self._hooks.observers(self.tenant):
            await self._hooks.deliver(implementation, seen, self._context())

    async def handle(self, event_type: str, data: Mapping[str, Any]) -> list[tuple[str, NewEvent]]:
        """Hand an event to its own handlers (``contribute_event_handlers``); what they emitted, by stream.

        Raises GuestRefused if none of them wants the type.
        """
        await self.start()
        handlers: list[EventHandler] = [h for _, h in self._hooks.contribute("contribute_event_handlers")]
        wanted = [h for h in handlers if any(_fits(event_type, pattern) for pattern in h.types)]
        if not wanted:
            raise GuestRefused(f"{self.manifest.id} handles no {event_type}; it handles {[h.types for h in handlers]}")
        sample = EventView.model_validate(sample_event(event_type, dict(data), tenant=self.tenant))
        transaction = FakeTransaction(self.tenant)
        for handler in wanted:
            await handler.handle(_event(sample), transaction)
        transaction.commit()
        return transaction.emitted

    async def contributions(self, hook: str) -> list[Any]:
        """What it contributes at boot by a hook such as ``contribute_routes``."""
        await self.start()
        return [item for _, item in self._hooks.contribute(hook)]

    async def _ready(self, hook: str, payload: Mapping[str, Any], kind: HookKind) -> Any:
        await self.start()
        spec = hook_spec(hook)
        if spec.kind != kind or spec.payload is None:
            raise GuestRefused(f"{hook} is a {spec.kind} hook, not a {kind} hook")
        if not self._hooks.ready(self.tenant, hook):
            raise PluginFailed(
                f"{self.manifest.id} does not implement {hook}.",
                plugin=self.manifest.id,
                hook=hook,
                fix="Mark a method of that name with plugin_sdk.hookimpl.",
            )
        try:
            return spec.payload.model_validate(dict(payload))
        except ValidationError as error:
            raise ValidationFailed(
                f"The test's payload is not one of {hook}: {error}", hook=hook, expected=spec.payload.__name__
            ) from error

    def _context(self) -> Context:
        return Context(tenant=self.tenant, correlation_id=new_id())


def _event(view: EventView) -> Event:
    return Event(
        id=view.id,
        type=view.type,
        tenant=view.tenant,
        stream=view.stream,
        version=view.version,
        position=view.position,
        time=datetime.fromisoformat(view.time),
        data=view.data,
        metadata={"correlation_id": view.correlation_id},
        prev_hash="",
        hash="",
    )


def _fits(event_type: str, pattern: str) -> bool:
    return event_type == pattern or (pattern.endswith(".*") and event_type.startswith(pattern[:-1]))
