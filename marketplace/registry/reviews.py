"""The review queue: releases that a person has to look at, what is new in them, and the verdicts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from kernel.errors import Conflict, NotFound
from kernel.manifest import PluginManifest
from marketplace.archive import read_archive
from marketplace.log.entry import statement_digest, verdict_entry
from marketplace.package import Package, read_package
from marketplace.registry.blobs import FolderBlobs
from marketplace.registry.change import Pending, Touched
from marketplace.registry.changes import Publish, find_receipt, load_index
from marketplace.registry.jobs import Bind
from marketplace.registry.profiles import HookCost, hook_costs
from marketplace.registry.receipts import Receipt
from marketplace.registry.submissions import find_submission, pending, submissions
from marketplace.registry.tables import Tables, releases
from marketplace.rules.growth import base_of
from plugin_sdk.differences import Change, differences
from plugin_sdk.toolchain.world import imports_of


@dataclass(frozen=True, slots=True)
class Held:
    """A release that waits for a verdict, or had one. ``received`` is ISO 8601 in UTC, ``size`` in bytes; ``findings``
    are what the rules found; ``verdict`` has ``approved``, ``reason``, ``reviewer`` and ``at``."""

    digest: str
    plugin: str
    version: str
    size: int
    state: str
    received: str
    findings: tuple[Mapping[str, Any], ...]
    verdict: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class PublishStatus:
    """What became of a package: its last receipt, what the rules found, and the verdict if somebody gave one."""

    receipt: Receipt
    findings: list[Mapping[str, Any]]
    verdict: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class FileChange:
    """A member of the package that is not as it was. Sizes in bytes; None: it is not in that version."""

    name: str
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class Review:
    """What a reviewer decides on: the release beside the version it follows (``base``; None if it is the first)."""

    held: Held
    base: str | None
    changes: tuple[Change, ...]
    imports_before: tuple[str, ...]
    imports_after: tuple[str, ...]
    files: tuple[FileChange, ...]
    settings_changed: bool
    costs: tuple[HookCost, ...] = ()
    """What its hooks needed when they were tried, beside the version before."""


class ReviewDesk:
    """Reads the queue of one registry. Blocking; safe from several threads."""

    def __init__(self, tables: Tables, blobs: FolderBlobs) -> None:
        self._tables, self._blobs = tables, blobs

    def queue(self) -> list[Held]:
        """What waits for a verdict, oldest first."""
        waiting = sa.select(submissions).where(submissions.c.state == "quarantined")
        with self._tables.read() as connection:
            ordered = waiting.order_by(submissions.c.received, submissions.c.digest)
            return [_held(row) for row in connection.execute(ordered)]

    def unfinished(self) -> list[tuple[str, bytes]]:
        """Digests and envelopes of what was being scanned when the registry last stopped."""
        with self._tables.read() as connection:
            open_ = sa.select(submissions).where(submissions.c.state.in_(("received", "scanning")))
            return [(row.digest, json.dumps(row.envelope).encode()) for row in connection.execute(open_)]

    def status(self, digest: str) -> PublishStatus:
        """What became of a package that was handed in. Raises NotFound."""
        with self._tables.read() as connection:
            row = find_submission(connection, digest)
            live = connection.execute(sa.select(releases).where(releases.c.digest == digest)).one_or_none()
        receipt = live.receipt if live is not None else row.receipt if row is not None else None
        if receipt is None:
            raise NotFound(
                "No package with this digest was taken in here.",
                found=digest,
                fix="Publish it, again if the answer was lost: the same package gives the same receipt.",
            )
        findings = live.findings if live is not None else row.findings
        return PublishStatus(Receipt(**receipt), list(findings), None if row is None else row.verdict)

    def package(self, digest: str) -> tuple[Package, bytes]:
        """A held package and its envelope, for the reviewer. Raises NotFound."""
        with self._tables.read() as connection:
            row = find_submission(connection, digest)
        data = None if row is None else self._blobs.read(digest)
        if row is None or data is None:
            raise _nothing(digest)
        return read_package(data, max_bytes=max(row.size, 1)), json.dumps(row.envelope).encode()

    def show(self, digest: str) -> Review:
        """A held release beside the version that it follows. Raises NotFound; some milliseconds for large ones."""
        return self.look(digest)[0]

    def look(self, digest: str) -> tuple[Review, PluginManifest]:
        """As :meth:`show`, with the release's manifest."""
        with self._tables.read() as connection:
            row = find_submission(connection, digest)
            if row is None:
                raise _nothing(digest)
            index = load_index(connection, row.plugin)
            costs = hook_costs(connection, digest, index.before(row.version))
        package, _ = self.package(digest)
        base = base_of(package.manifest, index.readable(index.releases))
        release = None if base is None else index.find(base.version)
        old = None if release is None else self._published(release.digest)
        before, after = None if old is None else imports_of(old.component), imports_of(package.component)
        changes = [] if base is None else differences(base, package.manifest, old_imports=before, new_imports=after)
        review = Review(
            _held(row),
            None if base is None else base.version,
            tuple(changes),
            before or (),
            after or (),
            tuple(_files(old, package)),
            old is not None and old.settings_schema != package.settings_schema,
            costs,
        )
        return review, package.manifest

    def _published(self, digest: str) -> Package | None:
        data = self._blobs.read(digest)
        return None if data is None else read_package(data, max_bytes=len(data))


