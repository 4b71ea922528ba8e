"""Usage by the hour, profiles, budgets, recordings and tenants' choices about them."""

import sqlalchemy as sa
from alembic import op

from plugin_sdk.data import UtcDateTime, create_tenant_table, json_type

revision = "metering_0001"
down_revision = None
branch_labels = None
depends_on = None

COUNTERS = (
    "calls",
    "failures",
    "refused",
    "wall_us",
    "cpu_us",
    "memory_kib_ms",
    "host_calls",
    "http_bytes",
    "kv_bytes",
    "ai_tokens",
)
PEAKS = (
    "wall_us",
    "memory_bytes",
    "host_calls",
    "http_bytes",
    "kv_bytes",
    "input_bytes",
    "output_bytes",
    "events",
    "log_lines",
    "ai_tokens",
)


def upgrade() -> None:
    create_tenant_table(
        op,
        "metering_usage",
        sa.Column("bucket", sa.String(13), primary_key=True),
        sa.Column("plugin", sa.String(110), primary_key=True),
        sa.Column("version", sa.String(80), primary_key=True),
        sa.Column("hook", sa.String(80), primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in COUNTERS),
    )
    create_tenant_table(
        op,
        "metering_profiles",
        sa.Column("plugin", sa.String(110), primary_key=True),
        sa.Column("version", sa.String(80), primary_key=True),
        sa.Column("calls", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in PEAKS),
        sa.Column("first_at", UtcDateTime, nullable=False),
        sa.Column("last_at", UtcDateTime, nullable=False),
    )
    create_tenant_table(
        op,
        "metering_uses",
        sa.Column("plugin", sa.String(110), primary_key=True),
        sa.Column("version", sa.String(80), primary_key=True),
        sa.Column("use", sa.String(300), primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("last_at", UtcDateTime, nullable=False),
    )
    create_tenant_table(
        op,
        "metering_budgets",
        sa.Column("plugin", sa.String(110), primary_key=True),
        sa.Column("period", sa.String(10), primary_key=True),
        sa.Column("owner", sa.String(10), primary_key=True),
        sa.Column("calls", sa.BigInteger),
        sa.Column("wall_ms", sa.BigInteger),
        sa.Column("ai_tokens", sa.BigInteger),
        sa.Column("http_bytes", sa.BigInteger),
        sa.Column("told", json_type(), nullable=False),
        sa.Column("told_seq", sa.Integer, nullable=False),
        sa.Column("changed_at", UtcDateTime, nullable=False),
        sa.Column("changed_by", sa.String(64), nullable=False),
    )
    create_tenant_table(
        op,
        "metering_recordings",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("plugin", sa.String(110), nullable=False),
        sa.Column("version", sa.String(80), nullable=False),
        sa.Column("hook", sa.String(80), nullable=False),
        sa.Column("code", sa.String(80), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("correlation_id", sa.String(64), nullable=False),
        sa.Column("recorded_at", UtcDateTime, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    create_tenant_table(
        op,
        "metering_choices",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("value", json_type(), nullable=False),
        sa.Column("changed_at", UtcDateTime, nullable=False),
        sa.Column("changed_by", sa.String(64), nullable=False),
    )


def downgrade() -> None:
    for name in ("choices", "recordings", "budgets", "uses", "profiles", "usage"):
        op.drop_table(f"metering_{name}")
