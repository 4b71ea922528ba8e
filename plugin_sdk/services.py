"""The catalogue: every service a plugin may ask for, each a Protocol, each defined once. Long, because all of
them are to be found in one file.

A plugin asks with ``services.get(Database)`` and publishes with ``services.publish(UserDirectory,
self)``. A service that no installed plugin publishes raises ServiceMissing, which names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NewType, Protocol, TypeVar

from kernel.context import Context, Principal
from kernel.errors import KeelstoneError, ServiceMissing
from kernel.manifest import PluginManifest
from kernel.permissions import Permission
from kernel.ports import (
    ActivationSource,
    AiAnswer,
    AiModels,
    AiRequest,
    BlobStore,
    BreakerRecord,
    BreakerStore,
    Bus,
    Clock,
    Database,
    Effects,
    EventStore,
    GuestCall,
    GuestResult,
    GuestRuntime,
    GuestUsage,
    KeyProvider,
    KvStore,
    Notice,
    Notifier,
    Replay,
    SecretSource,
    ServiceCalls,
    TenantPlans,
    Transaction,
)
from kernel.versions import parse_version

T = TypeVar("T")

__all__ = [
    "ActivationControl",
    "AiAnswer",
    "AiModels",
    "AiRequest",
    "Authenticator",
    "BlobStore",
    "BreakerControl",
    "BreakerRecord",
    "BreakerStore",
    "BundleOpener",
    "Bus",
    "Clock",
    "CredentialStore",
    "Database",
    "Effects",
    "EventStore",
    "GuestCall",
    "GuestResult",
    "GuestRuntime",
    "GuestUsage",
    "HashedPassword",
    "KeyProvider",
    "KvStore",
    "Marketplace",
    "MarketplaceEntry",
    "Notice",
    "Notifier",
    "PermissionCatalogue",
    "PublishedRelease",
    "Replay",
    "SecretSource",
    "ServiceCalls",
    "Services",
    "StatementSigner",
    "TenantDirectory",
    "TenantPlans",
    "Transaction",
    "UserDirectory",
    "UserRecord",
    "VerifiedPackage",
]


class Services:
    """What is published, by Protocol. One object per platform process."""

    def __init__(self) -> None:
        self._published: dict[type[Any], Any] = {}

    def publish(self, protocol: type[T], service: T) -> None:
        """Offer ``service`` under ``protocol``. Raises ValueError if somebody already does."""
        if protocol in self._published:
            raise ValueError(f"{protocol.__name__} is already published by {self._published[protocol]!r}")
        self._published[protocol] = service

    def get(self, protocol: type[T]) -> T:
        """The service published under ``protocol``. Raises ServiceMissing."""
        found: T | None = self._published.get(protocol)
        if found is None:
            raise ServiceMissing(
                f"No installed plugin provides {protocol.__name__}.",
                expected=protocol.__name__,
                fix="Take the plugin that provides it out of KEELSTONE_PLUGINS_DISABLED.",
            )
        return found

    def find(self, protocol: type[T]) -> T | None:
        """The service published under ``protocol``, or None."""
        return self._published.get(protocol)


HashedPassword = NewType("HashedPassword", str)
"""A password as it is stored; ``CredentialStore.hash_password`` makes it."""


class PermissionCatalogue(Protocol):
    """Every permission that the running plugins introduce (the platform itself)."""

    def permissions(self) -> Sequence[Permission]:
        """All of them."""
        ...


class Authenticator(Protocol):
    """Turns credentials into a principal (the plugin ``identity``)."""

    async def authenticate(self, authorization: str) -> Principal:
        """The principal of an Authorization header. Raises Unauthenticated or TokenExpired."""
        ...


class CredentialStore(Protocol):
    """Keeps secrets by which people sign in (the plugin ``identity``)."""

    async def hash_password(self, password: str) -> HashedPassword:
        """The hash to store. Slow on purpose: ask for it before a transaction is open.

        Raises ValidationFailed if the password is too short or long.
        """
        ...

    async def set_password(
        self, transaction: Transaction, tenant: str, user: str, email: str, password: HashedPassword
    ) -> None:
        """Make or replace the password credential of a user in the open transaction."""
        ...

    async def rename(self, transaction: Transaction, tenant: str, user: str, email: str) -> None:
        """The user signs in with another address from now on."""
        ...

    async def remove(self, transaction: Transaction, tenant: str, user: str) -> None:
        """Delete every credential of a user."""
        ...

    def check_grantable(self, context: Context, roles: Sequence[str]) -> None:
        """Raise Forbidden if the principal in hand may not give these roles in the context's tenant,
        ValidationFailed if there is no such role."""
        ...

    async def assign_roles(self, transaction: Transaction, tenant: str, user: str, roles: Sequence[str]) -> None:
        """Replace the user's roles."""
        ...


