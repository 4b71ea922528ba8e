"""What can change in a registry, each applied inside a transaction: checked first, then written.

A change names what it touched; the caller renders the touched documents and signs the metadata in
the same transaction, so a change is visible with its signatures or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa

from kernel.errors import Conflict, NotFound
from marketplace.errors import NamespaceTaken, VersionTaken
from marketplace.index import Deprecation, Index, Release, Yank, entry_of, make_index, manifest_document
from marketplace.log.entry import (
    Entry,
    deprecation_entry,
    entry_key,
    keys_entry,
    kill_entry,
    release_entry,
    statement_digest,
    yank_entry,
)
from marketplace.namespaces import KeySet
from marketplace.package import Package
from marketplace.registry.reach import revocation_of
from marketplace.registry.receipts import DeprecationRecord, NamespaceRecord, Receipt
from marketplace.registry.search import Standing, recent_downloads, update_search
from marketplace.registry.tables import OLD_TEXT, namespaces, plugins, releases, revocations
from plugin_sdk.services import Revocation


@dataclass(slots=True)
class Touched:
    """What a batch of changes touched: new namespaces' documents, plugins with their README, and what to log."""

    namespaces: dict[str, bytes] = field(default_factory=dict)
    plugins: dict[str, str | None] = field(default_factory=dict)
    revoked: bool = False
    entries: list[Entry] = field(default_factory=list)
    statements: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    """Envelopes behind ``entries`` that nothing else keeps, by position."""
    _positions: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def log(self, entry: Entry, statement: Mapping[str, Any] | None = None) -> None:
        """Add an entry; the last thing that a change does, so that one which is refused logs nothing."""
        if statement is not None:
            self.statements[len(self.entries)] = statement
        self._positions[entry_key(entry)] = len(self.entries)
        self.entries.append(entry)

    def position(self, kind: str, subject: str, version: str) -> int:
        """Where the entry about something is among ``entries``."""
        return self._positions[kind, subject, version]


@dataclass(frozen=True, slots=True)
class Pending:
    """A release whose receipt is written once the snapshot's version and the log's size are known."""

    values: Mapping[str, Any]
    position: int
    """Of its entry, in the batch."""


@dataclass(frozen=True, slots=True)
class RegisterNamespace:
    """Bind a namespace to the keys of a key set. Asked again with the same keys, it changes nothing."""

    key_set: KeySet

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> NamespaceRecord:
        """Raises NamespaceTaken if the namespace has other keys."""
        publisher = self.key_set.publisher
        row = connection.execute(sa.select(namespaces).where(namespaces.c.publisher == publisher)).one_or_none()
        if row is not None and row.document != self.key_set.document:
            raise NamespaceTaken(
                f"The namespace {publisher} is bound to other keys.",
                found=publisher,
                fix="Publish under a namespace of your own, or sign with the key that this one is bound to.",
            )
        if row is None:
            values = {"publisher": publisher, "version": self.key_set.version, "document": self.key_set.document}
            connection.execute(sa.insert(namespaces).values(**values, registered=now))
            touched.namespaces[publisher] = self.key_set.document
            touched.log(keys_entry(publisher, self.key_set.version, self.key_set.document, now))
        registered = now if row is None else str(row.registered)
        return NamespaceRecord(
            publisher, self.key_set.version, self.key_set.threshold, tuple(self.key_set.keys), registered
        )


@dataclass(frozen=True, slots=True)
class Publish:
    """Add a release whose package and signature have been checked and whose blob is stored."""

    package: Package
    envelope: bytes
    findings: Sequence[Mapping[str, Any]] = ()
    """What rules that are only monitored found."""

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> Receipt | Pending:
        """The stored receipt if this very release is there; raises VersionTaken if another one is."""
        manifest = self.package.manifest
        row = _same_release(connection, manifest.id, manifest.version, self.package.digest)
        if row is not None and row.receipt is not None:
            return Receipt(**row.receipt)
        values = {
            "plugin": manifest.id,
            "version": manifest.version,
            "digest": self.package.digest,
            "size": len(self.package.data),
            "published": now,
        }
        if row is None:  # otherwise the same package is in this batch twice
            envelope = json.loads(self.envelope)
            connection.execute(
                sa.insert(releases).values(
                    **values,
                    kernel=manifest.requires.kernel,
                    manifest=manifest_document(manifest),
                    envelope=envelope,
                    findings=list(self.findings),
                )
            )
            touched.plugins[manifest.id] = self.package.readme
            statement = statement_digest(envelope)
            touched.log(release_entry(manifest.id, manifest.version, self.package.digest, statement, now))
        return Pending({**values, "state": "live"}, touched.position("publish", manifest.id, manifest.version))


