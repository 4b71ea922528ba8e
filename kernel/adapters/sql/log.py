"""Writing the event log: positions, versions, hash chain, one insert for a whole group.

Readers must never skip an event that commits late, nor see a stream out of order. On SQLite one writer at
a time makes positions the order of commits. On PostgreSQL each row carries a transaction id and readers
take only rows below ``pg_snapshot_xmin(pg_current_snapshot())``, in the order (xid, position). A
transaction that got its id early and appended late would then sort before the event it follows, so a row
stores the greater of its own id and that of its predecessor in the stream. That is safe: the stored id is
never below the true one, so no reader passes it while its transaction is open.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from kernel.errors import ConcurrencyConflict, ValidationFailed
from kernel.events import GENESIS_HASH, Event, NewEvent, canonical_json, event_hash

MAX_EVENT_BYTES = 1024 * 1024
"""Most bytes of one event's data: every bus must be able to carry it."""


@dataclass(frozen=True, slots=True)
class Append:
    """Events of one caller for the end of one stream, ready to be written.

    ``documents`` are the canonical JSON of each event's data and metadata.
    """

    tenant: str
    stream: str
    events: Sequence[NewEvent]
    expected_version: int | None
    metadata: Mapping[str, Any]
    documents: Sequence[tuple[bytes, Mapping[str, Any], bytes]]

    @classmethod
    def prepare(
        cls,
        tenant: str,
        stream: str,
        events: Sequence[NewEvent],
        expected_version: int | None,
        metadata: Mapping[str, Any],
    ) -> Append:
        """Check what needs no database, so that one caller's mistake never reaches a group commit.

        Raises ValidationFailed for data that is not JSON or too large, or names out of bounds.
        """
        if not 0 < len(stream) <= 255 or "\0" in stream:
            raise ValidationFailed(
                "A stream's name is out of bounds.", expected="1 to 255 characters", found=stream[:80]
            )
        plain = canonical_json(metadata)
        documents: list[tuple[bytes, Mapping[str, Any], bytes]] = []
        for event in events:
            if not 0 < len(event.id) <= 64 or not 0 < len(event.type) <= 255:
                raise ValidationFailed(
                    "An event's id or type is out of bounds.",
                    expected="an id of 1 to 64 characters, a type of 1 to 255",
                    found=f"{event.id[:80]}, {event.type[:80]}",
                )
            try:
                data = canonical_json(event.data)
                # What the platform knows wins over what the emitter claims.
                full: Mapping[str, Any] = {**event.metadata, **metadata} if event.metadata else metadata
                documents.append((data, full, canonical_json(full) if event.metadata else plain))
            except TypeError as error:
                raise ValidationFailed(
                    f"The data of an event of type {event.type} is not JSON.", expected="JSON values", found=str(error)
                ) from error
            if len(data) > MAX_EVENT_BYTES:
                raise ValidationFailed(
                    f"The data of an event of type {event.type} is too large.",
                    expected=f"at most {MAX_EVENT_BYTES} bytes",
                    found=f"{len(data)} bytes",
                    fix="Store it elsewhere and name it in the event.",
                )
        return cls(tenant, stream, events, expected_version, metadata, documents)


@dataclass(slots=True)
class _Head:
    version: int = 0
    hash: str = GENESIS_HASH
    xid: int = 0


Outcome = list[Event] | ConcurrencyConflict
Row = tuple[Any, ...]

_COLUMNS = "position, tenant_id, stream, version, id, type, time, data, metadata, prev_hash, hash, xid"

_SQLITE_INSERT = f"INSERT INTO keelstone_events ({_COLUMNS}) VALUES ({', '.join('?' * 12)})"  # noqa: S608 constants
_SQLITE_HEAD = (
    "SELECT version, hash FROM keelstone_events WHERE tenant_id = ? AND stream = ? ORDER BY version DESC LIMIT 1"
)
_SQLITE_HEADS = """
WITH k(t, s) AS (SELECT value ->> 0, value ->> 1 FROM json_each(?))
SELECT e.tenant_id, e.stream, e.version, e.hash FROM k JOIN keelstone_events e
ON e.tenant_id = k.t AND e.stream = k.s AND e.version =
   (SELECT max(version) FROM keelstone_events x WHERE x.tenant_id = k.t AND x.stream = k.s)
"""
_PG_LOCK = "SELECT pg_advisory_xact_lock(k) FROM unnest($1::bigint[]) AS k"
_PG_HEADS = """
SELECT e.tenant_id, e.stream, e.version, e.hash, e.xid
FROM unnest($1::text[], $2::text[]) AS k(t, s) CROSS JOIN LATERAL (
  SELECT * FROM keelstone_events x WHERE x.tenant_id = k.t AND x.stream = k.s ORDER BY x.version DESC LIMIT 1
) AS e
"""
_PG_POSITIONS = """
SELECT pg_current_xact_id()::text::bigint, nextval(pg_get_serial_sequence('keelstone_events', 'position'))
FROM generate_series(1, $1::int)
"""
_PG_INSERT = f"""
INSERT INTO keelstone_events ({_COLUMNS})
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::int[], $5::text[], $6::text[],
  $7::timestamptz[], $8::text[], $9::text[], $10::text[], $11::text[], $12::bigint[])
"""  # noqa: S608 constants