class StatementSigner(Protocol):
    """Signs what the platform says, so that others can check it offline (the plugin ``identity``).

    ``plugin_sdk.receipts.read_statement`` is the other side.
    """

    def sign(self, kind: str, statement: Mapping[str, Any]) -> str:
        """The statement as a JWS in compact form; ``kind`` is the ``typ`` of its header, one for each purpose."""
        ...

    def public_keys(self) -> Mapping[str, Any]:
        """The JSON Web Key Set that checks it."""
        ...


class ActivationControl(Protocol):
    """Makes stored activations real in this process (the kernel's ``ActivationSync``)."""

    def use(self, source: ActivationSource) -> None:
        """Take activations from ``source`` from now on."""
        ...

    async def refresh(self, tenant: str) -> None:
        """Read one tenant's activations again and swap them in."""
        ...

    async def prepare(self, manifest: PluginManifest, digest: str) -> None:
        """Make a release callable here. Raises SandboxError or PluginUnavailable."""
        ...

    async def forget(self, manifest: PluginManifest, digest: str, *, keep_artifact: bool = False) -> None:
        """Take a release away once no call of it is under way."""
        ...

    def callable_here(self, plugin: str, version: str) -> bool:
        """Whether the release can be called in this process."""
        ...

    async def reload(self, plugin: str, version: str) -> None:
        """Read one release again, if it is in use here: it was quarantined, or installed anew."""
        ...

    def active(self, tenant: str) -> Sequence[tuple[PluginManifest, frozenset[str]]]:
        """The guests that are on for a tenant, each with what it was granted."""
        ...

    def listen(self, type: str, observer: Callable[[str, Mapping[str, Any]], None]) -> None:
        """Call ``observer`` with the tenant and data of each event of a type, in every process, as it
        passes by on the bus: no acknowledgement, no replay. For caches and the like."""
        ...

    def gate_calls(self, gate: Callable[[GuestCall], None]) -> None:
        """Ask ``gate`` before each guest call, on the request path: what it raises is the call's answer."""
        ...

    def watch_calls(self, observer: Callable[[GuestCall, GuestResult | KeelstoneError], None]) -> None:
        """Call ``observer`` after each guest call, with its result or the error that it came to."""
        ...

    def mirror_calls(self, sink: Callable[[str, GuestCall, GuestResult | KeelstoneError, GuestCall], None]) -> None:
        """Hand the calls of plugins with a shadow to ``sink`` after they were answered: the upgrade's id,
        the call, what it came to, and the same call for the new version."""
        ...

    async def rehearse(self, call: GuestCall) -> GuestResult:
        """Run a mirrored call: nobody is told of it, its effects are the caller's to drop."""
        ...


class BreakerControl(Protocol):
    """The breakers of this process (the kernel's ``Breakers``)."""

    def watch(self, observer: Callable[[BreakerRecord], None]) -> None:
        """Call ``observer`` with each breaker that opens, is probed or closes."""
        ...

    def states(self, tenant: str | None = None, plugin: str | None = None) -> Sequence[BreakerRecord]:
        """Breakers that are not at peace: open, being probed, or with failures counted."""
        ...

    def reset(self, tenant: str, plugin: str) -> int:
        """Close a plugin's breakers for a tenant by hand; how many were not closed."""
        ...


@dataclass(frozen=True, slots=True)
class UserRecord:
    """A person as other plugins may see them."""

    id: str
    tenant: str
    email: str
    name: str


class UserDirectory(Protocol):
    """Who the people of a tenant are (the plugin ``users``)."""

    async def register(
        self, context: Context, email: str, name: str, *, password: str | None = None, roles: Sequence[str] = ()
    ) -> UserRecord:
        """Register a person through the hooks. Raises Rejected, Conflict, ValidationFailed."""
        ...

    async def find(self, tenant: str, user: str) -> UserRecord | None:
        """A person of the tenant, or None."""
        ...


