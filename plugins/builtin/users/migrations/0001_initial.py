"""The people of a tenant."""

import sqlalchemy as sa
from alembic import op

from plugin_sdk.data import UtcDateTime, create_tenant_table, json_type, unique_in_tenant

revision = "users_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_tenant_table(
        op,
        "users",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("email_key", sa.String(254), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("attributes", json_type(), nullable=False),
        sa.Column("preferences", json_type(), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        unique_in_tenant("email_key", name="uq_users_email"),
    )


def downgrade() -> None:
    op.drop_table("users")
