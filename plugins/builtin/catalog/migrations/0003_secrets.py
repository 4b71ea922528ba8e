"""Secrets that admins keep for plugins."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from plugin_sdk.data import UtcDateTime, create_tenant_table

revision = "catalog_0003"
down_revision = "catalog_0002"


def upgrade() -> None:
    create_tenant_table(
        op,
        "catalog_secrets",
        sa.Column("plugin", sa.String(110), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("cipher", sa.Text, nullable=False),
        sa.Column("changed_at", UtcDateTime, nullable=False),
        sa.Column("changed_by", sa.String(64), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("catalog_secrets")