class TenantDirectory(Protocol):
    """Which tenants there are (the plugin ``tenants``)."""

    async def provision(self, context: Context, id: str, name: str, plan: str = "free") -> None:
        """Make a tenant through the hooks. Raises Conflict if the id is taken."""
        ...

    async def exists(self, tenant: str) -> bool:
        """Whether there is such a tenant."""
        ...


@dataclass(frozen=True, slots=True)
class MarketplaceEntry:
    """One plugin as search shows it. ``versions`` are SemVer, newest first, yanked ones left out.

    ``deprecated`` says why the publisher advises against it, if so, and ``successor`` names the plugin to use instead.
    ``domain`` is the domain that speaks for its publisher, where the marketplace has verified one; ``repository`` one
    whose CI job has released a plugin of theirs, and still may.
    """

    id: str
    name: str
    summary: str
    latest: str
    versions: tuple[str, ...]
    license: str
    publisher: str
    keywords: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    deprecated: str | None = None
    successor: str | None = None
    domain: str | None = None
    repository: str | None = None


@dataclass(frozen=True, slots=True)
class SearchFilters:
    """What a search is narrowed down to; None does not narrow.

    ``contracts`` are generations of the hook contract (SemVer), of which some release must take one.
    """

    publisher: str | None = None
    license: str | None = None
    capability: str | None = None
    keyword: str | None = None
    contracts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Build:
    """The run of a CI job that made and signed a release, as the job's issuer told it to the marketplace.

    ``environment`` is empty if the job has none; ``commit`` and ``ref`` are what was built; ``url`` shows the run.
    """

    host: str
    repository: str
    workflow: str
    environment: str
    commit: str
    ref: str
    url: str


@dataclass(frozen=True, slots=True)
class ReleaseOrigin:
    """Who stands behind a verified release, to compare with what runs already.

    ``signers`` are the ids of the keys that signed it; ``lineage`` those of all keys from which, by proper succession,
    the present ones came (they among them). ``owner`` counts the namespace's owners from 1, ``owned_since`` is when
    the present one took over; ``recovered``: the marketplace's operator put new keys in place of lost ones.
    ``provenance`` names what built it, where a build service vouches for that; ``domain`` the domain that speaks for
    its publisher, where the marketplace has verified one. ``build`` has the particulars of ``provenance``;
    ``repository`` is one whose CI job has released a plugin of its publisher, and still may.
    """

    signers: tuple[str, ...] = ()
    lineage: tuple[str, ...] = ()
    owner: int = 1
    owned_since: datetime | None = None
    recovered: bool = False
    provenance: str | None = None
    domain: str | None = None
    build: Build | None = None
    repository: str | None = None


@dataclass(frozen=True, slots=True)
class VerifiedPackage:
    """A package whose whole chain has been checked. ``digest`` is the archive's SHA-256 in hex.

    ``chain`` says each link that was checked, in order, for people to read. ``published`` is when the marketplace
    signed for it, and ``origin`` who stands behind it, where there was a marketplace.
    """

    manifest: PluginManifest
    digest: str
    component: bytes
    readme: str
    changelog: str
    settings_schema: Mapping[str, Any] | None
    icon: bytes | None
    chain: tuple[str, ...]
    published: datetime | None = None
    origin: ReleaseOrigin | None = None


@dataclass(frozen=True, slots=True)
class PublishedRelease:
    """One release as the verified index lists it. ``digest`` is the archive's SHA-256 in hex, ``domain`` the domain
    that speaks for its publisher, if one was verified, ``repository`` one whose CI job has released for them."""

    digest: str
    published: datetime
    domain: str | None = None
    repository: str | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """A release that the marketplace's operator has ended everywhere. ``at`` is ISO 8601 in UTC."""

    digest: str
    plugin: str
    version: str
    reason: str
    at: str


@dataclass(frozen=True, slots=True)
class AffectedRange:
    """Versions of one plugin that an advisory is about: ``events`` (``introduced``, ``fixed`` or ``last_affected``, and
    a version; in ascending order), and versions by name."""

    plugin: str
    events: tuple[tuple[str, str], ...]
    versions: tuple[str, ...]

    def has(self, version: str) -> bool:
        """Whether a version is affected. Raises ValidationFailed if it is none."""
        at = parse_version(version)
        if str(at) in self.versions:
            return True
        inside = False
        for kind, edge in self.events:
            limit = parse_version(edge)
            if kind == "introduced" and at >= limit:
                inside = True
            elif (kind == "fixed" and at >= limit) or (kind == "last_affected" and at > limit):
                inside = False
        return inside


