"""Installed releases and tenants' activations."""

import sqlalchemy as sa
from alembic import op

from plugin_sdk.data import UtcDateTime, create_platform_table, create_tenant_table, json_type

revision = "catalog_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_platform_table(
        op,
        "catalog_releases",
        sa.Column("plugin", sa.String(110), primary_key=True),
        sa.Column("version", sa.String(80), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("component", sa.String(64), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("manifest", json_type(), nullable=False),
        sa.Column("settings_schema", json_type()),
        sa.Column("readme", sa.Text, nullable=False),
        sa.Column("changelog", sa.Text, nullable=False),
        sa.Column("chain", json_type(), nullable=False),
        sa.Column("installed_at", UtcDateTime),
        sa.Column("installed_by", sa.String(64), nullable=False),
        shared=True,
    )
    create_tenant_table(
        op,
        "catalog_activations",
        sa.Column("plugin", sa.String(110), primary_key=True),
        sa.Column("version", sa.String(80), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("grants", json_type(), nullable=False),
        sa.Column("denied", json_type(), nullable=False),
        sa.Column("settings", json_type(), nullable=False),
        sa.Column("previous", sa.String(80)),
        sa.Column("pinned", sa.Boolean, nullable=False),
        sa.Column("changed_at", UtcDateTime),
        sa.Column("changed_by", sa.String(64), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("catalog_activations")
    op.drop_table("catalog_releases")
