"""Guests as implementations: JSON of the hook's schema out, JSON of its reply schema back.

The dispatcher cannot tell a guest from a built-in: what comes back from :meth:`Guests.bind`'s
callable is the payload model, a ``Reject``, an answer or None, wrapped with the effects to save.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError

from kernel.activation import Upgrade
from kernel.context import Context
from kernel.errors import KeelstoneError, PluginFailed, PluginQuarantined, PluginUnavailable
from kernel.hookspecs import HookSpec, hook_spec
from kernel.manifest import PluginManifest
from kernel.outcomes import GuestAnswer
from kernel.payloads import DecideReply, FilterReply, ObserveReply
from kernel.ports import GuestCall, GuestRelease, GuestResult, GuestRuntime

GuestObserver = Callable[[GuestCall, GuestResult | KeelstoneError], None]
MirrorSink = Callable[[str, GuestCall, GuestResult | KeelstoneError, GuestCall], None]
"""Takes an upgrade's id, a call that was answered, what it came to, and the same call for the new version."""


CallGate = Callable[[GuestCall], None]
"""Asked before each call; what it raises is the call's answer, and no failure of the plugin."""


MOST_OWED_SECONDS = 2.0
"""What a runtime may give one call back in all, for turns at the machine that its guest was not given."""


