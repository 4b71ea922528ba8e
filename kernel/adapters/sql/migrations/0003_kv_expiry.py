"""Guests' keys that end by themselves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kernel.tables import UtcDateTime

revision = "kernel_0003"
down_revision = "kernel_0002"


def upgrade() -> None:
    op.add_column("keelstone_kv", sa.Column("expires_at", UtcDateTime))


def downgrade() -> None:
    op.drop_column("keelstone_kv", "expires_at")
