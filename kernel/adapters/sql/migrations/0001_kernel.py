"""The kernel's first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kernel.tables import TenantId, UtcDateTime, create_platform_table, create_tenant_table, protect

revision = "kernel_0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "keelstone_events",
        sa.Column(
            "position", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
        ),
        sa.Column("tenant_id", TenantId(), nullable=False),
        sa.Column("stream", sa.String(255), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("type", sa.String(255), nullable=False),
        sa.Column("time", UtcDateTime, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("prev_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("xid", sa.BigInteger, nullable=False, server_default="0"),
        sa.UniqueConstraint("tenant_id", "stream", "version", name="uq_keelstone_events_stream"),
        sa.UniqueConstraint("id", name="uq_keelstone_events_id"),
        sqlite_autoincrement=True,
    )
    protect(op, "keelstone_events", "tenant")
    op.create_index("ix_keelstone_events_xid", "keelstone_events", ["xid", "position"])
    op.create_index("ix_keelstone_events_tenant", "keelstone_events", ["tenant_id", "position"])
    create_tenant_table(
        op,
        "keelstone_kv",
        sa.Column("plugin", sa.String(128), primary_key=True),
        sa.Column("key", sa.String(512), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
    )
    create_tenant_table(
        op,
        "keelstone_ledger",
        sa.Column("consumer", sa.String(200), primary_key=True),
        sa.Column("event_id", sa.String(64), primary_key=True),
        sa.Column("handled_at", UtcDateTime, nullable=False),
    )
    create_tenant_table(
        op,
        "keelstone_dead_letters",
        sa.Column("consumer", sa.String(200), primary_key=True),
        sa.Column("event_id", sa.String(64), primary_key=True),
        sa.Column("stream", sa.String(255), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("type", sa.String(255), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("parked_at", UtcDateTime, nullable=False),
    )
    op.create_index(
        "ix_keelstone_dead_letters_sequence",
        "keelstone_dead_letters",
        ["tenant_id", "consumer", "stream", "version"],
    )
    create_platform_table(
        op,
        "keelstone_checkpoints",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("xid", sa.BigInteger, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
    )
    create_platform_table(
        op,
        "keelstone_leases",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
    )
    create_platform_table(
        op,
        "keelstone_projections",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("rebuilt_at", UtcDateTime, nullable=False),
    )


def downgrade() -> None:
    for name in (
        "keelstone_projections",
        "keelstone_leases",
        "keelstone_checkpoints",
        "keelstone_dead_letters",
        "keelstone_ledger",
        "keelstone_kv",
        "keelstone_events",
    ):
        op.drop_table(name)
