"""Upgrades on trial, what was measured of them, tenants' channels and upgrade windows."""

import sqlalchemy as sa
from alembic import op

from plugin_sdk.data import UtcDateTime, create_tenant_table, json_type

revision = "catalog_0002"
down_revision = "catalog_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("catalog_activations", sa.Column("channel", sa.String(20), nullable=False, server_default="stable"))
    op.add_column("catalog_activations", sa.Column("upgrade", json_type()))
    create_tenant_table(
        op,
        "catalog_upgrades",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("plugin", sa.String(110), nullable=False),
        sa.Column("version", sa.String(80), nullable=False),
        sa.Column("mode", sa.String(10), nullable=False),
        sa.Column("tenants", sa.Float, nullable=False),
        sa.Column("calls", sa.Float, nullable=False),
        sa.Column("thresholds", json_type(), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("started_by", sa.String(64), nullable=False),
        sa.Column("ended_at", UtcDateTime),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("looked", json_type(), nullable=False),
        sa.Column("looks", sa.Integer, nullable=False),
    )
    create_tenant_table(
        op,
        "catalog_upgrade_figures",
        sa.Column("upgrade", sa.String(32), primary_key=True),
        sa.Column("instance", sa.String(32), primary_key=True),
        sa.Column("arm", sa.String(10), primary_key=True),
        sa.Column("figures", json_type(), nullable=False),
    )
    create_tenant_table(
        op,
        "catalog_windows",
        sa.Column("kind", sa.String(20), primary_key=True),
        sa.Column("days", json_type(), nullable=False),
        sa.Column("begins", sa.String(5), nullable=False),
        sa.Column("ends", sa.String(5), nullable=False),
        sa.Column("zone", sa.String(60), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("catalog_windows")
    op.drop_table("catalog_upgrade_figures")
    op.drop_table("catalog_upgrades")
    op.drop_column("catalog_activations", "upgrade")
    op.drop_column("catalog_activations", "channel")
