"""The preflight of upgrades: what would break is told by tenant, and nothing is touched."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from api.pending import pending_migrations
from kernel.hookspecs import CONTRACT_GENERATIONS
from kernel.versions import parse_version
from tests.support.guests import CAPABILITIES, guest
from tests.support.stage import Stage, as_text, copied, settings_for

pytestmark = pytest.mark.asyncio(loop_scope="module")

PREFLIGHT = "/api/v1/upgrade-preflight"
NEWEST = max(parse_version(v) for v in CONTRACT_GENERATIONS)


def told(found: dict, severity: str) -> set[tuple[str, str]]:
    return {(f["tenant"], f["kind"]) for f in found["findings"] if f["severity"] == severity}


async def look(stage: Stage, plugin: str, version: str = "2.0.0") -> dict:
    operator = await stage.client("platform")
    return await operator.ok("GET", PREFLIGHT, params={"plugin": plugin, "version": version})


def files(stage: Stage) -> set[str]:
    return {str(p) for f in ("blobs", "artifacts") for p in (stage.home / f).rglob("*") if p.is_file()}


async def test_an_upgrade_that_breaks_nothing_says_so_and_touches_nothing(stage: Stage):
    await stage.install(guest(), "calm/guard", "1.0.0")
    await stage.activate("acme", "calm/guard")
    await stage.publish(guest({"payload": None}), "calm/guard", "2.0.0")
    before = files(stage)
    found = await look(stage, "calm/guard")
    same = [{"before": "1.0.0", "after": "2.0.0", "changes": []}]
    assert found == {"breaks": False, "tenants": 1, "findings": [], "changes": same}
    assert files(stage) == before
    assert not stage.platform.sync.callable_here("calm/guard", "2.0.0")
    operator = await stage.client("platform")
    assert [p["version"] for p in await operator.ok("GET", "/api/v1/plugins") if p["id"] == "calm/guard"] == ["1.0.0"]


async def test_settings_consent_pins_windows_and_hooks_are_told_by_tenant(stage: Stage):
    acme, globex = await stage.client("acme"), await stage.client("globex")
    await stage.install(guest(), "many/guard", "1.0.0", hook="user_creating]\n\n[hooks.user_updating")
    await stage.activate("acme", "many/guard", settings={"strict": True})
    await stage.activate("globex", "many/guard")
    await globex.ok("PUT", "/api/v1/tenants/globex/activations/many/guard/pin", json={"pinned": True})
    schema = '{"type": "object", "properties": {"level": {"type": "integer", "default": 0}}}'
    await stage.publish(guest(), "many/guard", "2.0.0", schema=schema, more=CAPABILITIES["kv"])
    found = await look(stage, "many/guard")
    assert found["breaks"] is True
    assert told(found, "breaks") == {("acme", "settings")}
    assert told(found, "asks") == {("acme", "consent"), ("globex", "consent")}
    assert told(found, "waits") == {("globex", "pin")}
    assert told(found, "notes") == {("acme", "hooks"), ("globex", "hooks")}
    (settings,) = [f for f in found["findings"] if f["kind"] == "settings"]
    assert "unknown setting strict" in settings["detail"]
    params = {"plugin": "many/guard", "version": "2.0.0"}
    own = await acme.ok("GET", "/api/v1/tenants/acme/upgrade-preflight", params=params)
    assert "globex" not in as_text(own)
    told_in_graphql = await acme.graphql(
        '{ upgradePreflight(plugin: "many/guard", version: "2.0.0") { tenant kind severity } }'
    )
    assert {"tenant": "acme", "kind": "settings", "severity": "breaks"} in told_in_graphql["data"]["upgradePreflight"]
    await globex.problem(403, "GET", "/api/v1/tenants/acme/upgrade-preflight", params=params)
    await acme.problem(403, "GET", PREFLIGHT, params=params)


async def test_who_wants_what_is_told_in_both_directions(stage: Stage):
    await stage.install(guest(), "base/guard", "1.0.0")
    await stage.install(guest(), "app/guard", "1.0.0", more='[requires.plugins]\n"base/guard" = "^1"\n')
    for plugin in ("base/guard", "app/guard"):
        await stage.activate("acme", plugin)
    await stage.publish(guest(), "base/guard", "2.0.0")
    found = await look(stage, "base/guard")
    assert told(found, "breaks") == {("acme", "requirement")}
    assert "app/guard 1.0.0, active here, wants base/guard ^1" in as_text(found)
    await stage.publish(guest(), "app/guard", "2.0.0", more='[requires.plugins]\n"base/guard" = "^9"\n')
    found = await look(stage, "app/guard")
    assert told(found, "breaks") == {("", "requirement")}
    assert "app/guard 2.0.0 wants base/guard ^9" in as_text(found)


async def test_an_order_that_contradicts_itself_and_event_types_that_break_are_told(stage: Stage):
    def declared(field: str) -> str:
        return (
            '[[events.declares]]\ntype = "pre.scored"\nsummary = "A score."\n[events.declares.data]\n'
            f'type = "object"\n[events.declares.data.properties]\n{field} = {{ type = "integer" }}\n'
        )

    await stage.install(guest(), "pre/aa", "1.0.0", more=declared("score"))
    await stage.install(guest(), "pre/bb", hook='user_creating]\nbefore = ["pre/aa"]\n\n[hooks.user_updating')
    for plugin in ("pre/aa", "pre/bb"):
        await stage.activate("acme", plugin)
    hook = 'user_creating]\nbefore = ["pre/bb"]\n\n[hooks.user_updating'
    await stage.publish(guest(), "pre/aa", "2.0.0", hook=hook, more=declared("points"))
    found = await look(stage, "pre/aa")
    assert told(found, "breaks") == {("acme", "order"), ("", "events")}
    for plugin in ("pre/aa", "pre/bb"):
        await (await stage.client("acme")).ok("DELETE", f"/api/v1/tenants/acme/activations/{plugin}")


async def test_a_kernel_of_another_major_version_breaks_what_is_built_for_this_one(stage: Stage):
    operator = await stage.client("platform")
    await stage.install(guest(), "kernel/guard", "1.0.0")
    await stage.activate("acme", "kernel/guard")
    await stage.install(guest(), "unused/guard", "1.0.0")
    minor = await operator.ok("GET", PREFLIGHT, params={"kernel": str(NEWEST.bump_minor())})
    assert minor["breaks"] is False
    major = await operator.ok("GET", PREFLIGHT, params={"kernel": "2.0.0"})
    mine = [f for f in major["findings"] if f["plugin"] == "kernel/guard"]
    assert {(f["tenant"], f["severity"]) for f in mine} == {("acme", "breaks")}
    assert any("is built for" not in f["detail"] and "needs kernel" in f["detail"] for f in mine)
    unused = [f for f in major["findings"] if f["plugin"] == "unused/guard"]
    assert {f["severity"] for f in unused} == {"notes"}
    kept = await operator.ok("GET", PREFLIGHT, params={"kernel": "2.0.0", "serves": list(CONTRACT_GENERATIONS)})
    assert kept["breaks"] is False
    for params in ({}, {"plugin": "kernel/guard"}, {"plugin": "a/b1", "version": "1.0.0", "kernel": "2.0.0"}):
        await operator.problem(422, "GET", PREFLIGHT, params=params)
    await operator.problem(422, "GET", PREFLIGHT, params={"kernel": "next"})
    await operator.problem(404, "GET", PREFLIGHT, params={"plugin": "no/such", "version": "1.0.0"})


async def test_migrations_are_told_by_the_code_whose_they_are_and_nothing_is_touched(seeded, tmp_path):
    home = copied(seeded, tmp_path / "home")
    assert await pending_migrations(settings_for(home)) == []
    assert await pending_migrations(settings_for(tmp_path / "nothing")) == []
    assert not (tmp_path / "nothing").exists()
    with closing(sqlite3.connect(home / "keelstone.db")) as database:
        for plugin, revision in (("catalog", "catalog_0001"), ("users", "users_9999")):
            database.execute(f"UPDATE alembic_version_keelstone_{plugin} SET version_num = '{revision}'")
        database.commit()
    found = {m.plugin: m for m in await pending_migrations(settings_for(home))}
    assert found.keys() == {"keelstone/catalog", "keelstone/users"}
    assert found["keelstone/catalog"].severity == "notes"
    assert "from catalog_0001 to catalog_" in found["keelstone/catalog"].detail
    assert found["keelstone/users"].severity == "breaks"
    assert "newer than this code" in found["keelstone/users"].detail
    with closing(sqlite3.connect(home / "keelstone.db")) as database:
        rows = database.execute("SELECT version_num FROM alembic_version_keelstone_catalog").fetchall()
    assert rows == [("catalog_0001",)]
