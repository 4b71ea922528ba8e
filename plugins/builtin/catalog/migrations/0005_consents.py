"""Consent receipts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from plugin_sdk.data import UtcDateTime, create_tenant_table

revision = "catalog_0005"
down_revision = "catalog_0004"


def upgrade() -> None:
    create_tenant_table(
        op,
        "catalog_consents",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("plugin", sa.String(110), nullable=False),
        sa.Column("version", sa.String(80), nullable=False),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("by", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("statement", sa.Text, nullable=False),
    )
    create_tenant_table(
        op,
        "catalog_consent_heads",
        sa.Column("kind", sa.String(20), primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("catalog_consent_heads")
    op.drop_table("catalog_consents")