@dataclass(frozen=True, slots=True)
class Decide:
    """A reviewer's verdict on a held release. The same verdict asked again changes nothing."""

    package: Package
    envelope: bytes
    """The publisher's, verified anew."""
    approved: bool
    reason: str
    reviewer: str
    statement: bytes
    """The registry's own, signed."""
    again: Bind | None = None
    """The CI job's key that signed the release, given its minutes once more."""

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> Receipt | Pending:
        """Raises NotFound if nothing like it was held, and Conflict if it had another verdict."""
        digest, manifest = self.package.digest, self.package.manifest
        row = find_submission(connection, digest)
        if row is None or row.state not in ("quarantined", "live", "rejected"):
            raise _nothing(digest)
        after = "live" if self.approved else "rejected"
        known = find_receipt(connection, row.plugin, row.version, digest)
        if row.state == after and known is not None:
            return known
        if row.state != "quarantined":
            raise Conflict(
                f"{row.plugin} {row.version} has a verdict already: it is {row.state}.",
                plugin=row.plugin,
                expected="a release that waits for one",
                found=row.state,
                fix="A live release can be ended with `keelstone marketplace kill`; a rejected one stays rejected.",
            )
        said = {"approved": self.approved, "reason": self.reason, "reviewer": self.reviewer, "at": now}
        outcome: Receipt | Pending
        if self.approved:
            if self.again is not None:
                self.again.apply(connection, now, touched)
            outcome = Publish(self.package, self.envelope, row.findings).apply(connection, now, touched)
        statement = json.loads(self.statement)
        touched.log(verdict_entry(manifest.id, manifest.version, digest, statement_digest(statement), now), statement)
        if not self.approved:
            position = touched.position("verdict", manifest.id, manifest.version)
            outcome = pending(manifest.id, manifest.version, digest, row.size, "rejected", now, position)
        changed = sa.update(submissions).where(submissions.c.digest == digest)
        connection.execute(changed.values(state=after, verdict=said, receipt=None))
        return outcome


def _nothing(digest: str) -> NotFound:
    return NotFound(
        "No release with this digest was held here.", found=digest, fix="See `keelstone marketplace review list`."
    )


def _held(row: Any) -> Held:
    return Held(
        row.digest, row.plugin, row.version, row.size, row.state, row.received, tuple(row.findings), row.verdict
    )


def _files(old: Package | None, new: Package) -> list[FileChange]:
    before = {} if old is None else read_archive(old.data, len(old.data))
    after = read_archive(new.data, len(new.data))
    names = sorted({*before, *after})
    return [
        FileChange(name, _size(before.get(name)), _size(after.get(name)))
        for name in names
        if before.get(name) != after.get(name)
    ]


def _size(member: bytes | None) -> int | None:
    return None if member is None else len(member)