class Guests:
    """The installed guests of this process and how to call them."""

    def __init__(self, runtime: GuestRuntime) -> None:
        self._runtime = runtime
        self._observers: list[GuestObserver] = []
        self._gates: list[CallGate] = []
        self._mirror: MirrorSink | None = None
        self._releases: dict[tuple[str, str], GuestRelease] = {}
        self._broken: dict[tuple[str, str], KeelstoneError] = {}
        self._active: dict[tuple[str, str], int] = {}

    def add(self, release: GuestRelease) -> None:
        """Make an installed release callable."""
        key = (release.manifest.id, release.manifest.version)
        self._releases[key] = release
        self._broken.pop(key, None)

    def add_broken(self, release: GuestRelease, reason: KeelstoneError) -> None:
        """Note a release that is on and can't be loaded: its hooks fail by their failure policy
        instead of being skipped in silence."""
        key = (release.manifest.id, release.manifest.version)
        self._releases[key] = release
        self._broken[key] = reason

    def remove(self, plugin: str, version: str) -> None:
        """Take a release away; calls under way keep the callable they have."""
        self._releases.pop((plugin, version), None)
        self._broken.pop((plugin, version), None)

    def has(self, plugin: str, version: str) -> bool:
        """Whether the release is callable here."""
        return (plugin, version) in self._releases and (plugin, version) not in self._broken

    def broken(self, plugin: str, version: str) -> bool:
        """Whether the release is on and can't be called: unreadable, not compilable, or withdrawn."""
        return (plugin, version) in self._broken

    def manifest(self, plugin: str, version: str) -> PluginManifest | None:
        """The release's manifest, or None if it is not here."""
        release = self._releases.get((plugin, version))
        return None if release is None else release.manifest

    def active(self, plugin: str, version: str) -> int:
        """Calls of the release that are under way."""
        return self._active.get((plugin, version), 0)

    def bind(
        self,
        plugin: str,
        version: str,
        spec: HookSpec,
        grants: frozenset[str],
        settings: Mapping[str, Any],
        shadow: Upgrade | None = None,
    ) -> tuple[PluginManifest, Callable[[Any, Context], Any]] | None:
        """Manifest and callable for one hook, or None if the release is not here. Once answered, calls
        are handed to the mirror together with their twins for the version ``shadow``."""
        release = self._releases.get((plugin, version))
        if release is None:
            return None
        manifest, digest = release.manifest, release.digest
        key = (plugin, version)
        broken = self._broken.get(key)
        mirrored = self._mirroring(plugin, shadow)

        async def call(payload: BaseModel, context: Context) -> GuestAnswer:
            if broken is not None:
                if isinstance(broken, PluginQuarantined):
                    raise PluginQuarantined(broken.detail, plugin=plugin, fix=broken.fix)
                raise PluginUnavailable(
                    f"{plugin} {version} can't be loaded: {broken.detail}", plugin=plugin, fix=broken.fix
                )
            request = GuestCall(
                plugin=plugin,
                version=version,
                digest=digest,
                manifest=manifest,
                hook=spec.name,
                payload=payload.model_dump_json(),
                context=context,
                grants=grants,
                settings=settings,
            )
            for gate in self._gates:
                gate(request)
            self._active[key] = self._active.get(key, 0) + 1
            try:
                result = await self._runtime.call(request)
                answer = _lift(spec, result, payload, request)
            except KeelstoneError as error:
                self._tell(request, error)
                if mirrored is not None:
                    mirrored(request, error)
                raise
            finally:
                self._active[key] -= 1
            self._tell(request, result)
            if mirrored is not None:
                mirrored(request, result)
            return GuestAnswer(answer, result.effects)

        return manifest, call

    def gate(self, gate: CallGate) -> None:
        """Ask ``gate`` before each call, on the request path: it may refuse by raising a KeelstoneError."""
        self._gates.append(gate)

    def watch(self, observer: GuestObserver) -> None:
        """Call ``observer`` with every call and its result, or the error that it came to."""
        self._observers.append(observer)

    def mirror(self, sink: MirrorSink) -> None:
        """Hand mirrored calls to ``sink`` from now on. It is called on the request path: it only takes note."""
        self._mirror = sink

    def _mirroring(
        self, plugin: str, shadow: Upgrade | None
    ) -> Callable[[GuestCall, GuestResult | KeelstoneError], None] | None:
        release = self._releases.get((plugin, shadow.version)) if shadow is not None else None
        if shadow is None or release is None or not self.has(plugin, shadow.version):
            return None
        manifest, digest, settings = release.manifest, release.digest, shadow.settings

        def hand_on(call: GuestCall, result: GuestResult | KeelstoneError) -> None:
            if self._mirror is None or not shadow.takes(call.context.correlation_id):
                return
            twin = replace(
                call,
                version=shadow.version,
                digest=digest,
                manifest=manifest,
                grants=shadow.grants,
                settings=settings,
            )
            self._mirror(shadow.id, call, result, twin)

        return hand_on

    async def rehearse(self, call: GuestCall) -> GuestResult:
        """Run a mirrored call: nobody is told of it, and its effects are the caller's to drop. Raises what
        the runtime raises, and PluginFailed for a reply that breaks the hook's schema."""
        key = (call.plugin, call.version)
        self._active[key] = self._active.get(key, 0) + 1
        try:
            result = await self._runtime.call(call)
            spec = hook_spec(call.hook)
            if spec.payload is not None:
                _lift(spec, result, spec.payload.model_validate_json(call.payload), call)
            return result
        finally:
            self._active[key] -= 1

    def _tell(self, call: GuestCall, result: GuestResult | KeelstoneError) -> None:
        for observer in self._observers:
            observer(call, result)


def _lift(spec: HookSpec, result: GuestResult, payload: BaseModel, call: GuestCall) -> Any:
    """The reply as a built-in would have returned it. Raises PluginFailed if it breaks the schema."""
    output = result.output
    try:
        if spec.kind == "filter":
            reply = FilterReply.model_validate_json(output)
            if reply.reject is not None:
                return reply.reject
            return None if reply.payload is None else type(payload).model_validate(reply.payload)
        if spec.kind == "decide":
            answer = DecideReply.model_validate_json(output).answer
            return None if answer is None or spec.result is None else spec.result.model_validate(answer)
        ObserveReply.model_validate_json(output)
        return None
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(p) for p in e['loc']) or 'reply'}: {e['msg']}" for e in error.errors(include_url=False)[:5]
        )
        failed = PluginFailed(
            f"{call.plugin} answered {spec.name} with something that does not fit: {problems}.",
            plugin=call.plugin,
            hook=spec.name,
            tenant=call.context.tenant,
            expected=f"JSON of the {spec.kind} reply and {type(payload).__name__}",
            found=output[:200],
            fix="See docs/reference/hooks.md for the reply's schema.",
        )
        failed.usage, failed.recording, failed.output = result.usage, result.recording, output
        raise failed from error
