"""What an upgrade would break, tenant by tenant, told before anything is touched."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from plugin_sdk import (
    ALL_TENANTS,
    CONTRACT_GENERATIONS,
    Conflict,
    ConsentRequired,
    Dispatcher,
    KeelstoneError,
    PluginManifest,
    PluginQuarantined,
    ReleaseState,
    ResolutionConflict,
    ValidationFailed,
    breaking_changes,
    parse_range,
    parse_version,
)
from plugin_sdk.configuration import settle
from plugin_sdk.services import BlobStore, Database, Marketplace, ReleaseOrigin
from plugin_sdk.toolchain.world import component_imports
from plugins.builtin.catalog.application import CatalogRepository, check_order, utc_now
from plugins.builtin.catalog.consent.updates import Updates
from plugins.builtin.catalog.domain import Activation, Release, check_not_widened, move
from plugins.builtin.catalog.operations import Operations
from plugins.builtin.catalog.policy.domain import Finding as PolicyFinding
from plugins.builtin.catalog.policy.domain import PolicyBlocked, added, told
from plugins.builtin.catalog.policy.gate import PolicyGate, candidate_of
from plugins.builtin.catalog.upgrades.domain import stays, waits
from plugins.builtin.catalog.upgrades.ports import UpgradeRepository

Kind = Literal[
    "contract", "requirement", "settings", "events", "order", "consent", "hooks", "pin", "window", "policy", "trust"
]
Severity = Literal["breaks", "asks", "waits", "notes"]
_OURS = re.compile(r"keelstone:plugin/[a-z-]+@(\d+)\.(\d+)\.\d+")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the upgrade would meet. ``tenant`` is empty for what concerns the whole platform.

    ``breaks``: it would not work. ``asks``: it works, and a person has something to decide. ``waits``: this
    tenant would not move. ``notes``: to know.
    """

    tenant: str
    plugin: str
    kind: Kind
    severity: Severity
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Changed:
    """What the version may do that one which runs now may not, and the other way round, in plain words."""

    before: str
    after: str
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found, in how many tenants was looked, and what would change for those on each version."""

    tenants: int
    findings: tuple[Finding, ...]
    changes: tuple[Changed, ...] = ()

    @property
    def breaks(self) -> bool:
        """Whether something would not work."""
        return any(f.severity == "breaks" for f in self.findings)


@dataclass(frozen=True, slots=True)
class _Target:
    manifest: PluginManifest
    schema: object
    component: bytes | None
    digest: str = ""
    published_at: datetime | None = None
    installed_at: datetime | None = None
    origin: ReleaseOrigin | None = None


class Preflights:
    """Looks, and changes nothing: a release that is not installed is fetched, verified and dropped again."""

    def __init__(
        self,
        database: Database,
        repository: CatalogRepository,
        upgrades: UpgradeRepository,
        operations: Operations,
        hooks: Dispatcher,
        blobs: BlobStore,
        marketplace: Callable[[], Marketplace],
        gate: PolicyGate,
        updates: Updates,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._repository = repository
        self._upgrades = upgrades
        self._operations = operations
        self._hooks = hooks
        self._blobs = blobs
        self._marketplace = marketplace
        self._gate = gate
        self._updates = updates
        self._now = now

    # ------------------------------------------------------------------ a plugin

    async def plugin(self, plugin: str, version: str, tenant: str | None = None) -> Preflight:
        """What moving the tenants on ``plugin`` to ``version`` would break. Raises NotFound, VerificationFailed."""
        target = await self._target(plugin, str(parse_version(version)))
        async with self._database.read(ALL_TENANTS) as transaction:
            everything = await self._repository.all_activations(transaction)
            windows = await self._upgrades.windows(transaction)
            releases = {(r.manifest.id, r.manifest.version): r for r in await self._repository.releases(transaction)}
        running = [(t, a) for t, a in everything if a.running and tenant in (None, t)]
        mine = [(t, a) for t, a in running if a.plugin == plugin and a.version != target.manifest.version]
        findings = [*self._contract(target, "", CONTRACT_GENERATIONS)]
        findings += await self._requirements(target.manifest)
        findings += _events(target.manifest, releases.values())
        for_all = (await self._gate.installing()).findings(candidate_of(target))
        if not any(f.kind == "policy" for f in findings):
            findings += _policy("", target.manifest, for_all)
        rulings = await self._gate.rulings([t for t, _ in mine])
        for where, present in mine:
            beside = [a for t, a in running if t == where and a.plugin != plugin]
            findings += self._settings(where, present, target)
            findings += await self._order(where, target.manifest)
            findings += _dependants(where, target.manifest, beside, releases)
            findings += _consent(where, present, target.manifest, releases)
            findings += _hooks(where, present, target.manifest, releases)
            against = rulings[where].findings(target, move(present, target.manifest))
            findings += _policy(where, target.manifest, added(against, for_all))
            old = releases.get((plugin, present.version))
            version = target.manifest.version
            if why := await self._gate.trust.foresee(where, plugin, old, present.version, target, version):
                findings.append(Finding(where, plugin, "trust", "waits", why.detail, why.fix or ""))
            barred, closed = stays(present, target.manifest), waits(windows.get(where), self._now())
            if barred:
                findings.append(Finding(where, plugin, "pin", "waits", f"It stays on {present.version}: {barred}."))
            if closed:
                findings.append(Finding(where, plugin, "window", "waits", f"It would wait: {closed}."))
        return Preflight(len(mine), tuple(findings), await self._changes(target, mine, releases))

    async def _changes(
        self, target: _Target, mine: list[tuple[str, Activation]], releases: dict[tuple[str, str], Release]
    ) -> tuple[Changed, ...]:
        found, after = [], target.manifest
        for before in sorted({a.version for _, a in mine}, key=parse_version):
            old = releases.get((after.id, before))
            if old is not None:
                words = tuple(c.words for c in await self._updates.compare(old, after, target.component))
                found.append(Changed(before, after.version, words))
        return tuple(found)

    async def _target(self, plugin: str, version: str) -> _Target:
        async with self._database.read(ALL_TENANTS) as transaction:
            stored = await self._repository.release(transaction, plugin, version)
        if stored is not None and stored.state is ReleaseState.INSTALLED:
            component = await self._blobs.get(stored.component)
            since = stored.published_at or stored.installed_at
            return _Target(
                stored.manifest, stored.settings_schema, component, stored.digest, since, origin=stored.origin
            )
        package = await self._marketplace().fetch(plugin, version)
        return _Target(
            package.manifest,
            package.settings_schema,
            package.component,
            package.digest,
            package.published,
            origin=package.origin,
        )

    def _contract(self, target: _Target, tenant: str, served: Sequence[str]) -> list[Finding]:
        manifest = target.manifest
        where = f"{manifest.id} {manifest.version}"
        findings = []
        wanted = parse_range(manifest.requires.kernel)
        if not any(parse_version(v) in wanted for v in served):
            detail = f"{where} needs kernel {manifest.requires.kernel}; served would be {', '.join(served)}."
            fix = "Ask its publisher for a release that takes this kernel."
            findings.append(Finding(tenant, manifest.id, "contract", "breaks", detail, fix))
        if target.component is not None:
            try:
                imports = component_imports(target.component)
            except KeelstoneError as error:
                return [*findings, Finding(tenant, manifest.id, "contract", "breaks", f"{where}: {error}")]
            here = {tuple(v.split(".")[:2]) for v in served}
            foreign = sorted(n for n in imports if (m := _OURS.fullmatch(n)) and (m[1], m[2]) not in here)
            if foreign:
                detail = f"{where} is built for {', '.join(foreign)}; served would be {', '.join(served)}."
                fix = "Ask its publisher for a release that is built for a served generation of the contract."
                findings.append(Finding(tenant, manifest.id, "contract", "breaks", detail, fix))
        return findings

    async def _requirements(self, manifest: PluginManifest) -> list[Finding]:
        try:
            plan = await self._operations.plan(manifest.id, f"={manifest.version}")
        except PolicyBlocked as error:
            return [Finding("", manifest.id, "policy", "breaks", error.detail, error.fix or "")]
        except (ResolutionConflict, PluginQuarantined) as error:
            return [Finding("", manifest.id, "requirement", "breaks", error.detail, error.fix or "")]
        others = [f"{m.id} {m.version}" for m in plan if m.id != manifest.id]
        if others:
            return [Finding("", manifest.id, "requirement", "notes", f"It brings {', '.join(others)} with it.")]
        return []

    def _settings(self, tenant: str, present: Activation, target: _Target) -> list[Finding]:
        schema = target.schema if isinstance(target.schema, dict) else None
        try:
            settle(schema, present.settings, plugin=present.plugin, tenant=tenant)
        except ValidationFailed as error:
            fix = "Change them to what fits both versions first: `keelstone tenant settings`."
            return [Finding(tenant, present.plugin, "settings", "breaks", error.detail, fix)]
        return []

    async def _order(self, tenant: str, manifest: PluginManifest) -> list[Finding]:
        async with self._database.read(tenant) as transaction:
            try:
                await check_order(self._hooks, self._repository, transaction, manifest)
            except Conflict as error:
                return [Finding(tenant, manifest.id, "order", "breaks", error.detail, error.fix or "")]
        return []

    # ------------------------------------------------------------------ the kernel

    async def kernel(self, version: str, serves: Sequence[str] = (), tenant: str | None = None) -> Preflight:
        """What a kernel with this version of the hook contract would break of what runs now.

        Within a major version a kernel serves every earlier generation of the contract; of another major
        version only what ``serves`` names is counted on.
        """
        wanted = parse_version(version)
        same = [v for v in CONTRACT_GENERATIONS if (p := parse_version(v)).major == wanted.major and p <= wanted]
        served = sorted({*same, *serves, str(wanted)}, key=parse_version)
        async with self._database.read(ALL_TENANTS) as transaction:
            everything = await self._repository.all_activations(transaction)
            stored = await self._repository.releases(transaction)
        users: dict[tuple[str, str], list[str]] = {}
        for where, present in everything:
            if present.running and tenant in (None, where):
                versions = {present.version, present.trial.version if present.trial else present.version}
                for used in versions:
                    users.setdefault((present.plugin, used), []).append(where)
        findings: list[Finding] = []
        for release in stored:
            if release.state is not ReleaseState.INSTALLED:
                continue
            component = await self._blobs.get(release.component)
            target = _Target(release.manifest, release.settings_schema, component)
            found = self._contract(target, "", served)
            findings += _each(found, users.get((release.manifest.id, release.manifest.version), []), tenant)
        for manifest in self._hooks.manifests.values():
            if manifest.kind == "extension":
                found = self._contract(_Target(manifest, None, None), "", served)
                findings += _each(found, users.get((manifest.id, manifest.version), []), tenant)
        return Preflight(len({t for tenants in users.values() for t in tenants}), tuple(findings))


def _each(found: list[Finding], tenants: list[str], only: str | None) -> list[Finding]:
    """A release's findings for each tenant that runs it; for nobody, they are only to know."""
    if not tenants and only is None:
        unused = "No tenant runs it."
        return [Finding("", f.plugin, f.kind, "notes", f"{f.detail} {unused}", f.fix) for f in found]
    return [Finding(t, f.plugin, f.kind, f.severity, f.detail, f.fix) for t in tenants for f in found]


