"""Policies, requests for approval, and when a release was published."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from plugin_sdk.data import UtcDateTime, create_tenant_table, json_type

revision = "catalog_0004"
down_revision = "catalog_0003"


def upgrade() -> None:
    op.add_column("catalog_releases", sa.Column("published_at", UtcDateTime))
    create_tenant_table(
        op,
        "catalog_policies",
        sa.Column("kind", sa.String(20), primary_key=True),
        sa.Column("document", json_type(), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("changed_at", UtcDateTime, nullable=False),
        sa.Column("changed_by", sa.String(64), nullable=False),
    )
    create_tenant_table(
        op,
        "catalog_approvals",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("level", sa.String(10), nullable=False),
        sa.Column("plugin", sa.String(110), nullable=False),
        sa.Column("version", sa.String(80), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("rules", json_type(), nullable=False),
        sa.Column("findings", json_type(), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("asked_by", sa.String(64), nullable=False),
        sa.Column("asked_at", UtcDateTime, nullable=False),
        sa.Column("decided_by", sa.String(64), nullable=False),
        sa.Column("decided_at", UtcDateTime),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("expires_at", UtcDateTime),
    )


def downgrade() -> None:
    op.drop_table("catalog_approvals")
    op.drop_table("catalog_policies")
    op.drop_column("catalog_releases", "published_at")
