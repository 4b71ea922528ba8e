"""How far readers have come, and who may do a piece of work (``kernel.ports.Checkpoints``, ``Leases``)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from kernel.adapters.sql.schema import checkpoints, leases
from kernel.ports import ALL_TENANTS

if TYPE_CHECKING:
    from kernel.adapters.sql.database import SqlDatabase


class SqlCheckpoints:
    """Cursors by the reader's name."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database
        self._insert: Any = postgresql.insert if database.dialect == "postgresql" else sqlite.insert

    async def load(self, name: str) -> tuple[int, int]:
        """The cursor, (0, 0) for a new reader."""
        query = select(checkpoints.c.xid, checkpoints.c.position).where(checkpoints.c.name == name)
        async with self._database.read(ALL_TENANTS) as transaction:
            row = (await transaction.execute(query)).first()
        return (int(row[0]), int(row[1])) if row is not None else (0, 0)

    async def save(self, name: str, cursor: tuple[int, int]) -> None:
        """Store the cursor."""
        row = {"name": name, "xid": cursor[0], "position": cursor[1], "updated_at": datetime.now(UTC)}
        statement = self._insert(checkpoints)
        statement = statement.on_conflict_do_update(
            index_elements=["name"],
            set_={column: statement.excluded[column] for column in ("xid", "position", "updated_at")},
        )
        async with self._database.write(ALL_TENANTS) as transaction:
            await transaction.execute(statement, row)


class SqlLeases:
    """Leases as rows: they end by themselves if their holder dies."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database
        self._insert: Any = postgresql.insert if database.dialect == "postgresql" else sqlite.insert

    async def acquire(self, name: str, holder: str, seconds: float) -> bool:
        """Take or renew the lease; False while somebody else has it."""
        now = datetime.now(UTC)
        row = {"name": name, "holder": holder, "expires_at": now + timedelta(seconds=seconds)}
        statement = self._insert(leases)
        statement = statement.on_conflict_do_update(
            index_elements=["name"],
            set_={"holder": statement.excluded.holder, "expires_at": statement.excluded.expires_at},
            where=or_(leases.c.holder == holder, leases.c.expires_at < now),
        )
        async with self._database.write(ALL_TENANTS) as transaction:
            return int((await transaction.execute(statement, row)).rowcount) == 1

    async def release(self, name: str, holder: str) -> None:
        """Give it up, so that others need not wait until it ends."""
        async with self._database.write(ALL_TENANTS) as transaction:
            await transaction.execute(delete(leases).where(leases.c.name == name, leases.c.holder == holder))
