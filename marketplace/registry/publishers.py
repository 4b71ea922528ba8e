"""Publishers' keys in the registry: a namespace is bound once, and from then on its keys say who follows them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from kernel.errors import NotFound
from marketplace.errors import KeySetRefused, NamespaceTaken, NamespaceUnknown, SignatureInvalid, SignerUnknown
from marketplace.keys import SigningKey
from marketplace.log.entry import keys_entry, owner_entry, sha256_of, statement_digest
from marketplace.namespaces import KEY_SET_PAYLOAD, KeySet, check_successor, read_key_set, target_path
from marketplace.registry.change import Touched
from marketplace.registry.claims import refuse_mirrored
from marketplace.registry.log import LogRows
from marketplace.registry.receipts import NamespaceRecord
from marketplace.registry.tables import ask, key_sets, log_entries, namespaces
from marketplace.signing import (
    OWNER,
    RELEASE,
    SIGNED_AHEAD,
    canonical_json,
    only_by,
    open_statement,
    sign_statement,
)
from marketplace.succession import MAX_VERSIONS, Step, Succession


@dataclass(frozen=True, slots=True)
class RegisterNamespace:
    """Bind a namespace to the keys of its first key set. Asked again with the same keys, it changes nothing."""

    key_set: KeySet

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> NamespaceRecord:
        """Raises NamespaceTaken if the namespace has other keys."""
        publisher = self.key_set.publisher
        refuse_mirrored(connection, publisher)
        row = _row(connection, publisher)
        if row is not None and not _known(connection, row, self.key_set):
            raise NamespaceTaken(
                f"The namespace {publisher} is bound to other keys.",
                found=publisher,
                fix="Publish under a namespace of your own, or sign with the key that this one is bound to.",
            )
        if row is None:
            values = {"publisher": publisher, "version": 1, "document": self.key_set.document}
            connection.execute(sa.insert(namespaces).values(**values, registered=now))
            touched.put(target_path(publisher), self.key_set.document)
            touched.log(keys_entry(publisher, 1, self.key_set.document, now))
        return _record(_row(connection, publisher))


@dataclass(frozen=True, slots=True)
class ChangeKeys:
    """Let a key set follow the present one: the next version, signed by a threshold of it and by all that it names.

    With ``recovery`` (the operator's own statement) the keys of the present one need not have signed: they are lost.
    """

    key_set: KeySet
    recovery: bytes | None = None

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> NamespaceRecord:
        """The namespace. Asked again with the same key set, it changes nothing.

        Raises NamespaceUnknown, KeySetRefused (a gap, a replay, a fork) or SignatureInvalid (below threshold).
        """
        refuse_mirrored(connection, self.key_set.publisher)
        publisher, row = self.key_set.publisher, _row(connection, self.key_set.publisher)
        if row is None:
            raise _unknown(publisher)
        present = read_key_set(row.document)
        if present.digest == self.key_set.digest:
            return _record(row)
        self._check(present, now)
        if row.version == 1:
            first = _logged(connection, publisher, touched)
            _keep(connection, present, first, None, recovered=False, at=str(row.registered))
        # Signatures of strangers are left out: what is kept, and logged, is what was checked.
        held = {**present.keys, **self.key_set.keys}
        document = only_by(self.key_set.document, KEY_SET_PAYLOAD, held)
        key_set = read_key_set(document)
        changed = self.recovery is not None or key_set.owner is not None
        place = LogRows(connection).checkpoint().size + len(touched.entries)
        owner = place + 1 if changed else None
        _keep(connection, key_set, place, owner, recovered=self.recovery is not None, at=now)
        values = {"version": key_set.version, "document": document}
        connection.execute(sa.update(namespaces).where(namespaces.c.publisher == publisher).values(values))
        touched.render(target_path(publisher), lambda after: succession_of(after, publisher).to_bytes())
        touched.log(keys_entry(publisher, key_set.version, document, now), json.loads(document))
        if changed:
            told = json.loads(self.recovery if self.recovery is not None else document)
            said = owner_entry(publisher, key_set.version, sha256_of(document), statement_digest(told), now)
            touched.log(said, told)
        return _record(_row(connection, publisher))

    def _check(self, present: KeySet, now: str) -> None:
        wanted = present.version + 1
        if self.key_set.version < present.version:
            raise _refused(self.key_set, "It was replaced already, and does not come back", f"version {wanted}")
        if self.key_set.version == present.version:
            raise _refused(self.key_set, "There is another one of this version already", f"version {wanted}")
        if self.key_set.version > wanted or wanted > MAX_VERSIONS:
            raise _refused(self.key_set, "Versions in between are missing", f"version {wanted}")
        if self.recovery is not None and self.key_set.previous == present.digest:
            return
        check_successor(present, self.key_set)
        ahead = datetime.fromisoformat(now) + SIGNED_AHEAD
        if any(datetime.fromisoformat(since) > ahead for since in self.key_set.stolen.values()):
            raise _refused(self.key_set, "A key cannot be stolen in the future", f"a moment before {now}")


def change_of(document: bytes) -> RegisterNamespace | ChangeKeys:
    """The change that a signed key set asks for. Raises what reading it raises."""
    key_set = read_key_set(document)
    return RegisterNamespace(key_set) if key_set.version == 1 else ChangeKeys(key_set)


def recovery_of(document: bytes, reason: str, key: SigningKey) -> ChangeKeys:
    """The operator's change to a key set that the lost one did not sign, with the registry's statement by ``key``."""
    key_set = read_key_set(document)
    subject = {f"{key_set.publisher}@{key_set.version}": sha256_of(key_set.document)}
    predicate = {"publisher": key_set.publisher, "version": key_set.version, "reason": reason}
    return ChangeKeys(key_set, sign_statement(OWNER, subject, predicate, key))


def check_still_signed(connection: sa.Connection, plugin: str, envelope: bytes) -> None:
    """Raise SignatureInvalid or SignerUnknown if the keys of a release were replaced while it was on its way: what is
    logged after a key set must be signed by it."""
    query = "SELECT document FROM namespaces WHERE publisher = ? AND version > 1"
    rows = ask(connection, query, (plugin.partition("/")[0],))
    if not rows:  # the first keys are those that it was examined with
        return
    present = read_key_set(rows[0][0])
    try:
        open_statement(envelope, RELEASE, present.keys, present.release_threshold)
    except (SignatureInvalid, SignerUnknown) as error:
        error.plugin, error.fix = plugin, f"Its keys were replaced by v{present.version}: sign it again with those."
        raise


def succession_of(connection: sa.Connection, publisher: str) -> Succession:
    """All key sets of a namespace, oldest first. Raises NamespaceUnknown."""
    rows = connection.execute(
        sa.select(key_sets).where(key_sets.c.publisher == publisher).order_by(key_sets.c.version)
    ).all()
    if rows:
        return Succession(tuple(Step(read_key_set(r.document), r.entry, r.owner_entry, r.recovered) for r in rows))
    row = _row(connection, publisher)
    if row is None:
        raise _unknown(publisher)
    return Succession((Step(read_key_set(row.document)),))


def moments_of(connection: sa.Connection, publisher: str) -> Mapping[int, str]:
    """When each key set of a namespace came, by version (ISO 8601, UTC)."""
    rows: Sequence[Any] = connection.execute(
        sa.select(key_sets.c.version, key_sets.c.at).where(key_sets.c.publisher == publisher)
    ).all()
    return {row.version: row.at for row in rows}


def _keep(
    connection: sa.Connection, key_set: KeySet, entry: int, owner: int | None, *, recovered: bool, at: str
) -> None:
    values = {"publisher": key_set.publisher, "version": key_set.version, "document": canonical(key_set), "at": at}
    connection.execute(sa.insert(key_sets).values(**values, entry=entry, owner_entry=owner, recovered=recovered))


def canonical(key_set: KeySet) -> bytes:
    """Its document, in the form whose digest the log has."""
    return canonical_json(json.loads(key_set.document))


def _logged(connection: sa.Connection, publisher: str, touched: Touched) -> int:
    """Where the log has, or will have, the first key set."""
    with suppress(KeyError):  # of this very batch
        return LogRows(connection).checkpoint().size + touched.position("keys", publisher, "1")
    key = (log_entries.c.kind == "keys") & (log_entries.c.subject == publisher) & (log_entries.c.version == "1")
    found: int | None = connection.execute(sa.select(sa.func.min(log_entries.c.position)).where(key)).scalar()
    if found is None:
        raise NotFound(f"The log does not have the first key set of {publisher} yet.", fix="Ask again in a moment.")
    return found


def _row(connection: sa.Connection, publisher: str) -> Any:
    return connection.exec_driver_sql("SELECT * FROM namespaces WHERE publisher = ?", (publisher,)).one_or_none()


def _known(connection: sa.Connection, row: Any, key_set: KeySet) -> bool:
    """Whether it is the namespace's first key set, replaced since or not: asking again changes nothing."""
    if row.version == 1:
        return read_key_set(row.document).digest == key_set.digest
    return succession_of(connection, row.publisher).steps[0].key_set.digest == key_set.digest


def _record(row: Any) -> NamespaceRecord:
    found = read_key_set(row.document)
    return NamespaceRecord(
        found.publisher,
        found.version,
        found.threshold,
        tuple(found.keys),
        str(row.registered),
        releases=found.release_threshold,
        owner=found.owner,
    )


def _refused(key_set: KeySet, why: str, expected: str) -> KeySetRefused:
    return KeySetRefused(
        f"Key set v{key_set.version} of {key_set.publisher} is not taken. {why}.",
        expected=expected,
        found=f"version {key_set.version}",
        fix="Propose one that follows the present one: `keelstone plugin keys propose`.",
    )


def _unknown(publisher: str) -> NamespaceUnknown:
    return NamespaceUnknown(
        f"The namespace {publisher} is not registered in this marketplace.",
        found=publisher,
        fix="`keelstone plugin publish` registers it with your key.",
    )
