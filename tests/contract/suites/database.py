"""What every relational database must do (``kernel.ports.Database``)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import func, insert, literal, literal_column, select, text, union_all, update
from sqlalchemy.exc import DBAPIError

from kernel.adapters.sql import SqlDatabase
from kernel.context import Context, Principal, use_context
from kernel.errors import ConcurrencyConflict, Conflict, Forbidden, TenantMismatch, ValidationFailed
from kernel.events import NewEvent
from kernel.ports import ALL_TENANTS
from tests.contract.suites.fixtures import OpenDatabase, badges, people, plans


async def add_people(database: SqlDatabase, tenant: str, *ids: str) -> None:
    async with database.write(tenant) as transaction:
        await transaction.execute(insert(people), [{"id": i, "email": f"{i}@{tenant}.example"} for i in ids])


class DatabaseSuite:
    async def test_a_transaction_commits_when_it_ends_well(self, database: SqlDatabase) -> None:
        await add_people(database, "acme", "ann", "bob")
        async with database.read("acme") as transaction:
            rows = (await transaction.execute(select(people.c.id).order_by(people.c.id))).scalars().all()
        assert rows == ["ann", "bob"]

    async def test_an_error_undoes_the_rows_and_the_events(self, database: SqlDatabase) -> None:
        called: list[str] = []

        async def fail() -> None:
            async with database.write("acme") as transaction:
                await transaction.execute(insert(people), {"id": "ann", "email": "ann@acme.example"})
                transaction.emit("person/ann", NewEvent("demo.joined", {"person": "ann"}))
                transaction.after_commit(lambda: called.append("committed"))
                raise RuntimeError("stop")

        with pytest.raises(RuntimeError, match="stop"):
            await fail()
        async with database.read("acme") as transaction:
            assert (await transaction.execute(select(func.count()).select_from(people))).scalar() == 0
        assert await database.events.read_tenant("acme") == []
        assert called == []

    async def test_after_commit_runs_once_committed_and_its_error_harms_nobody(self, database: SqlDatabase) -> None:
        called: list[str] = []

        def broken() -> None:
            raise RuntimeError("broken callback")

        async with database.write("acme") as transaction:
            transaction.after_commit(broken)
            transaction.after_commit(lambda: called.append("second"))
            await transaction.execute(insert(people), {"id": "ann", "email": "ann@acme.example"})
            assert called == []
        assert called == ["second"]

    async def test_rows_and_events_commit_together_and_name_who_did_it(self, database: SqlDatabase) -> None:
        context = Context("acme", Principal("ann", "user", "acme"), correlation_id="c-1")
        async with database.write("acme", context) as transaction:
            await transaction.execute(insert(people), {"id": "ann", "email": "ann@acme.example"})
            transaction.emit("person/ann", NewEvent("demo.joined", {"person": "ann"}), NewEvent("demo.left", {}))
        events = await database.events.read_stream("acme", "person/ann")
        assert [(e.type, e.version) for e in events] == [("demo.joined", 1), ("demo.left", 2)]
        assert events[0].metadata == {"correlation_id": "c-1", "principal": "ann"}

    async def test_an_emitter_can_not_claim_to_be_somebody_else(self, database: SqlDatabase) -> None:
        context = Context("acme", Principal("ann", "user", "acme"), correlation_id="c-1")
        forged = NewEvent("demo.left", {}, metadata={"principal": "root", "trace": "t"})
        with use_context(context):
            async with database.write("acme") as transaction:
                transaction.emit("s", forged)
        event = (await database.events.read_stream("acme", "s"))[0]
        assert event.metadata["principal"] == "ann"
        assert event.metadata["trace"] == "t"

    async def test_expected_version_is_checked_at_commit_and_undoes_everything(self, database: SqlDatabase) -> None:
        await database.events.append("acme", "s", [NewEvent("demo.left", {})])

        async def too_late() -> None:
            async with database.write("acme") as transaction:
                await transaction.execute(insert(people), {"id": "ann", "email": "ann@acme.example"})
                transaction.emit("s", NewEvent("demo.left", {}), expected_version=0)

        with pytest.raises(ConcurrencyConflict) as caught:
            await too_late()
        assert caught.value.problem()["status"] == 409
        async with database.read("acme") as transaction:
            assert (await transaction.execute(select(func.count()).select_from(people))).scalar() == 0

    async def test_events_of_unknown_types_or_with_wrong_data_are_refused(self, database: SqlDatabase) -> None:
        async with database.write("acme") as transaction:
            with pytest.raises(ValidationFailed, match=r"nobody\.knows is not registered"):
                transaction.emit("s", NewEvent("nobody.knows", {}))
            with pytest.raises(ValidationFailed, match=r"demo\.joined") as caught:
                transaction.emit("s", NewEvent("demo.joined", {"person": 7}))
        assert "data/person" in str(caught.value.found)
        assert await database.events.read_tenant("acme") == []

    async def test_platform_scope_must_say_whose_events_and_rows(self, database: SqlDatabase) -> None:
        async with database.write(ALL_TENANTS) as transaction:
            with pytest.raises(TenantMismatch):
                transaction.emit("s", NewEvent("demo.left", {}))
            with pytest.raises(TenantMismatch):
                await transaction.execute(insert(people), {"id": "ann", "email": "a@b.example"})
        async with database.write(ALL_TENANTS) as transaction:
            transaction.emit("s", NewEvent("demo.left", {}), tenant="acme")
            row = {"tenant_id": "acme", "id": "ann", "email": "a@b.example"}
            await transaction.execute(insert(people), row)
        assert len(await database.events.read_stream("acme", "s")) == 1

    async def test_a_tenant_scope_can_not_emit_for_another(self, database: SqlDatabase) -> None:
        async with database.write("acme") as transaction:
            with pytest.raises(TenantMismatch):
                transaction.emit("s", NewEvent("demo.left", {}), tenant="globex")

    async def test_a_read_transaction_writes_nothing(self, database: SqlDatabase) -> None:
        async with database.read("acme") as transaction:
            with pytest.raises(ValidationFailed):
                transaction.emit("s", NewEvent("demo.left", {}))
            with pytest.raises(ValidationFailed):
                await transaction.execute(insert(people), {"id": "ann", "email": "a@b.example"})
        async with database.read(ALL_TENANTS) as transaction:
            with pytest.raises(DBAPIError, match=r"(?i)read.?only"):
                await transaction.execute(text("DELETE FROM demo_people"))
        async with database.read("acme") as transaction:
            assert (await transaction.execute(select(func.count()).select_from(people))).scalar() == 0

    async def test_a_broken_rule_of_the_data_is_a_conflict(self, database: SqlDatabase) -> None:
        await add_people(database, "acme", "ann")
        with pytest.raises(Conflict):
            await add_people(database, "acme", "ann")
        with pytest.raises(Conflict):
            async with database.write("acme") as transaction:
                await transaction.execute(insert(badges), {"person": "nobody", "number": 1})
        # The same key in another tenant is another row.
        await add_people(database, "globex", "ann")

    async def test_a_reference_can_not_point_into_another_tenant(self, database: SqlDatabase) -> None:
        await add_people(database, "globex", "ann")
        with pytest.raises(Conflict):
            async with database.write("acme") as transaction:
                await transaction.execute(insert(badges), {"person": "ann", "number": 1})

    async def test_moments_come_back_in_utc_and_json_as_it_was(self, database: SqlDatabase) -> None:
        moment = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=timezone(timedelta(hours=2)))
        profile = {"a": [1, None, "ü"], "b": {"c": True}}
        async with database.write("acme") as transaction:
            row = {"id": "ann", "email": "a@b.example", "joined": moment, "profile": profile}
            await transaction.execute(insert(people), row)
        async with database.read("acme") as transaction:
            found = (await transaction.execute(select(people))).one()
        assert found.joined == moment
        assert found.joined.tzinfo is UTC
        assert found.profile == profile

    async def test_a_moment_without_a_zone_is_refused(self, database: SqlDatabase) -> None:
        row = {"id": "a", "email": "a@b.example", "joined": datetime(2026, 1, 1)}
        with pytest.raises(ValidationFailed):
            async with database.write("acme") as transaction:
                await transaction.execute(insert(people), row)

    async def test_hot_statements_are_compiled_once_and_still_bound_to_each_tenant(self, database: SqlDatabase) -> None:
        await add_people(database, "acme", "ann")
        await add_people(database, "globex", "bob", "cid")
        counts = []
        for tenant in ("acme", "globex", "acme", "initech"):
            async with database.read(tenant) as transaction:
                counts.append((await transaction.execute(select(func.count()).select_from(people))).scalar())
        async with database.read(ALL_TENANTS) as transaction:
            counts.append((await transaction.execute(select(func.count()).select_from(people))).scalar())
        assert counts == [1, 2, 1, 0, 3]

    async def test_results_are_found_by_the_tables_own_columns(self, database: SqlDatabase) -> None:
        await add_people(database, "acme", "ann")
        other = people.alias("other")
        query = (
            select(people, other.c.email.label("mail"), literal(5).label("five"))
            .join(other, other.c.id == people.c.id)
            .where(people.c.id.in_(["ann", "bob"]))
            .order_by("mail")
            .group_by(*people.c, other.c.email)
        )
        async with database.read("acme") as transaction:
            row = (await transaction.execute(query)).mappings().one()
        assert row[people.c.id] == "ann"
        assert row["mail"] == "ann@acme.example"
        assert row["five"] == 5

    async def test_an_outer_join_keeps_the_rows_without_a_partner(self, database: SqlDatabase) -> None:
        await add_people(database, "acme", "ann", "bob")
        await add_people(database, "globex", "ann")
        async with database.write("acme") as transaction:
            await transaction.execute(insert(badges), {"person": "ann", "number": 1})
        async with database.write("globex") as transaction:
            await transaction.execute(insert(badges), {"person": "ann", "number": 2})
        query = (
            select(people.c.id, badges.c.number).outerjoin(badges, badges.c.person == people.c.id).order_by(people.c.id)
        )
        async with database.read("acme") as transaction:
            assert (await transaction.execute(query)).all() == [("ann", 1), ("bob", None)]

    async def test_compound_queries_and_ctes_work_in_a_tenants_scope(self, database: SqlDatabase) -> None:
        await add_people(database, "acme", "ann")
        await add_people(database, "globex", "bob")
        cte = select(people.c.id).cte("mine")
        query = union_all(select(people.c.id), select(cte.c.id), select(people.c.id).where(people.c.id == "bob"))
        async with database.read("acme") as transaction:
            assert (await transaction.execute(query)).scalars().all() == ["ann", "ann"]

    @pytest.mark.parametrize(
        "statement",
        [
            text("SELECT * FROM demo_people"),
            select(text("email")).select_from(people),
            select(literal_column("(SELECT max(email) FROM demo_people)")),
            select(people).where(text("1 = 1")),
            select(people).order_by(text("email")),
            select(func.set_config("keelstone.scope", "platform", True)),
            text("SELECT 1").columns(people.c.id),
        ],
        ids=["text", "column", "literal column", "where", "order", "set_config", "textual select"],
    )
    async def test_raw_text_is_refused_in_a_tenants_scope(self, database: SqlDatabase, statement: object) -> None:
        async with database.read("acme") as transaction:
            with pytest.raises(Forbidden):
                await transaction.execute(statement)

    async def test_shared_tables_are_read_by_tenants_and_written_by_the_platform(self, database: SqlDatabase) -> None:
        async with database.write(ALL_TENANTS) as transaction:
            await transaction.execute(insert(plans), {"name": "free"})
        async with database.write("acme") as transaction:
            assert (await transaction.execute(select(plans.c.name))).scalars().all() == ["free"]
            with pytest.raises(Forbidden):
                await transaction.execute(insert(plans), {"name": "gold"})
            with pytest.raises(Forbidden):
                await transaction.execute(update(plans).values(name="gold"))

    async def test_writers_wait_for_each_other_and_lose_nothing(self, open_database: OpenDatabase) -> None:
        one, two = await open_database(), await open_database()
        from tests.contract.suites.fixtures import DEMO

        await one.migrate([DEMO])

        async def add(database: SqlDatabase, name: str) -> None:
            async with database.write("acme") as transaction:
                await transaction.execute(select(func.count()).select_from(people))
                await transaction.execute(insert(people), {"id": name, "email": f"{name}@b.example"})
                transaction.emit("people", NewEvent("demo.joined", {"person": name}))

        await asyncio.gather(*(add((one, two)[i % 2], f"p{i}") for i in range(40)))
        async with two.read("acme") as transaction:
            assert (await transaction.execute(select(func.count()).select_from(people))).scalar() == 40
        events = await one.events.read_stream("acme", "people")
        assert [event.version for event in events] == list(range(1, 41))
        assert await one.events.verify_stream("acme", "people") is None

    async def test_a_cancelled_transaction_leaves_nothing_behind(self, database: SqlDatabase) -> None:
        inside = asyncio.Event()

        async def work() -> None:
            async with database.write("acme") as transaction:
                await transaction.execute(insert(people), {"id": "ann", "email": "a@b.example"})
                inside.set()
                await asyncio.sleep(3_600)

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # The writer is free again, and the row is not there.
        await add_people(database, "acme", "ann")
