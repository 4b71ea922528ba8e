"""Credentials, roles, refresh tokens, API keys and signing keys."""

import sqlalchemy as sa
from alembic import op

from plugin_sdk.data import UtcDateTime, create_platform_table, create_tenant_table, json_type, unique_in_tenant

revision = "identity_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_tenant_table(
        op,
        "identity_credentials",
        sa.Column("user_id", sa.String(32), primary_key=True),
        sa.Column("email_key", sa.String(254), nullable=False),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("locked_until", UtcDateTime),
        unique_in_tenant("email_key", name="uq_identity_credentials_email"),
    )
    create_tenant_table(
        op,
        "identity_roles",
        sa.Column("user_id", sa.String(32), primary_key=True),
        sa.Column("role", sa.String(40), primary_key=True),
    )
    create_tenant_table(
        op,
        "identity_refresh_tokens",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("family", sa.String(32), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.Column("used_at", UtcDateTime),
        sa.Column("revoked", sa.Integer, nullable=False),
    )
    op.create_index("ix_identity_refresh_tokens_family", "identity_refresh_tokens", ["family"])
    create_tenant_table(
        op,
        "identity_api_keys",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("roles", json_type(), nullable=False),
        sa.Column("created_by", sa.String(64), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("expires_at", UtcDateTime),
        sa.Column("revoked_at", UtcDateTime),
    )
    create_platform_table(
        op,
        "identity_signing_keys",
        sa.Column("kid", sa.String(32), primary_key=True),
        sa.Column("private_jwk", sa.Text, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
    )


def downgrade() -> None:
    for table in ("signing_keys", "api_keys", "refresh_tokens", "roles", "credentials"):
        op.drop_table(f"identity_{table}")
