"""Dispatch: order, tenant filter, deadline, bulkhead, breaker, failure policy, explain.

pluggy registers and validates; this calls. For each (tenant, hook) there is a ready tuple of
implementations, made once per activation set: the request path never scans plugins. A timer is
armed only for an implementation that really suspends (see ``resilience.finish_within``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import CoroutineType
from typing import Any, Generic, Protocol, TypeVar, cast

import pluggy
from pydantic import BaseModel

from kernel.activation import Activations, ActivationSet
from kernel.context import Context
from kernel.errors import (
    BreakerOpen,
    BulkheadFull,
    ConcurrencyConflict,
    DeadlineExceeded,
    KeelstoneError,
    PluginFailed,
    PluginUnavailable,
    Rejected,
)
from kernel.explain import DispatchTrace, Step, TraceLog
from kernel.hookspecs import HOOKS, PROJECT, HookSpec, HookSpecs, hook_spec
from kernel.manifest import HookUse, PluginManifest
from kernel.ordering import order_plugins
from kernel.payloads import EventView, Reject
from kernel.ports import Effects, KvConflict, KvStore, Transaction
from kernel.resilience import Breaker, finish_within

P = TypeVar("P", bound=BaseModel)
_now = time.perf_counter_ns
_INFINITE = float("inf")
# A NamedTuple's own constructor costs twice as much, and a Step is made for every implementation.
_tuple: Callable[[type[Step], tuple[Any, ...]], Step] = tuple.__new__


class Implementation:
    """One plugin's function for one hook, as one tenant reaches it."""

    __slots__ = ("active", "breaker", "call", "limit", "manifest", "plugin", "seconds", "version")

    def __init__(
        self, manifest: PluginManifest, call: Callable[[Any, Context], Any], seconds: float, breaker: Breaker | None
    ) -> None:
        self.manifest = manifest
        self.plugin = manifest.id
        self.version = manifest.version
        self.call = call
        self.seconds = seconds
        self.breaker = breaker
        self.limit = manifest.limits.concurrency if manifest.kind == "guest" else 1_000
        self.active = 0


class GuestBinder(Protocol):
    """Makes a callable that runs a guest's hook (the dispatcher's only sight of the sandbox).

    The callable answers like a built-in's would; effects are left in ``GuestAnswer``.
    """

    def bind(
        self, plugin: str, version: str, spec: HookSpec, grants: frozenset[str], settings: Any
    ) -> tuple[PluginManifest, Callable[[Any, Context], Any]] | None:
        """Manifest and callable, or None if the release is not installed on this platform."""
        ...

    def hooks_of(self, plugin: str, version: str) -> PluginManifest | None:
        """The installed release's manifest, or None."""
        ...


@dataclass(frozen=True, slots=True)
class GuestAnswer:
    """A guest's answer, lifted to what a built-in would return, with the effects to save."""

    value: Any
    effects: Effects


@dataclass(slots=True)
class Outcome(Generic[P]):
    """What a filter or decide dispatch came to.

    ``payload`` is the filtered payload (or the decision, or None). Save the guests' effects in the
    use case's own transaction with :meth:`save`, so that they are kept only if the work is.
    """

    payload: P
    tenant: str
    effects: list[tuple[str, Effects]] = field(default_factory=list)
    kv: KvStore | None = None

    async def save(self, transaction: Transaction) -> None:
        """Write the guests' effects. Raises ConcurrencyConflict if their state moved meanwhile."""
        for plugin, effects in self.effects:
            await save_effects(transaction, self.kv, self.tenant, plugin, effects)