def _dependants(
    tenant: str, manifest: PluginManifest, beside: Iterable[Activation], releases: dict[tuple[str, str], Release]
) -> list[Finding]:
    findings = []
    for other in beside:
        release = releases.get((other.plugin, other.version))
        wanted = release.manifest.requires.plugins.get(manifest.id) if release else None
        if wanted is not None and manifest.semver not in parse_range(wanted):
            detail = f"{other.plugin} {other.version}, active here, wants {manifest.id} {wanted}."
            fix = f"Upgrade {other.plugin} first, or leave this tenant where it is with a pin."
            findings.append(Finding(tenant, manifest.id, "requirement", "breaks", detail, fix))
    return findings


def _consent(
    tenant: str, present: Activation, manifest: PluginManifest, releases: dict[tuple[str, str], Release]
) -> list[Finding]:
    old = releases.get((present.plugin, present.version))
    try:
        check_not_widened(present, old.manifest if old else None, manifest, tenant)
    except ConsentRequired as error:
        return [Finding(tenant, manifest.id, "consent", "waits", error.detail, error.fix or "")]
    new = sorted(set(manifest.capabilities.asked()) - present.grants - present.denied)
    if not new:
        return []
    detail = f"It asks for {', '.join(new)}, which nobody has decided on: denied until somebody grants it."
    fix = f"An admin decides with `keelstone tenant grants {tenant} {manifest.id}`."
    return [Finding(tenant, manifest.id, "consent", "asks", detail, fix)]


