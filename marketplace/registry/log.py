"""The transparency log as rows, inside one transaction of the registry.

Appending reads and writes the right-most tiles only, however long the log is, and refuses to sign over tiles that do
not give the root of the last checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from kernel.errors import NotFound
from marketplace.errors import RegistryDamaged
from marketplace.keys import SigningKey
from marketplace.log.checkpoint import Checkpoint, read_checkpoint, sign_checkpoint
from marketplace.log.entry import Entry, entry_key, read_entry
from marketplace.log.note import NoteSignature, VerifierKey, read_note
from marketplace.log.proof import LogProof
from marketplace.log.tiles import WIDTH, GrowingTiles, Tile, TileNodes, read_path, tails_of, write_bundle
from marketplace.log.tree import EMPTY_ROOT, HASH_BYTES, inclusion_proof, leaf_hash
from marketplace.registry.metadata import KEEP_SECONDS
from marketplace.registry.tables import (
    key_sets,
    log_checkpoints,
    log_cosignatures,
    log_entries,
    log_tiles,
    namespaces,
    releases,
)

KEEP_WITNESSED = 100
"""How many superseded checkpoints with cosignatures are kept for those who wait for witnesses."""
Statements = Mapping[int, Mapping[str, Any]]


class LogRows:
    """The log over an open connection. ``now`` is in epoch seconds."""

    def __init__(self, connection: sa.Connection, now: float = 0.0) -> None:
        self._connection, self._now = connection, now

    # -------------------------------------------------------------------------- writing

    def begin(self, origin: str, key: SigningKey) -> None:
        """Sign the checkpoint of a log without entries."""
        self._save(sign_checkpoint(origin, 0, EMPTY_ROOT, key))

    def append(self, entries: Sequence[Entry], statements: Statements, *keys: SigningKey) -> int:
        """Add entries and sign the new checkpoint, by each of ``keys``; the index of the first.

        ``statements`` has the envelopes behind them that nothing else keeps, by position in ``entries``. Raises
        RegistryDamaged if the log's tiles do not fit its last checkpoint.
        """
        last = self.checkpoint()
        tails = {level: self._tile(level, number) for level, number in tails_of(last.size)}
        tiles = GrowingTiles(last.size, tails)
        if tiles.root() != last.root:
            raise RegistryDamaged(
                "The transparency log's tiles do not give the root of its last checkpoint.",
                expected=f"root {last.root.hex()[:16]} of {last.size} entries",
                found=f"root {tiles.root().hex()[:16]}",
                fix="Restore the marketplace folder from a backup.",
            )
        rows = []
        for at, entry in enumerate(entries):
            body = entry.to_bytes()
            kind, subject, version = entry_key(entry)
            rows.append(
                {
                    "position": last.size + at,
                    "kind": kind,
                    "subject": subject,
                    "version": version,
                    "body": body,
                    "statement": statements.get(at),
                }
            )
            tiles.append(leaf_hash(body))
        if not rows:
            return last.size
        self._connection.execute(sa.insert(log_entries), rows)
        for (level, number), body in tiles.changed().items():
            values = {"level": level, "number": number, "body": body}
            self._connection.execute(
                insert(log_tiles).values(values).on_conflict_do_update(index_elements=["level", "number"], set_=values)
            )
        self._save(sign_checkpoint(last.origin, tiles.size, tiles.root(), *keys))
        return last.size

    def cosign(self, checkpoint: Checkpoint, witness: VerifierKey, signature: NoteSignature) -> None:
        """Keep a witness' signature, which the caller has verified.

        Raises NotFound if this log did not sign the checkpoint, or forgot it.
        """
        body = self._connection.execute(
            sa.select(log_checkpoints.c.note).where(log_checkpoints.c.size == checkpoint.size)
        ).scalar()
        if body is None or read_note(body).text != checkpoint.note.text:
            raise NotFound(
                f"This log has no such checkpoint of {checkpoint.size} entries.",
                fix="Run `keelstone marketplace witness` again: it signs the present one.",
            )
        values = {"size": checkpoint.size, "witness": str(witness), "line": f"{signature}\n"}
        self._connection.execute(
            insert(log_cosignatures)
            .values(values)
            .on_conflict_do_update(index_elements=["size", "witness"], set_=values)
        )

    def prune(self, keep_witnessed: int = KEEP_WITNESSED) -> None:
        """Forget checkpoints superseded over a day ago, but for the newest that witnesses signed."""
        signed = (
            sa.select(log_cosignatures.c.size).distinct().order_by(log_cosignatures.c.size.desc()).limit(keep_witnessed)
        )
        old = log_checkpoints.c.superseded < self._now - KEEP_SECONDS
        self._connection.execute(sa.delete(log_checkpoints).where(old, log_checkpoints.c.size.not_in(signed)))
        kept = sa.select(log_checkpoints.c.size)
        self._connection.execute(sa.delete(log_cosignatures).where(log_cosignatures.c.size.not_in(kept)))

    # -------------------------------------------------------------------------- reading

    def exists(self) -> bool:
        """Whether the log has begun."""
        return self._connection.execute(sa.select(sa.func.max(log_checkpoints.c.size))).scalar() is not None

    def checkpoint(self, size: int | None = None, witnesses: int = 0) -> Checkpoint:
        """The newest checkpoint, with its witnesses' signatures: of one size, or with so many witnesses, if asked.

        Raises NotFound.
        """
        query = sa.select(log_checkpoints).order_by(log_checkpoints.c.size.desc()).limit(1)
        if size is not None:
            query = query.where(log_checkpoints.c.size == size)
        if witnesses:
            enough = (
                sa.select(log_cosignatures.c.size)
                .group_by(log_cosignatures.c.size)
                .having(sa.func.count() >= witnesses)
            )
            query = query.where(log_checkpoints.c.size.in_(enough))
        row = self._connection.execute(query).one_or_none()
        if row is None:
            raise NotFound("The log has no such checkpoint.", expected=f"{witnesses} witnesses" if witnesses else None)
        lines = self._connection.execute(
            sa.select(log_cosignatures.c.line)
            .where(log_cosignatures.c.size == row.size)
            .order_by(log_cosignatures.c.witness)
        ).scalars()
        return read_checkpoint(row.note + "".join(lines).encode())

    def proof(self, kind: str, subject: str, version: str, size: int | None = None) -> LogProof:
        """The proof of an entry, against the newest checkpoint or the one of ``size``. Raises NotFound."""
        index = self._find(kind, subject, version)
        if index is None:
            raise NotFound(f"The log has no entry {kind} {subject} {version}.".replace(" .", "."))
        return self.proof_of(index, size)

    def proof_of(self, index: int, size: int | None = None) -> LogProof:
        """The proof of the entry at ``index``, as :meth:`proof`. Raises NotFound."""
        checkpoint = self.checkpoint(size)
        row = self._connection.execute(sa.select(log_entries).where(log_entries.c.position == index)).one_or_none()
        if row is None or index >= checkpoint.size:
            raise NotFound(f"The log's first {checkpoint.size} entries do not have number {index}.")
        hashes = inclusion_proof(index, checkpoint.size, TileNodes(checkpoint.size, self.tile))
        statement = row.statement or self._statement(row.kind, row.subject, row.version)
        return LogProof(index, read_entry(row.body), tuple(hashes), checkpoint.to_bytes(), statement)

    def tile(self, place: Tile) -> bytes:
        """The bytes of a tile or entry bundle. Raises NotFound if the log is not that long."""
        if place.level is not None:
            body = self._tile(place.level, place.number)[: place.width * HASH_BYTES]
            if len(body) == place.width * HASH_BYTES:
                return body
        else:
            first = place.number * WIDTH
            wanted = log_entries.c.position.between(first, first + place.width - 1)
            query = sa.select(log_entries.c.body).where(wanted).order_by(log_entries.c.position)
            entries = list(self._connection.execute(query).scalars())
            if len(entries) == place.width:
                return write_bundle(entries)
        raise NotFound(f"The log has no {place.path}.", file=place.path)

    def file(self, path: str) -> bytes:
        """What is served under ``log/``: checkpoints, tiles, bundles and proofs. Raises NotFound."""
        if path == "checkpoint":
            return self.checkpoint().to_bytes()
        kind, _, rest = path.partition("/")
        if kind == "witnessed" and _is_number(rest):
            return self.checkpoint(witnesses=int(rest)).to_bytes()
        if kind in ("proof", "entry"):
            about, at, size = rest.partition("/at/")
            if (not at or _is_number(size)) and (kind == "proof" or _is_number(about)):
                return self._proof_file(kind, about, int(size) if at else None)
        place = read_path(path)
        if place is None:
            raise NotFound(f"The log has no {path}.", file=path)
        return self.tile(place)

    # -------------------------------------------------------------------------- inside

    def _proof_file(self, kind: str, about: str, size: int | None) -> bytes:
        if kind == "entry":
            return self.proof_of(int(about), size).to_bytes()
        plugin, _, version = about.rpartition("/")
        return self.proof("publish", plugin, version, size).to_bytes()

    def _statement(self, kind: str, subject: str, version: str) -> Mapping[str, Any] | None:
        """The envelope behind an entry, if a release or a namespace keeps it."""
        if kind == "publish":
            key = (releases.c.plugin == subject) & (releases.c.version == version)
            return self._connection.execute(sa.select(releases.c.envelope).where(key)).scalar()
        if kind == "keys":
            key = (namespaces.c.publisher == subject) & (namespaces.c.version == int(version))
            document = self._connection.execute(sa.select(namespaces.c.document).where(key)).scalar()
            if document is None:  # it has been replaced
                key = (key_sets.c.publisher == subject) & (key_sets.c.version == int(version))
                document = self._connection.execute(sa.select(key_sets.c.document).where(key)).scalar()
            return json.loads(document) if document else None
        return None

    def _find(self, kind: str, subject: str, version: str) -> int | None:
        key = (log_entries.c.kind == kind) & (log_entries.c.subject == subject) & (log_entries.c.version == version)
        return self._connection.execute(sa.select(sa.func.max(log_entries.c.position)).where(key)).scalar()

    def _tile(self, level: int, number: int) -> bytes:
        key = (log_tiles.c.level == level) & (log_tiles.c.number == number)
        return self._connection.execute(sa.select(log_tiles.c.body).where(key)).scalar() or b""

    def _save(self, checkpoint: Checkpoint) -> None:
        current = log_checkpoints.c.superseded.is_(None)
        self._connection.execute(sa.update(log_checkpoints).where(current).values(superseded=self._now))
        values = {"size": checkpoint.size, "note": checkpoint.to_bytes(), "superseded": None}
        self._connection.execute(sa.insert(log_checkpoints).values(values))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19
