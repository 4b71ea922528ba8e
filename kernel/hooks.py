"""Dispatch: filter, decide, observe; order and tenant from the registry, guards from the calls, explain here.

pluggy registers and validates; this calls. For each (tenant, hook) there is a ready tuple of
implementations, made once per activation set: the request path never scans plugins. A timer is
armed only for an implementation that really suspends (see ``resilience.finish_within``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from types import CoroutineType
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from kernel.activation import Activations, Snapshot
from kernel.breakers import Breakers
from kernel.calls import TOO_LARGE, GuardedCalls
from kernel.context import Context
from kernel.errors import KeelstoneError, PluginFailed, PluginUnavailable, Rejected
from kernel.explain import DispatchTrace, Step, TraceLog
from kernel.hookspecs import HOOKS, HookSpec, hook_spec
from kernel.implementations import GuestBinder, HookRegistry, Implementation
from kernel.manifest import PluginManifest
from kernel.outcomes import GuestAnswer, Outcome
from kernel.payloads import EventView, Reject
from kernel.ports import Effects, KvStore
from kernel.resilience import Breaker

P = TypeVar("P", bound=BaseModel)
_now = time.perf_counter_ns
# A NamedTuple's own constructor costs twice as much, and a Step is made for every implementation.
_tuple: Callable[[type[Step], tuple[Any, ...]], Step] = tuple.__new__


class Dispatcher:
    """Calls hooks. One object per platform process."""

    def __init__(
        self,
        activations: Activations,
        guests: GuestBinder | None = None,
        *,
        kv: KvStore | None = None,
        traces: TraceLog | None = None,
        on_trace: Callable[[DispatchTrace], None] | None = None,
        breaker: Callable[[], Breaker] = Breaker,
        breakers: Breakers | None = None,
        specs: Mapping[str, HookSpec] = HOOKS,
    ) -> None:
        self._activations = activations
        self._kv = kv
        self.traces = traces or TraceLog()
        self._on_trace = on_trace
        self._specs = specs
        self.breakers = breakers or Breakers(make=breaker)
        self._registry = HookRegistry(activations, guests, specs, self.breakers)
        self._call = GuardedCalls(self._registry).call

    def register(self, plugin: object, manifest: PluginManifest) -> None:
        """Add a built-in plugin or extension. Raises PluginFailed if a signature is wrong."""
        self._registry.register(plugin, manifest)

    def contribute(self, hook: str) -> list[tuple[PluginManifest, Any]]:
        """What each built-in and extension contributes, in order; an exception stops the boot."""
        return self._registry.contribute(hook)

    @property
    def manifests(self) -> dict[str, PluginManifest]:
        """Manifests of the registered built-ins and extensions, by id."""
        return self._registry.manifests

    def ready(self, tenant: str, hook: str, call: str = "") -> tuple[Implementation, ...]:
        """The implementations of ``hook`` that are on for ``tenant``, in calling order; for the call with
        this correlation id, if another version of a plugin takes a share of the calls."""
        return self._registry.ready(tenant, hook, call)

    def check_order(self, active: Iterable[PluginManifest]) -> None:
        """Raise Conflict if the built-ins and these guests and extensions, on together, contradict each
        other's ``before`` and ``after``. Asked before a plugin is switched on, so that no call meets it."""
        self._registry.check_order(active)

    async def filter(self, hook: str, payload: P, context: Context) -> Outcome[P]:
        """Let each implementation change ``payload`` or refuse it, in order.

        Raises Rejected with the plugin's reason, or PluginUnavailable if a ``fail_closed`` hook's
        implementation failed.
        """
        spec = self._specs.get(hook) or hook_spec(hook)
        snapshot = self._activations.current
        outcome = Outcome(payload, context.tenant, kv=self._kv)
        steps: list[Step] = []
        try:
            for impl in self._ready(snapshot, hook, context):
                before = outcome.payload
                began = _now()
                try:
                    value = self._call(impl, spec, before, context)
                    if type(value) is CoroutineType:
                        value = await value
                    if type(value) is GuestAnswer:
                        if value.effects:
                            outcome.effects.append((impl.plugin, value.effects))
                        value = value.value
                    if type(value) is Reject:
                        raise Rejected(value.reason, plugin=impl.plugin, hook=hook, tenant=context.tenant)
                    if value is not None:
                        if type(value) is not type(before):
                            raise _nonsense(impl, hook, type(before).__name__, value)
                        outcome.payload = value
                except Rejected as error:
                    steps.append(_step(impl, "rejected", began, before, None, error))
                    raise
                except KeelstoneError as error:
                    steps.append(_step(impl, "failed", began, before, None, error))
                    if error.status == TOO_LARGE:
                        raise
                    if spec.on_failure == "fail_closed":
                        raise _unavailable(impl, hook, context.tenant, error) from error
                    continue
                steps.append(
                    _tuple(
                        Step,
                        (
                            impl.plugin,
                            impl.version,
                            "unchanged" if outcome.payload is before else "changed",
                            (_now() - began) / 1000,
                            before,
                            outcome.payload,
                            None,
                            "closed",
                        ),
                    )
                )
            return outcome
        finally:
            if steps:
                self._record(spec, context, steps, snapshot.generation)

    async def decide(self, hook: str, payload: BaseModel, context: Context) -> Outcome[Any]:
        """The first implementation's answer that is not None; ``payload`` of the outcome is None
        if nobody has an opinion. Raises PluginUnavailable like :meth:`filter`."""
        spec = self._specs.get(hook) or hook_spec(hook)
        snapshot = self._activations.current
        outcome: Outcome[Any] = Outcome(cast(Any, None), context.tenant, kv=self._kv)
        steps: list[Step] = []
        try:
            for impl in self._ready(snapshot, hook, context):
                began = _now()
                try:
                    value = self._call(impl, spec, payload, context)
                    if type(value) is CoroutineType:
                        value = await value
                    if type(value) is GuestAnswer:
                        if value.effects:
                            outcome.effects.append((impl.plugin, value.effects))
                        value = value.value
                    if value is not None and spec.result is not None and not isinstance(value, spec.result):
                        raise _nonsense(impl, hook, spec.result.__name__, value)
                except KeelstoneError as error:
                    steps.append(_step(impl, "failed", began, None, None, error))
                    if error.status == TOO_LARGE:
                        raise
                    if spec.on_failure == "fail_closed":
                        raise _unavailable(impl, hook, context.tenant, error) from error
                    continue
                answered = value is not None
                steps.append(_step(impl, "answered" if answered else "no opinion", began, None, None, None))
                if answered:
                    outcome.payload = value
                    break
            return outcome
        finally:
            if steps:
                self._record(spec, context, steps, snapshot.generation)

    def breaker_of(self, impl: Implementation, tenant: str, hook: str) -> Breaker:
        """The breaker of an implementation for a tenant and hook, made if need be."""
        return self._registry.breaker_of(impl, tenant, hook)

    def observers(self, tenant: str, hook: str = "event_received", call: str = "") -> tuple[Implementation, ...]:
        """Who observes for this tenant. Each is called with :meth:`deliver`, isolated from the rest."""
        return self.ready(tenant, hook, call)

    async def deliver(self, impl: Implementation, event: EventView, context: Context) -> Effects:
        """Hand an event to one observer; its effects are the caller's to save.

        Raises the observer's failure as a KeelstoneError: the consumer runner retries or parks it.
        """
        spec = self._specs["event_received"]
        generation = self._activations.current.generation
        began = _now()
        try:
            value = self._call(impl, spec, event, context)
            if type(value) is CoroutineType:
                value = await value
        except KeelstoneError as error:
            self._record(spec, context, [_step(impl, "failed", began, None, None, error)], generation)
            raise
        self._record(spec, context, [_step(impl, "observed", began, None, None, None)], generation)
        return value.effects if isinstance(value, GuestAnswer) else Effects()

    def _ready(self, snapshot: Snapshot, hook: str, context: Context) -> tuple[Implementation, ...]:
        return self._registry.ready_in(snapshot.of(context.tenant), context.tenant, hook, context.correlation_id)

    def _record(self, spec: HookSpec, context: Context, steps: list[Step], generation: str) -> None:
        trace = DispatchTrace(spec.name, spec.kind, context.tenant, context.correlation_id, generation, tuple(steps))
        self.traces.record(trace)
        if self._on_trace is not None:
            self._on_trace(trace)


def _step(
    impl: Implementation,
    outcome: str,
    began: int,
    before: BaseModel | None,
    after: BaseModel | None,
    error: KeelstoneError | None,
) -> Step:
    state = impl.breaker.state if impl.breaker is not None else "closed"
    text = f"{error.code}: {error.detail}" if error else None
    return Step(impl.plugin, impl.version, outcome, (_now() - began) / 1000, before, after, text, state)


def _nonsense(impl: Implementation, hook: str, expected: str, value: object) -> PluginFailed:
    return PluginFailed(
        f"{impl.plugin} answered {hook} with the wrong type.",
        plugin=impl.plugin,
        hook=hook,
        expected=f"{expected}, Reject or None",
        found=type(value).__name__,
    )


def _unavailable(impl: Implementation, hook: str, tenant: str, error: KeelstoneError) -> PluginUnavailable:
    return PluginUnavailable(
        f"{hook} needs {impl.plugin}, which did not answer: {error.detail}",
        plugin=impl.plugin,
        hook=hook,
        tenant=tenant,
        expected=error.expected,
        found=error.found,
        fix=" ".join(filter(None, ("Try again, or have an admin or operator switch the plugin off.", error.fix))),
        extra={"cause": error.code},
    )
