"""Which version of which plugin is on for which tenant: immutable snapshots, swapped atomically.

A snapshot maps tenants to activation sets. A set is shared by nobody, never changed, and keeps its
hooks' ready tuples, so that swapping one tenant's set leaves all others' tuples as they are. A call
in flight holds the set it began with.

The generation is a sum of per-tenant digests: equal content gives an equal generation, in whatever
order and process it was built, so processes can compare theirs and never reload each other for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from kernel.events import canonical_json
from kernel.ports import ActivationRecord, UpgradeRecord
from kernel.shares import in_share

_MODULUS = 1 << 128
_MOST_SHARED = 10_000


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Another version on trial beside the active one, with its own grants and settings."""

    id: str
    version: str
    mode: Literal["shadow", "canary"]
    calls: float
    grants: frozenset[str]
    settings_json: bytes = b"{}"

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings, parsed."""
        parsed: Mapping[str, Any] = orjson.loads(self.settings_json)
        return parsed

    def takes(self, call: str) -> bool:
        """Whether the call with this correlation id takes part in the trial."""
        return in_share(self.id, call, self.calls)


@dataclass(frozen=True, slots=True)
class Activation:
    """One plugin version on for a tenant, with its grants and settings. Equal ones are shared.

    Settings are kept as canonical JSON: a parsed copy for every tenant and plugin would take several
    times the memory, and is needed only where a ready tuple is built.
    """

    plugin: str
    version: str
    grants: frozenset[str]
    settings_json: bytes = b"{}"
    upgrade: Upgrade | None = None

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings, parsed."""
        parsed: Mapping[str, Any] = orjson.loads(self.settings_json)
        return parsed


class ActivationSet:
    """What is on for one tenant. ``ready`` is the dispatcher's cache of ready tuples by hook.

    ``canaries`` are the plugins of which another version answers some calls.
    """

    __slots__ = ("activations", "canaries", "digest", "ready")

    def __init__(self, activations: tuple[Activation, ...], digest: int) -> None:
        self.activations = activations
        self.canaries = tuple(
            (a.plugin, a.upgrade) for a in activations if a.upgrade is not None and a.upgrade.mode == "canary"
        )
        self.digest = digest
        self.ready: dict[str, tuple[Any, ...]] = {}

    def moved(self, call: str) -> tuple[str, ...]:
        """The plugins whose new version answers the call with this correlation id."""
        return tuple(plugin for plugin, upgrade in self.canaries if upgrade.takes(call))

    def get(self, plugin: str) -> Activation | None:
        """The activation of a plugin, or None if it is off."""
        return next((a for a in self.activations if a.plugin == plugin), None)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every tenant's set at one generation. ``default`` serves tenants without activations."""

    tenants: Mapping[str, ActivationSet] = field(default_factory=dict)
    generation: str = "0" * 32
    default: ActivationSet = field(default_factory=lambda: ActivationSet((), 0))

    def of(self, tenant: str) -> ActivationSet:
        """The tenant's set."""
        return self.tenants.get(tenant, self.default)


class Activations:
    """Builds snapshots and swaps the current one. One writer at a time; readers need no lock."""

    def __init__(self) -> None:
        self._current = Snapshot()
        self._shared: dict[tuple[str, str, frozenset[str], bytes, Upgrade | None], Activation] = {}
        self._watchers: list[Callable[[Snapshot], None]] = []

    @property
    def current(self) -> Snapshot:
        """The snapshot that new calls use."""
        return self._current

    def watch(self, watcher: Callable[[Snapshot], None]) -> None:
        """Call ``watcher`` with each new snapshot after it has been swapped in."""
        self._watchers.append(watcher)

    def load(self, records: Iterable[ActivationRecord]) -> Snapshot:
        """Replace everything by ``records`` and swap."""
        by_tenant: dict[str, list[ActivationRecord]] = {}
        for record in records:
            by_tenant.setdefault(record.tenant, []).append(record)
        self._shared.clear()
        present = self._current.tenants
        sets: dict[str, ActivationSet] = {}
        for tenant, mine in by_tenant.items():
            built = self._build(mine)
            old = present.get(tenant)
            sets[tenant] = old if old is not None and old.digest == built.digest else built
        return self._swap(sets)

    def replace(self, tenant: str, records: Iterable[ActivationRecord]) -> Snapshot:
        """Replace one tenant's set and swap; the other tenants' sets stay the same objects."""
        sets = dict(self._current.tenants)
        built = self._build(list(records))
        if built.activations:
            sets[tenant] = built
        else:
            sets.pop(tenant, None)
        return self._swap(sets)

    def refresh(self) -> Snapshot:
        """Swap in the same activations with empty ready tuples (a release changed underneath)."""
        sets = {t: ActivationSet(s.activations, s.digest) for t, s in self._current.tenants.items()}
        return self._swap(sets)

    def _build(self, records: list[ActivationRecord]) -> ActivationSet:
        activations = []
        digest = 0
        for record in sorted(records, key=lambda r: r.plugin):
            settings = _plain(record.settings)
            upgrade = _upgrade(record.upgrade)
            key = (record.plugin, record.version, record.grants, settings, upgrade)
            shared = self._shared.get(key)
            if shared is None:
                shared = Activation(record.plugin, record.version, record.grants, settings, upgrade)
                if len(self._shared) < _MOST_SHARED:
                    self._shared[key] = shared
            activations.append(shared)
            line = "\n".join((record.tenant, record.plugin, record.version, ",".join(sorted(record.grants))))
            hashed = hashlib.blake2b(line.encode() + b"\n" + settings + _trial(upgrade), digest_size=16).digest()
            digest = (digest + int.from_bytes(hashed, "big")) % _MODULUS
        return ActivationSet(tuple(activations), digest)

    def _swap(self, sets: dict[str, ActivationSet]) -> Snapshot:
        total = sum(s.digest for s in sets.values()) % _MODULUS
        snapshot = Snapshot(tenants=sets, generation=f"{total:032x}", default=ActivationSet((), 0))
        self._current = snapshot
        for watcher in self._watchers:
            watcher(snapshot)
        return snapshot


def _plain(settings: Mapping[str, Any]) -> bytes:
    # A copy of its own size: orjson's result keeps the 4 KB buffer that it was written into.
    return bytes(memoryview(canonical_json(dict(settings))))


def _upgrade(record: UpgradeRecord | None) -> Upgrade | None:
    if record is None:
        return None
    return Upgrade(record.id, record.version, record.mode, record.calls, record.grants, _plain(record.settings))


def _trial(upgrade: Upgrade | None) -> bytes:
    if upgrade is None:
        return b""
    grants = ",".join(sorted(upgrade.grants))
    line = "\n".join(("", upgrade.id, upgrade.version, upgrade.mode, f"{upgrade.calls:g}", grants, ""))
    return line.encode() + upgrade.settings_json
