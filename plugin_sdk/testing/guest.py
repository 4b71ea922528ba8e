"""One guest, with a host that lives in memory and tells what was done to it.

The guest itself runs on one of two hosts: ``sandbox``, its component in the real sandbox; or, in Python,
``memory``, its source in this process. Everything around it is the same: the gate of host calls, the
limits, what is saved and what is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from pydantic import ValidationError

from kernel.caps import Caps
from kernel.context import Context, new_id
from kernel.discovery import GUEST_RUNTIME, load_entry_point
from kernel.errors import KeelstoneError, NotFound, ValidationFailed
from kernel.events import NewEvent
from kernel.guests import GuestObserver
from kernel.hookspecs import hook_spec
from kernel.manifest import PluginManifest, load_manifest
from kernel.payloads import DecideReply, FilterReply
from kernel.ports import GuestCall, GuestResult, GuestRuntime, HostExchange, LogLine
from kernel.settings import Settings
from plugin_sdk.configuration import settle
from plugin_sdk.dev.summary import summary_of
from plugin_sdk.testing.chaos import Chaos
from plugin_sdk.testing.control import ControlledClock, ControlledRandom
from plugin_sdk.testing.fakes import FakeKv
from plugin_sdk.testing.memory import MemoryGuest
from plugin_sdk.testing.outside import Outside
from plugin_sdk.testing.samples import sample_event
from plugin_sdk.testing.web import FakeWeb
from plugin_sdk.toolchain.builder import BUILD, built_component

GuestHost = Literal["sandbox", "memory"]
"""Where a guest runs in tests."""
HOSTS = "KEELSTONE_TEST_HOSTS"
"""Environment variable: the hosts to test on, with commas; all that are possible if it is not set."""


def hosts_of(manifest: PluginManifest) -> tuple[GuestHost, ...]:
    """The hosts that a guest's tests can run on."""
    in_python = manifest.build is not None and manifest.build.language == "python"
    return ("sandbox", "memory") if in_python else ("sandbox",)


def settings_schema(folder: Path, manifest: PluginManifest) -> Mapping[str, Any] | None:
    """The JSON Schema of a plugin's settings, or None if it has none. Raises ValidationFailed."""
    if manifest.settings is None:
        return None
    file = folder / manifest.settings
    try:
        schema: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValidationFailed(
            f"The settings' schema can't be read: {error}", plugin=manifest.id, file=str(file)
        ) from error
    return schema