@dataclass(frozen=True, slots=True)
class YankRelease:
    """Withdraw a release from new installs. It stays where it is for those who run it."""

    plugin: str
    version: str
    digest: str
    reason: str
    envelope: bytes
    """The publisher's statement, verified."""

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> Receipt | Pending:
        """The stored receipt if it is withdrawn already; raises NotFound if there is no such release."""
        row = _release_row(connection, self.plugin, self.version)
        if row is None or row.digest != self.digest:
            raise NotFound(f"There is no release {self.plugin} {self.version} with this digest.", plugin=self.plugin)
        if row.yank_receipt is not None:
            return Receipt(**row.yank_receipt)
        if row.yank is None:  # otherwise it is in this batch twice
            key = (releases.c.plugin == self.plugin) & (releases.c.version == self.version)
            connection.execute(sa.update(releases).where(key).values(yank={"reason": self.reason, "at": now}))
            touched.plugins.setdefault(self.plugin, None)
            statement = json.loads(self.envelope)
            said = yank_entry(self.plugin, self.version, self.digest, statement_digest(statement), now)
            touched.log(said, statement)
        return Pending(
            {
                "plugin": self.plugin,
                "version": self.version,
                "digest": self.digest,
                "size": row.size,
                "state": "yanked",
                "published": row.published,
            },
            touched.position("yank", self.plugin, self.version),
        )


@dataclass(frozen=True, slots=True)
class Deprecate:
    """Advise against a plugin, or take that back (``reason`` None). Its releases stay installable."""

    plugin: str
    reason: str | None
    successor: str | None
    at: str
    envelope: bytes
    """The publisher's statement, verified."""

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> DeprecationRecord:
        """Raises NotFound if the plugin, or its successor, is not here, and Conflict if a newer statement is."""
        row = connection.execute(sa.select(plugins).where(plugins.c.plugin == self.plugin)).one_or_none()
        if row is None:
            raise NotFound(f"There is no plugin {self.plugin} in this marketplace.", plugin=self.plugin)
        if self.successor is not None:
            known = sa.select(plugins.c.id).where(plugins.c.plugin == self.successor, plugins.c.entry.is_not(None))
            if self.successor == self.plugin or connection.execute(known).one_or_none() is None:
                raise NotFound(
                    f"{self.successor} cannot succeed {self.plugin}.",
                    plugin=self.plugin,
                    expected="another plugin of this marketplace with a release",
                    found=self.successor,
                )
        stored = row.deprecation
        said = {"reason": self.reason, "successor": self.successor, "at": self.at}
        if stored is not None and stored != said and stored["at"] >= self.at:
            raise Conflict(
                f"A newer statement about {self.plugin} is here already.",
                plugin=self.plugin,
                expected=f"one from after {stored['at']}",
                found=self.at,
                fix="Sign a new one with `keelstone plugin deprecate`.",
            )
        if stored != said:
            connection.execute(sa.update(plugins).where(plugins.c.id == row.id).values(deprecation=said))
            touched.plugins.setdefault(self.plugin, None)
            statement = json.loads(self.envelope)
            touched.log(deprecation_entry(self.plugin, statement_digest(statement), now), statement)
        return DeprecationRecord(self.plugin, self.reason, self.successor, self.at)


@dataclass(frozen=True, slots=True)
class Revoke:
    """End a release everywhere, by the marketplace's operator. Asked again, it changes nothing."""

    revocation: Revocation
    envelope: bytes
    """The registry's own statement."""

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> Revocation:
        """The stored revocation if there is one. Raises NotFound if there is no such release."""
        said = self.revocation
        row = _release_row(connection, said.plugin, said.version)
        if row is None or row.digest != said.digest:
            raise NotFound(f"There is no release {said.plugin} {said.version} with this digest.", plugin=said.plugin)
        known = revocation_of(connection, said.digest)
        if known is not None:
            return known
        connection.execute(sa.insert(revocations).values(asdict(said)))
        touched.plugins.setdefault(said.plugin, None)
        touched.revoked = True
        statement = json.loads(self.envelope)
        entry = kill_entry(said.plugin, said.version, said.digest, statement_digest(statement), now)
        touched.log(entry, statement)
        return said


