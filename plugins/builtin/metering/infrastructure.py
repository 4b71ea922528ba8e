"""Usage, budgets and recordings in SQL. Sums are added by the database, so several processes add up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Text, case, delete, func, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from plugin_sdk.data import Schema, UtcDateTime, json_type, tenant_table
from plugin_sdk.services import Transaction
from plugins.builtin.metering.advising import Observed
from plugins.builtin.metering.domain import (
    ALL_PLUGINS,
    COUNTERS,
    LENGTH_OF,
    PEAKS,
    Budget,
    Usage,
    UsageQuery,
)
from plugins.builtin.metering.keeping import Kept
from plugins.builtin.metering.ledger import Taken

metadata = MetaData()
usage = tenant_table(
    metadata,
    "metering_usage",
    Column("bucket", String(13), primary_key=True),
    Column("plugin", String(110), primary_key=True),
    Column("version", String(80), primary_key=True),
    Column("hook", String(80), primary_key=True),
    *(Column(name, BigInteger, nullable=False) for name in COUNTERS),
)
profiles = tenant_table(
    metadata,
    "metering_profiles",
    Column("plugin", String(110), primary_key=True),
    Column("version", String(80), primary_key=True),
    Column("calls", BigInteger, nullable=False),
    *(Column(name, BigInteger, nullable=False) for name in PEAKS),
    Column("first_at", UtcDateTime, nullable=False),
    Column("last_at", UtcDateTime, nullable=False),
)
uses = tenant_table(
    metadata,
    "metering_uses",
    Column("plugin", String(110), primary_key=True),
    Column("version", String(80), primary_key=True),
    Column("use", String(300), primary_key=True),
    Column("count", BigInteger, nullable=False),
    Column("last_at", UtcDateTime, nullable=False),
)
budgets = tenant_table(
    metadata,
    "metering_budgets",
    Column("plugin", String(110), primary_key=True),
    Column("period", String(10), primary_key=True),
    Column("owner", String(10), primary_key=True),
    Column("calls", BigInteger),
    Column("wall_ms", BigInteger),
    Column("ai_tokens", BigInteger),
    Column("http_bytes", BigInteger),
    Column("told", json_type(), nullable=False),
    Column("told_seq", Integer, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("changed_by", String(64), nullable=False),
)
recordings = tenant_table(
    metadata,
    "metering_recordings",
    Column("id", String(32), primary_key=True),
    Column("plugin", String(110), nullable=False),
    Column("version", String(80), nullable=False),
    Column("hook", String(80), nullable=False),
    Column("code", String(80), nullable=False),
    Column("detail", Text, nullable=False),
    Column("correlation_id", String(64), nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("size", Integer, nullable=False),
    # Sealed with the platform's key: even masked it is somebody's data.
    Column("document", Text, nullable=False),
)
choices = tenant_table(
    metadata,
    "metering_choices",
    Column("name", String(40), primary_key=True),
    Column("value", json_type(), nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("changed_by", String(64), nullable=False),
)
SCHEMA = Schema("keelstone/metering", metadata, Path(__file__).parent / "migrations")
_ORDER = ("tenant_id", "plugin", "version", "hook")


class SqlUsage:
    """Implements ``application.UsageRepository``."""

    def __init__(self, dialect: str) -> None:
        insert: Any = postgresql.insert if dialect == "postgresql" else sqlite.insert
        self._add_usage = _adding(insert, usage, COUNTERS, ())
        self._add_profile = _adding(insert, profiles, ("calls",), PEAKS, newest="last_at")
        self._add_use = _adding(insert, uses, ("count",), (), newest="last_at")

    async def add(self, transaction: Transaction, bucket: str, taken: Taken, now: datetime) -> None:
        """Add to what is stored; several processes add up."""
        # Rows in one order, so that processes that flush at once wait for each other and don't lock up.
        rows = [
            {
                "tenant_id": key.tenant,
                "bucket": bucket,
                "plugin": key.plugin,
                "version": key.version,
                "hook": key.hook,
                **dict(zip(COUNTERS, sums, strict=False)),
            }
            for key, sums in taken.sums.items()
        ]
        if rows:
            await transaction.execute(self._add_usage, sorted(rows, key=lambda r: [r[c] for c in _ORDER]))
        ordered = sorted(taken.profiles.items())
        kept = [
            {
                "tenant_id": tenant,
                "plugin": plugin,
                "version": version,
                "calls": profile.calls,
                **dict(zip(PEAKS, profile.peaks, strict=True)),
                "first_at": now,
                "last_at": now,
            }
            for (tenant, plugin, version), profile in ordered
        ]
        if kept:
            await transaction.execute(self._add_profile, kept)
        counted = [
            {
                "tenant_id": tenant,
                "plugin": plugin,
                "version": version,
                "use": name[:300],
                "count": count,
                "last_at": now,
            }
            for (tenant, plugin, version), profile in ordered
            for name, count in sorted(profile.uses.items())
        ]
        if counted:
            await transaction.execute(self._add_use, counted)

    async def usage(
        self, transaction: Transaction, query: UsageQuery, after: Sequence[str] | None, limit: int
    ) -> list[Usage]:
        """Sums in order of period, tenant, plugin, version and hook, after a key of these five."""
        c = usage.c
        period = func.substr(c.bucket, 1, LENGTH_OF[query.by])
        keys = (period, c.tenant_id, c.plugin, c.version, c.hook)
        sums = [func.sum(c[name]).label(name) for name in COUNTERS]
        statement = select(period.label("period"), *keys[1:], *sums).where(
            c.bucket >= query.since, c.bucket < query.until
        )
        for name, value in (("tenant_id", query.tenant), ("plugin", query.plugin), ("version", query.version)):
            if value is not None:
                statement = statement.where(c[name] == value)
        if query.hook is not None:
            statement = statement.where(c.hook == query.hook)
        if after is not None:
            statement = statement.where(tuple_(*keys) > tuple_(*after))
        statement = statement.group_by(*keys).order_by(*keys).limit(limit)
        return [Usage(*row[:5], *map(int, row[5:])) for row in await transaction.execute(statement)]

    async def prune(self, transaction: Transaction, before: str, moment: datetime) -> int:
        """Delete older hours, profiles and uses; how many hours' rows."""
        gone = await transaction.execute(delete(usage).where(usage.c.bucket < before))
        await transaction.execute(delete(profiles).where(profiles.c.last_at < moment))
        await transaction.execute(delete(uses).where(uses.c.last_at < moment))
        return int(gone.rowcount)

    # ------------------------------------------------------------------ budgets

    async def budgets(self, transaction: Transaction) -> list[Budget]:
        """Every budget in the transaction's scope."""
        rows = await transaction.execute(select(budgets))
        return [
            Budget(
                tenant=r.tenant_id,
                plugin=r.plugin,
                period=r.period,
                owner=r.owner,
                calls=r.calls,
                wall_ms=r.wall_ms,
                ai_tokens=r.ai_tokens,
                http_bytes=r.http_bytes,
                told=tuple(r.told),
                told_seq=r.told_seq,
                changed_at=r.changed_at,
                changed_by=r.changed_by,
            )
            for r in rows
        ]

    async def budgets_mark(self, transaction: Transaction) -> tuple[int, datetime | None]:
        """How many budgets there are and when one was changed last."""
        row = (await transaction.execute(select(func.count(), func.max(budgets.c.changed_at)))).one()
        return int(row[0]), row[1]

    async def put_budget(self, transaction: Transaction, budget: Budget) -> None:
        """Make or replace; what was told about the old one is told again when it comes to that."""
        await self.delete_budget(transaction, budget.key)
        await transaction.execute(
            budgets.insert().values(
                tenant_id=budget.tenant,
                plugin=budget.plugin,
                period=budget.period,
                owner=budget.owner,
                calls=budget.calls,
                wall_ms=budget.wall_ms,
                ai_tokens=budget.ai_tokens,
                http_bytes=budget.http_bytes,
                told=list(budget.told),
                told_seq=budget.told_seq,
                changed_at=budget.changed_at,
                changed_by=budget.changed_by,
            )
        )

    async def mark_told(self, transaction: Transaction, budget: Budget) -> bool:
        """Store what was told, unless somebody else did meanwhile."""
        change = (
            update(budgets)
            .where(*_is(budget.key), budgets.c.told_seq == budget.told_seq - 1)
            .values(told=list(budget.told), told_seq=budget.told_seq)
        )
        return bool((await transaction.execute(change)).rowcount)

    async def delete_budget(self, transaction: Transaction, key: tuple[str, str, str, str]) -> bool:
        """Whether there was such a budget."""
        return bool((await transaction.execute(delete(budgets).where(*_is(key)))).rowcount)

    async def spending(self, transaction: Transaction, since: str) -> dict[tuple[str, str], tuple[int, int, int, int]]:
        """Calls, wall time (µs), AI tokens and HTTP bytes since a bucket, of what has a budget."""
        c = usage.c
        sums = [func.sum(x) for x in (c.calls, c.wall_us, c.ai_tokens, c.http_bytes)]
        with_budget = select(budgets.c.tenant_id).distinct()
        statement = (
            select(c.tenant_id, c.plugin, *sums)
            .where(c.bucket >= since, c.tenant_id.in_(with_budget))
            .group_by(c.tenant_id, c.plugin)
        )
        found: dict[tuple[str, str], tuple[int, int, int, int]] = {}
        for tenant, plugin, *amounts in await transaction.execute(statement):
            calls, wall, tokens, http = map(int, amounts)
            found[tenant, plugin] = (calls, wall, tokens, http)
            a, b, d, e = found.get((tenant, ALL_PLUGINS), (0, 0, 0, 0))
            found[tenant, ALL_PLUGINS] = (a + calls, b + wall, d + tokens, e + http)
        return found


