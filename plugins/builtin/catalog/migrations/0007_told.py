"""What tenants have been told of the plugins that they run: each matter of a version once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from plugin_sdk.data import UtcDateTime, create_tenant_table

revision = "catalog_0007"
down_revision = "catalog_0006"


def upgrade() -> None:
    create_tenant_table(
        op,
        "catalog_told",
        sa.Column("plugin", sa.String(110), primary_key=True),
        sa.Column("version", sa.String(80), primary_key=True),
        sa.Column("matter", sa.String(120), primary_key=True),
        sa.Column("at", UtcDateTime, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("catalog_told")
