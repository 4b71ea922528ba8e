"""Tenants and their overview."""

import sqlalchemy as sa
from alembic import op

from plugin_sdk.data import UtcDateTime, create_tenant_table, json_type, protect, tenant_column

revision = "tenants_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tenants",
        tenant_column(),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("plan", sa.String(60), nullable=False),
        sa.Column("configuration", json_type(), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
    )
    protect(op, "tenants", "tenant")
    create_tenant_table(
        op,
        "tenants_overview",
        sa.Column("kind", sa.String(20), primary_key=True),
        sa.Column("users", sa.Integer, nullable=False),
        sa.Column("active_plugins", sa.Integer, nullable=False),
        sa.Column("events", sa.Integer, nullable=False),
        sa.Column("last_event_at", UtcDateTime),
    )


def downgrade() -> None:
    op.drop_table("tenants_overview")
    op.drop_table("tenants")