class SqlProfiles:
    """Implements ``advising.ProfileRepository``."""

    async def observed(self, transaction: Transaction, plugin: str) -> list[Observed]:
        """One for each tenant and version in the transaction's scope."""
        found: dict[tuple[str, str], Observed] = {}
        for row in await transaction.execute(select(profiles).where(profiles.c.plugin == plugin)):
            found[row.tenant_id, row.version] = Observed(
                plugin=plugin,
                version=row.version,
                calls=int(row.calls),
                peaks={name: int(row._mapping[name]) for name in PEAKS},
                first_at=row.first_at,
                last_at=row.last_at,
                tenants=[row.tenant_id],
            )
        # "count" is a method of rows too.
        counted = select(uses.c.tenant_id, uses.c.version, uses.c.use, uses.c["count"].label("times"))
        for row in await transaction.execute(counted.where(uses.c.plugin == plugin)):
            one = found.get((row.tenant_id, row.version))
            if one is not None:
                one.uses[row.use] = int(row.times)
        return list(found.values())


class SqlRecordings:
    """Implements ``keeping.RecordingRepository``."""

    async def put(self, transaction: Transaction, kept: Kept, document: str) -> None:
        """Insert."""
        await transaction.execute(
            recordings.insert().values(
                tenant_id=kept.tenant,
                id=kept.id,
                plugin=kept.plugin,
                version=kept.version,
                hook=kept.hook,
                code=kept.code,
                detail=kept.detail,
                correlation_id=kept.correlation_id,
                recorded_at=kept.recorded_at,
                size=kept.size,
                document=document,
            )
        )

    async def trim(self, transaction: Transaction, tenant: str, plugin: str, most: int) -> int:
        """Delete the oldest of a plugin beyond ``most``."""
        r = recordings.c
        newest = (
            select(r.id).where(r.tenant_id == tenant, r.plugin == plugin).order_by(r.id.desc()).limit(1).offset(most)
        )
        border = (await transaction.execute(newest)).scalar()
        if border is None:
            return 0
        gone = delete(recordings).where(r.tenant_id == tenant, r.plugin == plugin, r.id <= border)
        return int((await transaction.execute(gone)).rowcount)

    async def page(self, transaction: Transaction, plugin: str | None, after: str | None, limit: int) -> list[Kept]:
        """Newest first; ``after`` is the id of the last one seen."""
        statement = select(*_KEPT).order_by(recordings.c.id.desc()).limit(limit)
        if plugin is not None:
            statement = statement.where(recordings.c.plugin == plugin)
        if after is not None:
            statement = statement.where(recordings.c.id < after)
        return [Kept(*row) for row in await transaction.execute(statement)]

    async def get(self, transaction: Transaction, id: str) -> tuple[Kept, str] | None:
        """One with its sealed content."""
        statement = select(*_KEPT, recordings.c.document).where(recordings.c.id == id)
        row = (await transaction.execute(statement)).one_or_none()
        return None if row is None else (Kept(*row[:-1]), row[-1])

    async def delete(self, transaction: Transaction, id: str) -> bool:
        """Whether there was such a recording."""
        return bool((await transaction.execute(delete(recordings).where(recordings.c.id == id))).rowcount)

    async def prune(self, transaction: Transaction, before: datetime) -> int:
        """Delete those made before a moment, in the transaction's scope."""
        gone = await transaction.execute(delete(recordings).where(recordings.c.recorded_at < before))
        return int(gone.rowcount)

    async def choice(self, transaction: Transaction, tenant: str, name: str) -> Any:
        """A tenant's choice, or None."""
        statement = select(choices.c.value).where(choices.c.tenant_id == tenant, choices.c.name == name)
        return (await transaction.execute(statement)).scalar()

    async def choose(
        self, transaction: Transaction, tenant: str, name: str, value: Any, now: datetime, by: str
    ) -> None:
        """Insert or replace."""
        mine = (choices.c.tenant_id == tenant, choices.c.name == name)
        await transaction.execute(delete(choices).where(*mine))
        await transaction.execute(
            choices.insert().values(tenant_id=tenant, name=name, value=value, changed_at=now, changed_by=by)
        )


_KEPT = (
    recordings.c.id,
    recordings.c.tenant_id,
    recordings.c.plugin,
    recordings.c.version,
    recordings.c.hook,
    recordings.c.code,
    recordings.c.detail,
    recordings.c.correlation_id,
    recordings.c.recorded_at,
    recordings.c.size,
)


def _is(key: tuple[str, str, str, str]) -> tuple[Any, ...]:
    b = budgets.c
    return (b.tenant_id == key[0], b.plugin == key[1], b.period == key[2], b.owner == key[3])


def _adding(insert: Any, table: Any, sums: Sequence[str], peaks: Sequence[str], *, newest: str | None = None) -> Any:
    """An upsert that adds ``sums``, keeps the larger of ``peaks`` and takes the new ``newest``."""
    statement = insert(table)
    new = statement.excluded
    changes: dict[str, Any] = {name: table.c[name] + new[name] for name in sums}
    changes |= {name: case((new[name] > table.c[name], new[name]), else_=table.c[name]) for name in peaks}
    if newest is not None:
        changes[newest] = new[newest]
    return statement.on_conflict_do_update(index_elements=[c.name for c in table.primary_key], set_=changes)
