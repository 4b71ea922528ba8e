"""People in SQL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Column, Integer, MetaData, String, bindparam, delete, insert, select, update

from plugin_sdk import Conflict
from plugin_sdk.data import Schema, UtcDateTime, json_type, tenant_table, unique_in_tenant
from plugin_sdk.services import Transaction
from plugins.builtin.users.domain import User

metadata = MetaData()
users = tenant_table(
    metadata,
    "users",
    Column("id", String(32), primary_key=True),
    Column("email", String(254), nullable=False),
    Column("email_key", String(254), nullable=False),
    Column("name", String(200), nullable=False),
    Column("attributes", json_type(), nullable=False),
    Column("preferences", json_type(), nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    unique_in_tenant("email_key", name="uq_users_email"),
)
SCHEMA = Schema("keelstone/users", metadata, Path(__file__).parent / "migrations")

_COLUMNS = [c for c in users.c if c.name not in ("tenant_id", "email_key")]
_GET = select(*_COLUMNS).where(users.c.id == bindparam("id"))
_FIRST = select(*_COLUMNS).order_by(users.c.id).limit(bindparam("limit"))
_NEXT = select(*_COLUMNS).where(users.c.id > bindparam("after")).order_by(users.c.id).limit(bindparam("limit"))
_BY_EMAIL = select(*_COLUMNS).where(users.c.email_key == bindparam("key")).limit(bindparam("limit"))


class SqlUsers:
    """Implements ``application.UserRepository``."""

    async def add(self, transaction: Transaction, user: User) -> None:
        """Insert. Raises Conflict if the address is taken."""
        try:
            await transaction.execute(insert(users).values(**_row(user)))
        except Conflict as error:
            raise _taken(user, transaction.scope) from error

    async def save(self, transaction: Transaction, user: User, seen: int) -> bool:
        """Update if the row is still at version ``seen``."""
        statement = update(users).where(users.c.id == user.id, users.c.version == seen).values(**_row(user))
        try:
            return bool((await transaction.execute(statement)).rowcount)
        except Conflict as error:
            raise _taken(user, transaction.scope) from error

    async def remove(self, transaction: Transaction, id: str) -> bool:
        """Delete; whether there was such a person."""
        return bool((await transaction.execute(delete(users).where(users.c.id == id))).rowcount)

    async def get(self, transaction: Transaction, id: str) -> User | None:
        """One person or None."""
        row = (await transaction.execute(_GET, {"id": id})).one_or_none()
        return None if row is None else User(**row._mapping)

    async def page(self, transaction: Transaction, after: str | None, limit: int, email: str | None) -> list[User]:
        """People by id, which is the order of registration."""
        if email is not None:
            result = await transaction.execute(_BY_EMAIL, {"key": email.lower(), "limit": limit})
        elif after is not None:
            result = await transaction.execute(_NEXT, {"after": after, "limit": limit})
        else:
            result = await transaction.execute(_FIRST, {"limit": limit})
        return [User(**row._mapping) for row in result]


def _row(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "email": user.email,
        "email_key": user.email.lower(),
        "name": user.name,
        "attributes": dict(user.attributes),
        "preferences": dict(user.preferences),
        "version": user.version,
        "created_at": user.created_at,
        "updated_at": user.updated_at,
    }


def _taken(user: User, tenant: str) -> Conflict:
    return Conflict(
        "Somebody in this tenant already has that e-mail address.",
        tenant=tenant,
        expected="an address that is not registered yet",
        found=user.email,
    )