Change = RegisterNamespace | Publish | YankRelease | Deprecate | Revoke


def find_receipt(connection: sa.Connection, plugin: str, version: str, digest: str) -> Receipt | None:
    """The receipt of a release that is there already. Raises VersionTaken if it has other bytes."""
    row = _same_release(connection, plugin, version, digest)
    return None if row is None else Receipt(**row.receipt)


def save_receipt(connection: sa.Connection, receipt: Receipt) -> None:
    """Keep a receipt beside its release."""
    key = (releases.c.plugin == receipt.plugin) & (releases.c.version == receipt.version)
    column = "receipt" if receipt.state == "live" else "yank_receipt"
    connection.execute(sa.update(releases).where(key).values({column: receipt.to_dict()}))


def render(connection: sa.Connection, plugin: str, readme: str | None, now: float) -> Index:
    """The index document of a plugin from its rows, and search brought up to date with it. ``now`` in epoch seconds."""
    index = load_index(connection, plugin)
    there = index.installable()
    if not there:
        update_search(connection, plugin, None, readme)
        return index
    newest = max(there, key=lambda release: release.published)
    known = (releases.c.plugin == plugin) & (releases.c.version == newest.version)
    findings = connection.execute(sa.select(releases.c.findings).where(known)).scalar_one()
    standing = Standing(newest.published, len(findings), recent_downloads(connection, plugin))
    kernels = [release.kernel for release in there]
    update_search(connection, plugin, entry_of(index), readme, standing=standing, kernels=kernels, now=now)
    return index


def rebuild_search(connection: sa.Connection, now: float) -> None:
    """Make the index of the present schema from an older one, if there is such a one (``Tables.create``)."""
    found = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = ?", (OLD_TEXT,)).first()
    if found is None:
        return
    texts = f"SELECT p.plugin, t.body FROM plugins p LEFT JOIN {OLD_TEXT} t ON t.rowid = p.id"  # noqa: S608 - fixed name
    for plugin, body in connection.exec_driver_sql(texts).all():
        render(connection, plugin, body or "", now)
    connection.exec_driver_sql(f"DROP TABLE {OLD_TEXT}")


def load_index(connection: sa.Connection, plugin: str) -> Index:
    """All releases of a plugin (none if there is no such plugin)."""
    ended = (revocations.c.reason.label("ended"), revocations.c.at.label("ended_at"))
    whole = sa.select(releases, *ended).outerjoin(revocations, revocations.c.digest == releases.c.digest)
    rows = connection.execute(whole.where(releases.c.plugin == plugin))
    said = connection.execute(sa.select(plugins.c.deprecation).where(plugins.c.plugin == plugin)).scalar()
    return make_index(
        plugin,
        [
            Release(
                version=row.version,
                digest=row.digest,
                size=row.size,
                kernel=row.kernel,
                published=row.published,
                yanked=_yank(row),
                manifest=row.manifest,
                envelope=row.envelope,
            )
            for row in rows
        ],
        Deprecation(**said) if said and said["reason"] is not None else None,
    )


def _yank(row: Any) -> Yank | None:
    if row.ended is not None:
        return Yank(f"revoked by the marketplace: {row.ended}", row.ended_at)
    return Yank(**row.yank) if row.yank else None


def _release_row(connection: sa.Connection, plugin: str, version: str) -> Any:
    key = (releases.c.plugin == plugin) & (releases.c.version == version)
    return connection.execute(sa.select(releases).where(key)).one_or_none()


def _same_release(connection: sa.Connection, plugin: str, version: str, digest: str) -> Any:
    """The row of this version, or None. Raises VersionTaken if it has other bytes."""
    row = _release_row(connection, plugin, version)
    if row is not None and row.digest != digest:
        raise VersionTaken(
            f"{plugin} {version} was published already, with other bytes.",
            plugin=plugin,
            expected=f"sha256 {row.digest}",
            found=f"sha256 {digest}",
            fix="Published versions never change. Raise the version in plugin.toml and sign again.",
        )
    return row
