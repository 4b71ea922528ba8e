"""The kernel's own tables: events, guests' keys, consumers' ledger, dead letters, breakers,
checkpoints, projections."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

from kernel.tables import Schema, TenantId, UtcDateTime, declare, platform_table, tenant_table

metadata = MetaData()

# Rowid on SQLite (AUTOINCREMENT, so that a deleted last position is never given again), bigserial elsewhere.
Position = BigInteger().with_variant(Integer(), "sqlite")

events = declare(
    Table(
        "keelstone_events",
        metadata,
        Column("position", Position, primary_key=True, autoincrement=True),
        Column("tenant_id", TenantId(), nullable=False),
        Column("stream", String(255), nullable=False),
        Column("version", Integer, nullable=False),
        Column("id", String(64), nullable=False),
        Column("type", String(255), nullable=False),
        Column("time", UtcDateTime, nullable=False),
        # Canonical JSON text, not JSONB: the hash is over these very bytes.
        Column("data", Text, nullable=False),
        Column("metadata", Text, nullable=False),
        Column("prev_hash", String(64), nullable=False),
        Column("hash", String(64), nullable=False),
        # The writing transaction on PostgreSQL (readers' guard against late commits); 0 on SQLite.
        Column("xid", BigInteger, nullable=False, server_default="0"),
        UniqueConstraint("tenant_id", "stream", "version", name="uq_keelstone_events_stream"),
        UniqueConstraint("id", name="uq_keelstone_events_id"),
        Index("ix_keelstone_events_xid", "xid", "position"),
        Index("ix_keelstone_events_tenant", "tenant_id", "position"),
        sqlite_autoincrement=True,
    ),
    "tenant",
)

kv = tenant_table(
    metadata,
    "keelstone_kv",
    Column("plugin", String(128), primary_key=True),
    Column("key", String(512), primary_key=True),
    Column("value", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("expires_at", UtcDateTime),
)

ledger = tenant_table(
    metadata,
    "keelstone_ledger",
    Column("consumer", String(200), primary_key=True),
    Column("event_id", String(64), primary_key=True),
    Column("handled_at", UtcDateTime, nullable=False),
)

dead_letters = tenant_table(
    metadata,
    "keelstone_dead_letters",
    Column("consumer", String(200), primary_key=True),
    Column("event_id", String(64), primary_key=True),
    Column("stream", String(255), nullable=False),
    Column("version", Integer, nullable=False),
    Column("type", String(255), nullable=False),
    Column("document", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("parked_at", UtcDateTime, nullable=False),
    Index("ix_keelstone_dead_letters_sequence", "tenant_id", "consumer", "stream", "version"),
)

breakers = tenant_table(
    metadata,
    "keelstone_breakers",
    Column("plugin", String(128), primary_key=True),
    Column("version", String(80), primary_key=True),
    Column("hook", String(80), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("openings", Integer, nullable=False),
    Column("wait", Float, nullable=False),
    Column("until", UtcDateTime, nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("error", Text, nullable=False),
)

checkpoints = platform_table(
    metadata,
    "keelstone_checkpoints",
    Column("name", String(200), primary_key=True),
    Column("xid", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

leases = platform_table(
    metadata,
    "keelstone_leases",
    Column("name", String(200), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
)

projections = platform_table(
    metadata,
    "keelstone_projections",
    Column("name", String(200), primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("rebuilt_at", UtcDateTime, nullable=False),
)

KERNEL_SCHEMA = Schema("kernel", metadata, Path(__file__).parent / "migrations")
