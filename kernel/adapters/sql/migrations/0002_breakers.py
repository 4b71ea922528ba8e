"""Breakers that outlive their process."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kernel.tables import UtcDateTime, create_tenant_table

revision = "kernel_0002"
down_revision = "kernel_0001"


def upgrade() -> None:
    create_tenant_table(
        op,
        "keelstone_breakers",
        sa.Column("plugin", sa.String(128), primary_key=True),
        sa.Column("version", sa.String(80), primary_key=True),
        sa.Column("hook", sa.String(80), primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("openings", sa.Integer, nullable=False),
        sa.Column("wait", sa.Float, nullable=False),
        sa.Column("until", UtcDateTime, nullable=False),
        sa.Column("since", UtcDateTime, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("keelstone_breakers")
