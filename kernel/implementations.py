"""Who implements a hook: registration through pluggy, and the ready tuples from which calls are made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import pluggy

from kernel.activation import Activations, ActivationSet, Upgrade
from kernel.breakers import BreakerKey, Breakers
from kernel.context import Context
from kernel.errors import PluginFailed
from kernel.guests import MOST_OWED_SECONDS
from kernel.hookspecs import PROJECT, HookSpec, HookSpecs, hook_spec
from kernel.manifest import HookUse, PluginManifest
from kernel.ordering import order_plugins
from kernel.resilience import Breaker


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


_MARGIN = 0.5


class GuestBinder(Protocol):
    """Makes a callable that runs a guest's hook (the dispatcher's only sight of the sandbox).

    The callable answers like a built-in's would; effects are left in ``GuestAnswer``.
    """

    def bind(
        self,
        plugin: str,
        version: str,
        spec: HookSpec,
        grants: frozenset[str],
        settings: Any,
        shadow: Upgrade | None = None,
    ) -> tuple[PluginManifest, Callable[[Any, Context], Any]] | None:
        """Manifest and callable, or None if the release is not installed on this platform.

        Calls are mirrored to the version ``shadow`` after they were answered.
        """
        ...

    def has(self, plugin: str, version: str) -> bool:
        """Whether the release can be called here."""
        ...


class HookRegistry:
    """The implementations there are, and for each (tenant, hook) those that are on, in calling order."""

    def __init__(
        self,
        activations: Activations,
        guests: GuestBinder | None,
        specs: Mapping[str, HookSpec],
        breakers: Breakers,
    ) -> None:
        self._activations = activations
        self._guests = guests
        self._specs = specs
        self._breakers = breakers
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

    def ready(self, tenant: str, hook: str, call: str = "") -> tuple[Implementation, ...]:
        """The implementations of ``hook`` that are on for ``tenant``, in calling order. ``call`` is the
        correlation id, by which a canary takes its share of the calls."""
        return self.ready_in(self._activations.current.of(tenant), tenant, hook, call)

    def ready_in(self, active: ActivationSet, tenant: str, hook: str, call: str = "") -> tuple[Implementation, ...]:
        """Like :meth:`ready`, in a given set: a call in flight keeps the one it began with."""
        # The default set serves many tenants, so its tuples carry the tenant in their key.
        key = hook if active.activations else f"{tenant}\n{hook}"
        moved: tuple[str, ...] = ()
        if active.canaries and (moved := active.moved(call)):
            key = "\n".join((hook, *moved))
        found = active.ready.get(key)
        if found is None:
            found = self._build(active, tenant, self._specs.get(hook) or hook_spec(hook), moved)
            active.ready[key] = found
        return found

    def check_order(self, active: Iterable[PluginManifest]) -> None:
        """Raise Conflict if the built-ins and these guests and extensions, on together, contradict
        each other's ``before`` and ``after``."""
        on = {m.id: m for m in active} | {m.id: m for m in self._manifests.values() if m.kind == "builtin"}
        for hook in self._specs:
            order_plugins({id: m.hooks[hook] for id, m in on.items() if hook in m.hooks}, hook)

    def _build(
        self, active: ActivationSet, tenant: str, spec: HookSpec, moved: tuple[str, ...] = ()
    ) -> tuple[Implementation, ...]:
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
            trial = item.upgrade
            # Where a version on trial cannot be called, nobody is hurt by it.
            if trial is not None and item.plugin in moved and self._guests.has(item.plugin, trial.version):
                bound = self._guests.bind(item.plugin, trial.version, spec, trial.grants, trial.settings)
            else:
                shadow = trial if trial is not None and trial.mode == "shadow" else None
                bound = self._guests.bind(item.plugin, item.version, spec, item.grants, item.settings, shadow)
            if bound is None:
                continue
            manifest, call = bound
            if spec.name not in manifest.hooks:
                continue
            limit = _guest_seconds(manifest.limits.time_ms / 1000, seconds)
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

    def breaker_of(self, impl: Implementation, tenant: str, hook: str) -> Breaker:
        """The breaker of an implementation that has failed for a tenant, made at its first failure."""
        if impl.breaker is None:
            impl.breaker = self._breakers.of(BreakerKey(impl.plugin, impl.version, tenant, hook))
        return impl.breaker


def _guest_seconds(own: float, hook: float) -> float:
    """How long a guest's call is waited for, in seconds: ``own`` is its limit, ``hook`` the hook's deadline.

    A guest ends by its own limit, however much the machine owes it on top; the margin lets its clearer error
    through first. One that would take longer than the hook has is cut off there.
    """
    return own + MOST_OWED_SECONDS + _MARGIN if own <= hook else hook


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