_PLENTY = 1 << 50
"""Fuel that no test uses up; it is only counted."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """A filter's answer. ``payload`` is what the caller goes on with (unchanged if the guest kept it);
    ``rejected`` is the reason of a refusal, or None."""

    payload: dict[str, Any]
    changed: bool
    rejected: str | None


@dataclass(frozen=True, slots=True)
class Observed:
    """What observing one event did: the events emitted and the lines logged by that call."""

    events: tuple[NewEvent, ...]
    logs: tuple[LogLine, ...]


class GuestRefused(AssertionError):
    """The test asked the guest for something that its manifest does not claim."""


class Guest:
    """The plugin in ``folder``, built already. Use it as an async context manager, or close it.

    ``settings`` are a tenant's, completed by the schema's defaults; ``grants`` are everything that the
    manifest asks for, unless told otherwise. Both can be replaced for one call. Effects are saved
    into ``kv`` and ``events`` when a call succeeds, as on the platform. A call may take ``patience``
    times the time that the manifest allows: tests judge what a guest does, on machines that are busy.
    ``clock`` and ``random`` are the guest's time and chance, ``outside`` are its secrets, models, messages
    and other plugins' services; :meth:`chaos` lets things go wrong.
    """

    def __init__(
        self,
        folder: Path,
        *,
        component: Path | None = None,
        settings: Mapping[str, Any] | None = None,
        grants: Iterable[str] | None = None,
        tenant: str = "acme",
        patience: int = 10,
        host: GuestHost = "sandbox",
        manifest: PluginManifest | None = None,
        schema: Mapping[str, Any] | None = None,
        metered: bool = False,
    ) -> None:
        """``manifest`` and ``schema`` (of the settings) are the folder's, unless there is only a component. ``metered``
        counts fuel, which takes some of the guest's speed."""
        self._metered = metered
        self.folder = folder
        self.host = host
        self.clock = ControlledClock()
        self.random = ControlledRandom()
        self._chaos: list[Chaos] = []
        self._observers: list[GuestObserver] = []
        self.manifest = load_manifest(folder) if manifest is None else manifest
        self._schema = settings_schema(folder, self.manifest) if manifest is None else schema
        self.tenant = tenant
        self.settings = dict(settings or {})
        self.grants = frozenset(self.manifest.capabilities.asked() if grants is None else grants)
        self.kv = FakeKv()
        self.outside = Outside(self.manifest)
        self.events: list[NewEvent] = []
        self.logs: list[LogLine] = []
        self._component = component or built_component(folder, self.manifest)
        limits = self.manifest.limits
        patient = limits.model_copy(update={"time_ms": limits.time_ms * patience})
        self._called = self.manifest.model_copy(update={"limits": patient})
        self._digest = ""
        self._runtime: GuestRuntime | None = None
        self._web: FakeWeb | None = None
        self._unrecorded: list[str] = []

    async def __aenter__(self) -> Guest:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def web(self) -> FakeWeb:
        """The server that the guest's HTTP requests may reach; put ``web.url`` into its settings."""
        if self._web is None:
            self._web = FakeWeb()
        return self._web

    def chaos(self, rule: str, *, times: int | None = None) -> Chaos:
        """From now on (``times`` times) let something go wrong: see :mod:`plugin_sdk.testing.chaos`.

        What comes back counts in ``struck``. Raises ChaosMisspelt.
        """
        made = Chaos(rule, times)
        self._chaos.append(made)
        return made

    def calm(self) -> None:
        """End all chaos."""
        self._chaos.clear()

    @property
    def stored(self) -> dict[str, str]:
        """What the guest keeps in ``kv`` for the tenant."""
        return self.kv.snapshot(self.tenant, self.manifest.id)

    @property
    def log_text(self) -> str:
        """All lines logged so far, one a line."""
        return "\n".join(line.message for line in self.logs)

    async def filter(
        self,
        hook: str,
        payload: Mapping[str, Any],
        *,
        settings: Mapping[str, Any] | None = None,
        grants: Iterable[str] | None = None,
    ) -> Filtered:
        """Call a filter hook. Raises the sandbox's errors if the guest fails."""
        before = self._checked(hook, payload, "filter")
        result = await self.call(hook, payload, settings=settings, grants=grants)
        reply = FilterReply.model_validate_json(result.output)
        if reply.reject is not None:
            return Filtered(before, False, reply.reject.reason)
        return Filtered(reply.payload or before, reply.payload not in (None, before), None)

    async def decide(
        self,
        hook: str,
        payload: Mapping[str, Any],
        *,
        settings: Mapping[str, Any] | None = None,
        grants: Iterable[str] | None = None,
    ) -> dict[str, Any] | None:
        """Call a decide hook: its answer, or None for no opinion."""
        self._checked(hook, payload, "decide")
        result = await self.call(hook, payload, settings=settings, grants=grants)
        return DecideReply.model_validate_json(result.output).answer

    async def observe(
        self,
        event_type: str,
        data: Mapping[str, Any],
        *,
        settings: Mapping[str, Any] | None = None,
        grants: Iterable[str] | None = None,
        **envelope: Any,
    ) -> Observed:
        """Let the guest observe one event; ``envelope`` replaces members such as ``id`` or ``stream``."""
        event = sample_event(event_type, dict(data), **{"tenant": self.tenant, **envelope})
        self._checked("event_received", event, "observe")
        result = await self.call("event_received", event, settings=settings, grants=grants)
        return Observed(tuple(result.effects.events), result.logs)

    async def call(
        self,
        hook: str,
        payload: Mapping[str, Any],
        *,
        settings: Mapping[str, Any] | None = None,
        grants: Iterable[str] | None = None,
    ) -> GuestResult:
        """Call any hook with any JSON payload and save the effects."""
        return await self.call_raw(hook, json.dumps(payload), settings=settings, grants=grants)

    async def call_raw(
        self,
        hook: str,
        payload: str,
        *,
        settings: Mapping[str, Any] | None = None,
        grants: Iterable[str] | None = None,
    ) -> GuestResult:
        """Call any hook with any text."""
        runtime = await self.start()
        call = GuestCall(
            plugin=self.manifest.id,
            version=self.manifest.version,
            digest=self._digest,
            manifest=self._called,
            hook=hook,
            payload=payload,
            context=Context(tenant=self.tenant, correlation_id=new_id()),
            grants=(self.grants if grants is None else frozenset(grants)) - self._denied(),
            settings=self._settled(self.settings if settings is None else settings),
        )
        try:
            result = await runtime.call(call)
        except KeelstoneError as error:
            self._tell(call, error)
            raise
        self._tell(call, result)
        self.kv.save(self.tenant, self.manifest.id, result.effects)
        self.events += result.effects.events
        return result

    def watch(self, observer: GuestObserver) -> None:
        """Call ``observer`` with every call and what it came to: a result or an error, with its recording."""
        self._observers.append(observer)

    def _tell(self, call: GuestCall, came_to: GuestResult | KeelstoneError) -> None:
        for observer in self._observers:
            observer(call, came_to)

    async def told(self, hook: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Call any hook and say what came of it, JSON-ready: result, payload or answer, logs, events, usage."""
        logged = len(self.logs)
        result = await self.call(hook, payload)
        reply = json.loads(result.output)
        return {
            "result": summary_of(hook, json.dumps(dict(payload)), result.output),
            "payload": reply.get("payload"),
            "answer": reply.get("answer"),
            "logs": [{"level": line.level, "message": line.message} for line in self.logs[logged:]],
            "events": [{"type": event.type, "data": dict(event.data)} for event in result.effects.events],
            "kv": dict(result.effects.kv_writes),
            "microseconds": result.usage.wall_us,
            "memory_bytes": result.usage.memory_bytes,
        }

    async def close(self) -> None:
        """Stop the sandbox and the web."""
        if self._runtime is not None:
            await self._runtime.close()
        if self._web is not None:
            self._web.close()
            self._unrecorded = self._web.unrecorded
        self._runtime = self._web = None

    def check_recorded(self) -> None:
        """Raise AssertionError if the guest sent a request that its recording does not have."""
        if self._unrecorded:
            raise AssertionError(
                f"the recording has no answer to {', '.join(self._unrecorded)}; delete the file to record anew"
            )

    async def start(self) -> GuestRuntime:
        """Open the sandbox and compile the component; calls do it themselves. Raises NotFound, SandboxError."""
        if self._runtime is not None:
            return self._runtime
        native = MemoryGuest(self.folder, self.manifest, self.clock, self.random) if self.host == "memory" else None
        if native is None and not self._component.is_file():
            raise NotFound(
                f"{self.manifest.id} has no component yet.",
                plugin=self.manifest.id,
                file=str(self.folder),
                fix="Run `keelstone plugin build` first.",
            )
        component = b"" if native else self._component.read_bytes()
        self._digest = hashlib.sha256(component).hexdigest()
        allowed = (self.web.host,) if self.manifest.capabilities.http else ()
        # Compiled artifacts stay in the plugin's build folder: CPython takes ten seconds to compile.
        home = self.folder / BUILD / "sandbox"
        settings = Settings(
            home=home,
            http_private_allow=allowed,
            sandbox_slots=16,
            sandbox_threads=2,
            sandbox_max_time_ms=self._called.limits.time_ms,
            # What stands before the host may wait, which the event loop must not.
            sandbox_in_place=False,
            sandbox_caps=Caps(fuel=_PLENTY if self._metered else None),
        )
        open_runtime = load_entry_point(GUEST_RUNTIME, "wasmtime")
        runtime: GuestRuntime = open_runtime(
            settings,
            kv=self.kv,
            log=self._log,
            find=self.outside.find,
            interposer=self._interposed,
            instead_of_network=self.web.host if allowed else None,
            native=native,
        )
        await runtime.prepare(self._digest, component, self.manifest)
        self._runtime = runtime
        return runtime

    def _denied(self) -> frozenset[str]:
        return frozenset(chaos.denied for chaos in self._chaos if chaos.denied is not None)

    def _interposed(self, call: GuestCall, function: str, arguments: tuple[Any, ...]) -> HostExchange | None:
        """What the test answers in the host's place."""
        for chaos in self._chaos:
            struck = chaos.meet(function)
            if struck is not None:
                return struck
        answer = self.clock.answer(function)
        if answer is None:
            answer = self.random.answer(function, arguments)
        return None if answer is None else HostExchange(function, arguments, answer)

    def _log(self, call: GuestCall, line: LogLine) -> None:
        self.logs.append(line)

    def _checked(self, hook: str, payload: Mapping[str, Any], kind: str) -> dict[str, Any]:
        """The payload as the platform would hand it over. Raises GuestRefused or ValidationFailed."""
        spec = hook_spec(hook)
        if spec.kind != kind or spec.payload is None:
            raise GuestRefused(f"{hook} is a {spec.kind} hook, not a {kind} hook")
        if hook not in self.manifest.hooks:
            raise GuestRefused(
                f"{self.manifest.id} does not claim {hook}; its manifest has {sorted(self.manifest.hooks)}"
            )
        try:
            return spec.payload.model_validate(dict(payload)).model_dump(mode="json")
        except ValidationError as error:
            raise ValidationFailed(
                f"The test's payload is not one of {hook}: {error}", hook=hook, expected=spec.payload.__name__
            ) from error

    def _settled(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """``given`` completed by the schema's defaults and checked, as the platform does."""
        return settle(self._schema, given, plugin=self.manifest.id, tenant=self.tenant)
