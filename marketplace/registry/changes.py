"""What publishers and the operator change of releases, each inside a transaction: checked first, then written.

``change.py`` says what a change is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
import sqlalchemy as sa

from kernel.errors import Conflict, NotFound
from marketplace.index import manifest_document
from marketplace.log.entry import (
    deprecation_entry,
    kill_entry,
    release_entry,
    statement_digest,
    yank_entry,
)
from marketplace.package import Package
from marketplace.registry.change import Pending, Touched
from marketplace.registry.claims import refuse_mirrored
from marketplace.registry.indexes import load_index as load_index
from marketplace.registry.jobs import check_job, keep_provenance
from marketplace.registry.parts import keep_parts
from marketplace.registry.profiles import keep_profile
from marketplace.registry.publishers import check_still_signed
from marketplace.registry.reach import all_revocations, revocation_of
from marketplace.registry.receipts import DeprecationRecord, Receipt
from marketplace.registry.submissions import OPEN, claim, refuse_other_bytes, submissions
from marketplace.registry.tables import ask, plugins, releases, revocations
from marketplace.revocations import REVOCATIONS_TARGET, revocations_document
from plugin_sdk.profile import HookProfile
from plugin_sdk.services import Revocation

_ANYTHING = (
    "SELECT EXISTS(SELECT 1 FROM releases WHERE plugin = ? AND version = ?), "
    "EXISTS(SELECT 1 FROM submissions WHERE plugin = ? AND version = ?)"
)
_RELEASE = (
    "INSERT INTO releases(plugin, version, digest, size, published, kernel, manifest, envelope, findings) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True)
class Publish:
    """Add a release whose package and signature have been checked and whose blob is stored."""

    package: Package
    envelope: bytes
    findings: Sequence[Mapping[str, Any]] = ()
    """What rules that are only monitored found."""
    profile: Mapping[str, HookProfile] = field(default_factory=dict)
    """What its hooks needed, if they were tried."""

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> Receipt | Pending:
        """The stored receipt if this very release is there; raises VersionTaken if another one is."""
        manifest = self.package.manifest
        about = (manifest.id, manifest.version)
        row = waited = None
        # Nearly always there is nothing, and plain SQL finds that out at a fraction of an expression's cost.
        if any(ask(connection, _ANYTHING, about * 2)[0]):
            row = _same_release(connection, *about, self.package.digest)
            if row is not None and row.receipt is not None:
                return Receipt(**row.receipt)
            waited = claim(connection, *about, self.package.digest)
        if waited is not None and waited.state in (*OPEN, "refused"):
            connection.execute(
                sa.update(submissions).where(submissions.c.digest == waited.digest).values(state="live", receipt=None)
            )
        values = {
            "plugin": manifest.id,
            "version": manifest.version,
            "digest": self.package.digest,
            "size": len(self.package.data),
            "published": now,
        }
        if row is None:  # otherwise the same package is in this batch twice
            refuse_mirrored(connection, manifest.publisher)
            envelope = json.loads(self.envelope)
            built = check_job(connection, manifest.id, envelope, now, touched)
            if built is None:
                check_still_signed(connection, manifest.id, self.envelope)
            else:
                keep_provenance(connection, manifest.id, manifest.version, built, touched)
            documents = (manifest_document(manifest), envelope, list(self.findings))
            told = (manifest.requires.kernel, *(orjson.dumps(document).decode() for document in documents))
            ask(connection, _RELEASE, (*values.values(), *told))
            keep_parts(connection, self.package)
            keep_profile(connection, self.package.digest, self.profile)
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
        touched.render(REVOCATIONS_TARGET, lambda after: revocations_document(all_revocations(after)))
        statement = json.loads(self.envelope)
        entry = kill_entry(said.plugin, said.version, said.digest, statement_digest(statement), now)
        touched.log(entry, statement)
        return said


def find_receipt(connection: sa.Connection, plugin: str, version: str, digest: str) -> Receipt | None:
    """The receipt of a release that is there already, or waits. Raises VersionTaken if it has other bytes."""
    if not any(ask(connection, _ANYTHING, (plugin, version) * 2)[0]):
        return None
    row = _same_release(connection, plugin, version, digest) or claim(connection, plugin, version, digest)
    return None if row is None or row.receipt is None else Receipt(**row.receipt)


def save_receipts(connection: sa.Connection, receipts: Sequence[Receipt]) -> None:
    """Keep each receipt beside its release, or beside what is not one (yet)."""
    waiting = "UPDATE submissions SET receipt = ? WHERE digest = ?"
    release = "UPDATE releases SET {} = ? WHERE digest = ?"
    places = {"live": release.format("receipt"), "yanked": release.format("yank_receipt")}
    rows: dict[str, list[tuple[str, str]]] = {}
    for receipt in receipts:
        said = orjson.dumps(receipt).decode()
        rows.setdefault(places.get(receipt.state, waiting), []).append((said, receipt.digest))
    for statement, some in rows.items():
        connection.exec_driver_sql(statement, some)


def _release_row(connection: sa.Connection, plugin: str, version: str) -> Any:
    key = (releases.c.plugin == plugin) & (releases.c.version == version)
    return connection.execute(sa.select(releases).where(key)).one_or_none()


def _same_release(connection: sa.Connection, plugin: str, version: str, digest: str) -> Any:
    """The row of this version, or None. Raises VersionTaken if it has other bytes."""
    row = _release_row(connection, plugin, version)
    if row is not None:
        refuse_other_bytes(plugin, version, row.digest, digest)
    return row