def _policy(tenant: str, manifest: PluginManifest, against: Iterable[PolicyFinding]) -> list[Finding]:
    """What the policies say: of the release as such it is not installed, in a tenant it would not move."""
    severity: Severity = "waits" if tenant else "breaks"
    ask = f"tenant requests ask {tenant}" if tenant else "marketplace requests ask"
    fix = f"Ask for an approval with `keelstone {ask} {manifest.id} {manifest.version}`."
    return [Finding(tenant, manifest.id, "policy", severity, _sentence(told(f)), fix) for f in against]


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _hooks(
    tenant: str, present: Activation, manifest: PluginManifest, releases: dict[tuple[str, str], Release]
) -> list[Finding]:
    release = releases.get((present.plugin, present.version))
    gone = sorted(set(release.manifest.hooks) - set(manifest.hooks)) if release else []
    if not gone:
        return []
    return [Finding(tenant, manifest.id, "hooks", "notes", f"It no longer implements {', '.join(gone)}.")]


def _events(manifest: PluginManifest, releases: Iterable[Release]) -> list[Finding]:
    """Event types whose schema would break readers of what the installed versions emit."""
    declared = {d.type: d.data for d in manifest.events.declares}
    broken: dict[str, list[str]] = {}
    for release in releases:
        if release.manifest.id != manifest.id or release.state is not ReleaseState.INSTALLED:
            continue
        for old in release.manifest.events.declares:
            new = declared.get(old.type)
            # A schema that the other has grown from is fine in either direction.
            if new is not None and (found := breaking_changes(old.data, new)) and breaking_changes(new, old.data):
                broken[old.type] = found
    fix = "The publisher adds optional fields instead, or declares a new event type."
    return [
        Finding("", manifest.id, "events", "breaks", f"Readers of {name} would break: {'; '.join(why)}.", fix)
        for name, why in sorted(broken.items())
    ]