async def save_effects(
    transaction: Transaction, kv: KvStore | None, tenant: str, plugin: str, effects: Effects
) -> None:
    """Save what one guest call wants kept: its KV writes and events. Raises ConcurrencyConflict."""
    if kv is not None and effects.kv_writes:
        try:
            await kv.apply(transaction, tenant, plugin, effects)
        except KvConflict as error:
            raise ConcurrencyConflict(
                f"The stored state of {plugin} was changed by another call meanwhile.",
                plugin=plugin,
                tenant=tenant,
                fix="Try again.",
            ) from error
    if effects.events:
        transaction.emit(f"plugin:{plugin}", *effects.events, tenant=tenant)


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
        specs: Mapping[str, HookSpec] = HOOKS,
    ) -> None:
        self._activations = activations
        self._guests = guests
        self._kv = kv
        self.traces = traces or TraceLog()
        self._on_trace = on_trace
        self._new_breaker = breaker
        self._specs = specs
        self._breakers: dict[tuple[str, str, str, str], Breaker] = {}
        self._manifests: dict[str, PluginManifest] = {}
        self._pluggy = pluggy.PluginManager(PROJECT)
        self._pluggy.add_hookspecs(HookSpecs)

    # ------------------------------------------------------------------ boot

    def register(self, plugin: object, manifest: PluginManifest) -> None:
        """Add a built-in plugin or extension. Raises PluginFailed if a signature is wrong."""
        try:
            self._pluggy.register(plugin, name=manifest.id)
            self._pluggy.check_pending()
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginFailed(
                f"{manifest.id} does not fit the hook specifications: {error}",
                plugin=manifest.id,
                fix="Compare the implementation's name and arguments with kernel/hookspecs.py.",
            ) from error
        self._manifests[manifest.id] = manifest

    def contribute(self, hook: str) -> list[tuple[PluginManifest, Any]]:
        """What each built-in and extension contributes, in order; an exception stops the boot."""
        found: list[tuple[PluginManifest, Any]] = []
        for manifest, function, names in self._in_process(hook):
            try:
                contributed = function(*[_no_argument(n) for n in names])
            except Exception as error:
                raise PluginFailed(
                    f"{manifest.id} could not contribute: {type(error).__name__}: {error}",
                    plugin=manifest.id,
                    hook=hook,
                ) from error
            if contributed is None:
                continue
            items = contributed if isinstance(contributed, (list, tuple)) else [contributed]
            found.extend((manifest, item) for item in items)
        return found

    @property
    def manifests(self) -> dict[str, PluginManifest]:
        """Manifests of the registered built-ins and extensions, by id."""
        return dict(self._manifests)

    # ------------------------------------------------------------------ ready tuples

    def ready(self, tenant: str, hook: str) -> tuple[Implementation, ...]:
        """The implementations of ``hook`` that are on for ``tenant``, in calling order."""
        return self._ready(self._activations.current.of(tenant), tenant, hook)

    def _ready(self, active: ActivationSet, tenant: str, hook: str) -> tuple[Implementation, ...]:
        # The default set serves many tenants, so its tuples carry the tenant in their key.
        key = hook if active.activations else f"{tenant}\n{hook}"
        found = active.ready.get(key)
        if found is None:
            found = self._build(active, tenant, self._specs.get(hook) or hook_spec(hook))
            active.ready[key] = found
        return found

    def _build(self, active: ActivationSet, tenant: str, spec: HookSpec) -> tuple[Implementation, ...]:
        candidates: dict[str, Implementation] = {}
        uses: dict[str, HookUse] = {}
        seconds = spec.deadline_ms / 1000
        for manifest, function, names in self._in_process(spec.name):
            if manifest.kind == "extension" and active.get(manifest.id) is None:
                continue
            call = _adapt(function, names)
            candidates[manifest.id] = self._implementation(manifest, call, seconds, tenant, spec)
            uses[manifest.id] = manifest.hooks.get(spec.name, HookUse())
        for item in active.activations:
            if item.plugin in self._manifests or self._guests is None:
                continue
            bound = self._guests.bind(item.plugin, item.version, spec, item.grants, item.settings)
            if bound is None:
                continue
            manifest, call = bound
            if spec.name not in manifest.hooks:
                continue
            # A guest ends by its own limits; the margin lets its clearer error through first.
            limit = min(seconds, manifest.limits.time_ms / 1000 + 0.5)
            candidates[manifest.id] = self._implementation(manifest, call, limit, tenant, spec)
            uses[manifest.id] = manifest.hooks[spec.name]
        return tuple(candidates[plugin] for plugin in order_plugins(uses, spec.name))

    def _implementation(
        self, manifest: PluginManifest, call: Callable[[Any, Context], Any], seconds: float, tenant: str, spec: HookSpec
    ) -> Implementation:
        key = (manifest.id, manifest.version, tenant, spec.name)
        return Implementation(manifest, call, seconds, self._breakers.get(key))

    def _in_process(self, hook: str) -> Iterable[tuple[PluginManifest, Callable[..., Any], Sequence[str]]]:
        caller = getattr(self._pluggy.hook, hook)
        found = {impl.plugin_name: impl for impl in caller.get_hookimpls()}
        uses = {name: self._manifests[name].hooks.get(hook, HookUse()) for name in found}
        for name in order_plugins(uses, hook):
            yield self._manifests[name], found[name].function, found[name].argnames

    # ------------------------------------------------------------------ calls

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
            for impl in self._ready(snapshot.of(context.tenant), context.tenant, hook):
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
            for impl in self._ready(snapshot.of(context.tenant), context.tenant, hook):
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

    def observers(self, tenant: str, hook: str = "event_received") -> tuple[Implementation, ...]:
        """Who observes for this tenant. Each is called with :meth:`deliver`, isolated from the rest."""
        return self.ready(tenant, hook)

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

    def _call(self, impl: Implementation, spec: HookSpec, payload: Any, context: Context) -> Any:
        """Call one implementation under its breaker and bulkhead.

        Gives its value, or, if it suspended, a coroutine that finishes it under its deadline. Not
        async itself: most implementations never suspend, and this is the platform's hottest path.
        """
        breaker = impl.breaker
        era = 0
        if breaker is not None:
            if breaker.state != "closed" and not breaker.allow():
                raise self._rested(impl, spec, context)
            era = breaker.era
        if impl.active >= impl.limit:
            raise self._full(impl, spec, context, era)
        impl.active += 1
        try:
            value = impl.call(payload, context)
            if type(value) is CoroutineType:
                try:
                    awaited = value.send(None)
                except StopIteration as done:
                    value = done.value
                else:
                    # It suspended: what is left of it gets a timer of its own.
                    impl.active += 1
                    return self._finish(impl, spec, value, awaited, context, era)
        except asyncio.CancelledError:
            if breaker is not None:
                breaker.abandon(era)
            raise
        except (Exception, SystemExit) as error:
            raise self._failed(impl, spec, context, error, era) from error
        finally:
            impl.active -= 1
        if breaker is not None and (breaker.failures or breaker.state != "closed"):
            breaker.success(era)
        return value

    async def _finish(
        self, impl: Implementation, spec: HookSpec, coroutine: Any, awaited: Any, context: Context, era: int
    ) -> Any:
        breaker = impl.breaker
        try:
            seconds = impl.seconds
            if context.deadline != _INFINITE:
                seconds = min(seconds, context.remaining())
            value = await finish_within(coroutine, awaited, seconds)
        except asyncio.CancelledError:
            if breaker is not None:
                breaker.abandon(era)
            raise
        except (Exception, SystemExit) as error:
            raise self._failed(impl, spec, context, error, era) from error
        finally:
            impl.active -= 1
        if breaker is not None:
            breaker.success(era)
        return value

    def _rested(self, impl: Implementation, spec: HookSpec, context: Context) -> BreakerOpen:
        failures = impl.breaker.failures if impl.breaker is not None else 0
        return BreakerOpen(
            f"{impl.plugin} failed {failures} times in a row and is being rested.",
            plugin=impl.plugin,
            hook=spec.name,
            tenant=context.tenant,
            fix="It is tried again by itself; see the plugin's log for the first failure.",
        )

    def _full(self, impl: Implementation, spec: HookSpec, context: Context, era: int) -> BulkheadFull:
        if impl.breaker is not None:
            impl.breaker.abandon(era)
        return BulkheadFull(
            f"{impl.plugin} already has {impl.active} calls under way.",
            plugin=impl.plugin,
            hook=spec.name,
            tenant=context.tenant,
            expected=f"at most {impl.limit}",
            found=impl.active,
        )

    def _failed(
        self, impl: Implementation, spec: HookSpec, context: Context, error: BaseException, era: int
    ) -> KeelstoneError:
        if isinstance(error, Rejected):
            # A refusal is an answer, not a failure.
            if impl.breaker is not None:
                impl.breaker.success(era)
            error.plugin = error.plugin or impl.plugin
            error.hook = error.hook or spec.name
            error.tenant = error.tenant or context.tenant
            return error
        # The caller's own deadline or a full sandbox says nothing about the plugin's health.
        blameless = isinstance(error, BulkheadFull) or (
            isinstance(error, DeadlineExceeded) and context.remaining() <= 0
        )
        if blameless:
            if impl.breaker is not None:
                impl.breaker.abandon(era)
        else:
            if impl.breaker is None:
                key = (impl.plugin, impl.version, context.tenant, spec.name)
                impl.breaker = self._breakers.setdefault(key, self._new_breaker())
            impl.breaker.failure(era)
        if isinstance(error, KeelstoneError):
            error.plugin = error.plugin or impl.plugin
            error.hook = error.hook or spec.name
            error.tenant = error.tenant or context.tenant
            return error
        return PluginFailed(
            f"{impl.plugin} raised {type(error).__name__}: {error}",
            plugin=impl.plugin,
            hook=spec.name,
            tenant=context.tenant,
            fix="See the plugin's log; other plugins and tenants are not affected.",
        )

    def _record(self, spec: HookSpec, context: Context, steps: list[Step], generation: str) -> None:
        trace = DispatchTrace(spec.name, spec.kind, context.tenant, context.correlation_id, generation, tuple(steps))
        self.traces.record(trace)
        if self._on_trace is not None:
            self._on_trace(trace)


def _adapt(function: Callable[..., Any], names: Sequence[str]) -> Callable[[Any, Context], Any]:
    wanted = tuple(names)
    if wanted == ("payload", "context"):
        return function
    if wanted == ("payload",):
        return lambda payload, context: function(payload)
    if wanted == ("context",):
        return lambda payload, context: function(context)
    if not wanted:
        return lambda payload, context: function()
    return lambda payload, context: function(**{"payload": payload, "context": context})


def _no_argument(name: str) -> Any:
    raise PluginFailed(f"contribute hooks take no arguments; found {name!r}")


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
        fix=error.fix or "Try again, or ask the tenant's admin to switch the plugin off.",
        extra={"cause": error.code},
    )