BY_MARKETPLACE = "marketplace"
"""Who says an advisory, where it is the marketplace's operator."""
BY_OSV = "OSV"
"""Who says an advisory, where it follows from what a plugin was linked from. No publisher's name has capitals."""


@dataclass(frozen=True, slots=True)
class Advisory:
    """A known weakness of plugins. Moments are ISO 8601 in UTC; ``severity`` is a CVSS vector; ``by`` is
    ``marketplace``, ``OSV`` (of a part that the plugin was linked from), or the publisher who says it of plugins of
    their own."""

    id: str
    modified: str
    published: str
    withdrawn: str | None
    summary: str
    details: str
    severity: str | None
    aliases: tuple[str, ...]
    references: tuple[str, ...]
    affected: tuple[AffectedRange, ...]
    by: str

    @property
    def is_the_marketplaces(self) -> bool:
        """Whether the marketplace says it, and not a publisher of its own plugins."""
        return self.by == BY_MARKETPLACE

    def affects(self, plugin: str, version: str) -> bool:
        """Whether a release has the weakness."""
        return self.withdrawn is None and any(a.plugin == plugin and a.has(version) for a in self.affected)

    def fixed_in(self, plugin: str) -> tuple[str, ...]:
        """The versions in which the weakness was mended."""
        edges = [edge for a in self.affected if a.plugin == plugin for edge in a.events]
        return tuple(version for kind, version in edges if kind == "fixed")


class BundleOpener(Protocol):
    """Opens bundles: what a marketplace showed, and packages, in one file that crossed an air gap."""

    def opened(self, file: Path, *, older: bool = False) -> AbstractAsyncContextManager[Marketplace]:
        """The marketplace as the bundle shows it, verified from a root that is trusted here and frozen at the moment
        when it was made, which every chain from it says. Only good inside the context.

        Entering raises a KeelstoneError: not whole, of a marketplace that is not trusted, or older than what is known
        here (unless ``older``).
        """
        ...


class Marketplace(Protocol):
    """The marketplace as the platform uses it: nothing comes back unverified."""

    async def search(self, query: str, limit: int = 20, filters: SearchFilters | None = None) -> list[MarketplaceEntry]:
        """Plugins that fit the words, best first."""
        ...

    async def info(self, plugin: str) -> MarketplaceEntry:
        """One plugin. Raises NotFound."""
        ...

    async def manifests(self, plugin: str) -> list[PluginManifest]:
        """Manifests of all installable versions (for the resolver). Raises NotFound."""
        ...

    async def published(self, plugin: str) -> Mapping[str, PublishedRelease]:
        """All installable versions, with when each was published. Raises NotFound."""
        ...

    async def fetch(self, plugin: str, version: str) -> VerifiedPackage:
        """Download and verify one release. Raises NotFound or VerificationFailed."""
        ...

    async def revocations(self) -> tuple[Revocation, ...]:
        """All revoked releases, oldest first. Raises VerificationFailed or BackendUnavailable."""
        ...

    async def advisories(self) -> tuple[Advisory, ...]:
        """Every advisory, withdrawn ones included. Raises VerificationFailed or BackendUnavailable."""
        ...

    async def stand_behind(self, plugins: Sequence[str]) -> Mapping[str, ReleaseOrigin | KeelstoneError]:
        """Who would stand behind a release of each plugin that came now: all keys that count, and the present owner; or
        why that cannot be told. What is not known here is left out. Raises VerificationFailed or BackendUnavailable."""
        ...

    async def await_revocations(self, known: int) -> int:
        """Wait until more than ``known`` releases are revoked, or some time has passed; how many are now, as far as
        can be told without verifying. Raises BackendUnavailable."""
        ...

    async def report_reach(self, digest: str, host: str, installed: bool, seconds: float) -> None:
        """Tell the marketplace that ``host`` has carried out a revocation, so many seconds after it was made.
        Raises BackendUnavailable."""
        ...

    async def hand_in(self, what: Literal["ratings", "figures"], statement: str, keys: Mapping[str, Any]) -> None:
        """Hand in a statement of this platform (``plugin_sdk.reporting``) with the public keys that check it.
        Raises BackendUnavailable, or ValidationFailed if the marketplace does not take it."""
        ...