class EventLog:
    """Appends to the table ``keelstone_events`` inside a caller's transaction."""

    def __init__(self, dialect: str) -> None:
        self._postgres = dialect == "postgresql"

    async def append(self, connection: AsyncConnection, appends: Sequence[Append]) -> list[Outcome]:
        """Append all, in order; each caller gets its events, or the ConcurrencyConflict it met.

        A caller in conflict has no part in what is written. Raises ConcurrencyConflict itself if
        somebody else wrote the same stream, or the same event id, meanwhile.
        """
        heads = await self._heads(connection, appends)
        positions, own_xid = await self._positions(connection, sum(len(append.events) for append in appends))
        now = datetime.now(UTC)
        stamp: Any = now if self._postgres else now.strftime("%Y-%m-%d %H:%M:%S.%f")
        rows: list[Row] = []
        outcomes: list[Outcome] = []
        for append in appends:
            head = heads[append.tenant, append.stream]
            if append.expected_version is not None and append.expected_version != head.version:
                outcomes.append(_conflict(append, head.version))
                continue
            made: list[Event] = []
            head.xid = max(head.xid, own_xid)
            for new, (data, metadata, metadata_bytes) in zip(append.events, append.documents, strict=True):
                event = _chain(append, new, head, positions[len(rows)], now, data, metadata, metadata_bytes)
                made.append(event)
                rows.append(
                    (
                        event.position,
                        event.tenant,
                        event.stream,
                        event.version,
                        event.id,
                        event.type,
                        stamp,
                        data.decode(),
                        metadata_bytes.decode(),
                        event.prev_hash,
                        event.hash,
                        head.xid,
                    )
                )
            outcomes.append(made)
        if rows:
            await self._insert(connection, rows)
        return outcomes

    async def _heads(self, connection: AsyncConnection, appends: Sequence[Append]) -> dict[tuple[str, str], _Head]:
        keys = list(dict.fromkeys((append.tenant, append.stream) for append in appends))
        heads = {key: _Head() for key in keys}
        if self._postgres:
            # Writers of one stream queue here; sorted, so that two groups can't wait for each other.
            locks = sorted({_lock_key(*key) for key in keys})
            await connection.exec_driver_sql(_PG_LOCK, (locks,))
            columns = ([key[0] for key in keys], [key[1] for key in keys])
            found: Any = await connection.exec_driver_sql(_PG_HEADS, columns)
            for tenant, stream, version, hash_, xid in found:
                heads[tenant, stream] = _Head(version, hash_, xid)
        elif len(keys) == 1:
            row: Any = (await connection.exec_driver_sql(_SQLITE_HEAD, keys[0])).first()
            if row is not None:
                heads[keys[0]] = _Head(row[0], row[1])
        else:
            text = canonical_json(keys).decode()
            found = await connection.exec_driver_sql(_SQLITE_HEADS, (text,))
            for tenant, stream, version, hash_ in found:
                heads[tenant, stream] = _Head(version, hash_)
        return heads

    async def _positions(self, connection: AsyncConnection, wanted: int) -> tuple[list[int], int]:
        if self._postgres:
            rows: Any = (await connection.exec_driver_sql(_PG_POSITIONS, (wanted,))).all()
            return sorted(row[1] for row in rows), rows[0][0] if rows else 0
        # BEGIN IMMEDIATE makes this writer the only one, so the counter can be read ahead.
        result = await connection.exec_driver_sql("SELECT seq FROM sqlite_sequence WHERE name = 'keelstone_events'")
        last = result.scalar() or 0
        return list(range(last + 1, last + 1 + wanted)), 0

    async def _insert(self, connection: AsyncConnection, rows: list[Row]) -> None:
        try:
            if self._postgres:
                await connection.exec_driver_sql(_PG_INSERT, tuple(map(list, zip(*rows, strict=True))))
            else:
                await connection.exec_driver_sql(_SQLITE_INSERT, rows if len(rows) > 1 else rows[0])
        except IntegrityError as error:
            raise ConcurrencyConflict(
                "An event of the same stream and version, or with the same id, is stored already.",
                tenant=rows[0][1],
                found=str(error.orig).partition("\n")[0],
                fix="Read the stream again and repeat the change.",
            ) from error


def _chain(
    append: Append,
    new: NewEvent,
    head: _Head,
    position: int,
    now: datetime,
    data: bytes,
    metadata: Mapping[str, Any],
    metadata_bytes: bytes,
) -> Event:
    version, previous = head.version + 1, head.hash
    head.version = version
    head.hash = event_hash(previous, append.tenant, append.stream, version, new.id, new.type, data, metadata_bytes)
    return Event(
        id=new.id,
        type=new.type,
        tenant=append.tenant,
        stream=append.stream,
        version=version,
        position=position,
        time=now,
        data=new.data,
        metadata=metadata,
        prev_hash=previous,
        hash=head.hash,
    )


def _conflict(append: Append, found: int) -> ConcurrencyConflict:
    return ConcurrencyConflict(
        f"Stream {append.stream} has moved.",
        tenant=append.tenant,
        expected=f"version {append.expected_version}",
        found=f"version {found}",
        fix="Read the stream again and repeat the change.",
    )


def _lock_key(tenant: str, stream: str) -> int:
    digest = hashlib.blake2b(f"{tenant}/{stream}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
