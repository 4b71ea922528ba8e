"""Who stands behind each installed release, and updates that are held because somebody else does."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from plugin_sdk.data import UtcDateTime, create_tenant_table, json_type

revision = "catalog_0006"
down_revision = "catalog_0005"


def upgrade() -> None:
    op.add_column("catalog_releases", sa.Column("origin", json_type()))
    create_tenant_table(
        op,
        "catalog_holds",
        sa.Column("plugin", sa.String(110), primary_key=True),
        sa.Column("version", sa.String(80), primary_key=True),
        sa.Column("before", sa.String(80), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("doubts", json_type(), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("decided_by", sa.String(64), nullable=False),
        sa.Column("decided_at", UtcDateTime),
        sa.Column("reason", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("catalog_holds")
    op.drop_column("catalog_releases", "origin")
