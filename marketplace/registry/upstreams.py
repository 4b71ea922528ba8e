"""The upstreams of a registry: which there are, what was seen of them, and packages that are fetched when asked for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from kernel.errors import BackendUnavailable, Conflict, NotFound, ValidationFailed
from marketplace.keys import check_publisher
from marketplace.package import whole_package
from marketplace.registry.blobs import DIGEST, FolderBlobs
from marketplace.registry.change import Touched
from marketplace.registry.claims import (
    LOCAL,
    claim,
    listed_upstream,
    mirrored_plugins,
    namespace_claims,
    source_of,
    upstreams,
)
from marketplace.registry.tables import Tables, releases

if TYPE_CHECKING:
    from marketplace.transport import Transport

_NAME = re.compile(r"^[a-z0-9][a-z0-9.-]{0,62}$")
_PATTERN = re.compile(r"^(\*|[a-z][a-z0-9-]*/(\*|[a-z][a-z0-9-]*))$")
Connect = Callable[[str], "Transport"]


@dataclass(frozen=True, slots=True)
class Seen:
    """How far an upstream has been seen: versions of its metadata, its log's size and root (hex), when (ISO 8601, UTC),
    and in which ``way``: over the network (``network``) or in a ``bundle``."""

    versions: dict[str, int]
    log_size: int
    log_root: str
    at: str
    way: str


@dataclass(frozen=True, slots=True)
class Upstream:
    """A marketplace behind this one. ``root`` is the SHA-256 of ``document``, the root metadata that is pinned of it;
    ``only`` has the patterns of what is mirrored (``*``, ``acme/*`` or ``acme/guard``); none of them: everything."""

    name: str
    root: str
    url: str | None
    only: tuple[str, ...]
    witnesses: tuple[str, ...]
    needed: int
    added: str
    removed: str | None
    seen: Seen | None
    document: bytes = field(repr=False)

    def covers(self, plugin: str) -> bool:
        """Whether a plugin is among what is mirrored."""
        publisher = plugin.partition("/")[0]
        return not self.only or any(each in ("*", f"{publisher}/*", plugin) for each in self.only)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-ready; of the metadata's versions, those of the roles that people know."""
        said = {name: value for name, value in asdict(self).items() if name != "document"}
        if self.seen is not None:
            known = {name: self.seen.versions[name] for name in ("root", "timestamp", "snapshot")}
            said["seen"] = {**asdict(self.seen), "versions": known}
        return said


@dataclass(frozen=True, slots=True)
class AddUpstream:
    """Mirror another marketplace from now on, or change what of it. ``local`` has namespaces that are never its."""

    name: str
    document: bytes
    url: str | None
    only: tuple[str, ...] = ()
    witnesses: tuple[str, ...] = ()
    needed: int = 0
    local: tuple[str, ...] = ()

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> Upstream:
        """Raises Conflict if the name is another upstream's, ValidationFailed, or NamespaceMirrored if a namespace in
        ``local`` was decided otherwise."""
        root = hashlib.sha256(self.document).hexdigest()
        if not _NAME.match(self.name) or self.name == LOCAL:
            raise ValidationFailed(
                f"{self.name!r} cannot name an upstream.",
                expected="small letters, digits, dots and hyphens, e.g. central; not local",
                found=self.name,
            )
        for pattern in self.only:
            if not _PATTERN.match(pattern):
                raise ValidationFailed(
                    f"{pattern!r} does not say what to mirror.", expected="*, acme/* or acme/guard", found=pattern
                )
        other = connection.execute(sa.select(upstreams.c.root).where(upstreams.c.name == self.name)).scalar()
        if other is not None and other != root:
            raise Conflict(
                f"Another upstream is called {self.name} here.",
                expected=f"root sha256 {other[:16]}",
                found=f"root sha256 {root[:16]}",
                fix="Give this one another name with --name.",
            )
        for publisher in self.local:
            claim(connection, check_publisher(publisher), LOCAL, now)
        values: dict[str, Any] = {
            "name": self.name,
            "url": self.url,
            "only": list(self.only),
            "witnesses": list(self.witnesses),
            "needed": self.needed,
            "removed": None,
        }
        known = sa.select(upstreams.c.root).where(upstreams.c.root == root)
        if connection.execute(known).scalar() is None:
            row = {"root": root, "document": self.document, "added": now, "seen": None}
            connection.execute(sa.insert(upstreams).values(**values, **row))
        else:
            connection.execute(sa.update(upstreams).where(upstreams.c.root == root).values(values))
        return _upstream(connection.execute(sa.select(upstreams).where(upstreams.c.root == root)).one())


@dataclass(frozen=True, slots=True)
class RemoveUpstream:
    """Follow an upstream no more. What was taken stays, and its namespaces stay its own."""

    root: str

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> None:
        """Asked again, it changes nothing."""
        changed = sa.update(upstreams).where(upstreams.c.root == self.root, upstreams.c.removed.is_(None))
        connection.execute(changed.values(removed=now))


@dataclass(frozen=True, slots=True)
class ClaimNamespace:
    """Decide where a namespace resolves: ``local``, or an upstream's root."""

    publisher: str
    source: str

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> None:
        """Raises NamespaceMirrored if it was decided otherwise, or ValidationFailed."""
        claim(connection, check_publisher(self.publisher), self.source, now)


class UpstreamDesk:
    """Reads the upstreams of one registry. Blocking; safe from several threads. ``connect`` reaches an upstream."""

    def __init__(self, tables: Tables, blobs: FolderBlobs, connect: Connect | None = None) -> None:
        self._tables, self._blobs = tables, blobs
        self.connect: Connect = connect or _connect
        self.folder = blobs.folder.parent / "upstreams"
        """Where each upstream's verified metadata and log are kept, by the beginning of its root's digest."""

    def all(self) -> list[Upstream]:
        """All that are followed, by name."""
        query = sa.select(upstreams).where(upstreams.c.removed.is_(None)).order_by(upstreams.c.name)
        with self._tables.read() as connection:
            return [_upstream(row) for row in connection.execute(query)]

    def find(self, name: str) -> Upstream:
        """One that is followed, by its name or the SHA-256 of its root. Raises NotFound."""
        for each in self.all():
            if name in (each.name, each.root):
                return each
        raise NotFound(
            f"This marketplace has no upstream {name}.", found=name, fix="See `keelstone marketplace mirror list`."
        )

    def plugins(self, root: str) -> list[str]:
        """The plugins that were taken from an upstream."""
        query = sa.select(mirrored_plugins.c.plugin).where(mirrored_plugins.c.source == root)
        with self._tables.read() as connection:
            return list(connection.execute(query.order_by(mirrored_plugins.c.plugin)).scalars())

    def listed(self, root: str) -> dict[str, str]:
        """The plugins that were taken from an upstream, each with the SHA-256 of the index that it had then."""
        with self._tables.read() as connection:
            return listed_upstream(connection, root)

    def source(self, publisher: str) -> str | None:
        """Where a namespace resolves: ``local``, or an upstream's root (SHA-256); None: nobody has it."""
        with self._tables.read() as connection:
            return source_of(connection, publisher)

    def claims(self) -> dict[str, str]:
        """Where namespaces resolve that were decided about: publisher to ``local`` or an upstream's name."""
        query = (
            sa.select(namespace_claims.c.publisher, namespace_claims.c.source, upstreams.c.name)
            .outerjoin(upstreams, upstreams.c.root == namespace_claims.c.source)
            .order_by(namespace_claims.c.publisher)
        )
        with self._tables.read() as connection:
            return {row.publisher: row.name or row.source for row in connection.execute(query)}

    def has(self, digest: str) -> bool:
        """Whether a package's bytes are here."""
        return self._blobs.path(digest).exists()

    def keep(self, data: bytes) -> str:
        """Store a package's bytes durably; their digest. Nothing points to them until a release does."""
        return self._blobs.store(data)

    def package(self, digest: str) -> Path | None:
        """The file of a mirrored package, fetched from its upstream if it is not here yet; None if it is of none.

        Raises VerificationFailed if other bytes come, or BackendUnavailable.
        """
        if not DIGEST.match(digest):
            return None
        mirrored = (
            sa.select(upstreams.c.url, releases.c.size)
            .select_from(releases)
            .join(mirrored_plugins, mirrored_plugins.c.plugin == releases.c.plugin)
            .join(upstreams, upstreams.c.root == mirrored_plugins.c.source)
            .where(releases.c.digest == digest, upstreams.c.removed.is_(None))
        )
        with self._tables.read() as connection:
            row = connection.execute(mirrored).one_or_none()
        if row is None:
            return None
        path = self._blobs.path(digest)
        if path.exists():
            return path
        if row.url is None:
            raise BackendUnavailable(
                "This package was not in the bundle that brought its release.",
                found=digest,
                fix="Export a bundle with it where the upstream can be reached, and import that.",
            )
        with closing(self.connect(row.url)) as transport:
            self._blobs.store(download(transport, digest, row.size))
        return path


def download(transport: Transport, digest: str, size: int) -> bytes:
    """A package of a marketplace. Raises VerificationFailed if other bytes come, or BackendUnavailable."""
    try:
        return whole_package(transport.stream(f"packages/{digest}"), digest, size)
    except NotFound as error:
        raise BackendUnavailable(f"The upstream lists a package that it does not have: {error}") from error


def _connect(url: str) -> Transport:
    from marketplace.transport import HttpTransport

    return HttpTransport(url)


def _upstream(row: Any) -> Upstream:
    seen = None if row.seen is None else Seen(**row.seen)
    listed = (tuple(row.only), tuple(row.witnesses), row.needed, row.added, row.removed, seen, row.document)
    return Upstream(row.name, row.root, row.url, *listed)
