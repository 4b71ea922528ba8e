"""Upgrades on trial: shadow and canary, automatic rollback, no failed call, pins, channels, windows."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from plugins.builtin.catalog.upgrades.infrastructure import SqlUpgrades
from tests.support.guests import CAPABILITIES, guest, text_guest
from tests.support.stage import Stage, as_text, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

UPGRADES = "/api/v1/upgrades"
KV = CAPABILITIES["kv"]


def renamed(name: str, **effects) -> bytes:
    """A guest that registers everybody under one name."""
    return guest({"payload": {"email": "same@guest.example", "name": name}}, **effects)


def activation(tenant: str, plugin: str) -> str:
    return f"/api/v1/tenants/{tenant}/activations/{plugin}"


async def name_of(stage: Stage, tenant: str) -> str:
    """Under which name somebody is registered now; nothing of it stays."""
    client = await stage.client(tenant)
    answer = await client.post("/api/v1/users", json={"email": "probe@up.example", "name": "Ada"})
    assert answer.status_code == 201, answer.text
    await client.ok("DELETE", f"/api/v1/users/{answer.json()['id']}")
    return str(answer.json()["name"])


async def types(stage: Stage, tenant: str, stream: str) -> list[str]:
    client = await stage.client(tenant)
    found = await client.ok("GET", "/api/v1/events", params={"stream": stream, "limit": 200})
    return [e["type"] for e in found["items"]]


async def begin(stage: Stage, plugin: str, **body) -> dict:
    operator = await stage.client("platform")
    return await operator.ok("POST", UPGRADES, json={"plugin": plugin, "version": "2.0.0", **body})


async def end(stage: Stage, plugin: str, *tenants: str) -> None:
    for tenant in tenants or ("acme", "globex"):
        await (await stage.client(tenant)).ok("DELETE", activation(tenant, plugin))


async def two_versions(stage: Stage, plugin: str, old: bytes, new: bytes, more: str = "", **tenants) -> None:
    await stage.install(old, plugin, "1.0.0")
    for tenant in tenants or {"acme": {}, "globex": {}}:
        await stage.activate(tenant, plugin)
    await stage.publish(new, plugin, "2.0.0", more=more)


# ---------------------------------------------------------------------------- canary


async def test_a_canary_takes_a_share_of_the_tenants_grows_and_is_promoted(stage: Stage):
    operator, plugin = await stage.client("platform"), "canary/guard"
    await two_versions(stage, plugin, renamed("One"), renamed("Two"), more=KV)
    started = await begin(stage, plugin, tenants=50)
    names = {tenant: await name_of(stage, tenant) for tenant in ("acme", "globex")}
    on_trial = {m["tenant"] for m in started["moves"]}
    assert names == {t: "Two" if t in on_trial else "One" for t in names}
    wider = await operator.ok("PUT", f"{UPGRADES}/{started['id']}/share", json={"tenants": 100})
    assert {m["tenant"] for m in wider["moves"]} | on_trial == {"acme", "globex"}
    assert not {m["tenant"] for m in wider["moves"]} & on_trial, "a larger share only adds"
    assert {await name_of(stage, t) for t in names} == {"Two"}
    acme = await stage.client("acme")
    now = await acme.ok("GET", activation("acme", plugin))
    assert (now["state"], now["version"], now["upgrade"]["version"]) == ("upgrading", "1.0.0", "2.0.0")
    assert (now["upgrade"]["grants"], now["upgrade"]["denied"]) == ([], ["kv"]), "an update never grants more"
    status = await operator.ok("GET", f"{UPGRADES}/{started['id']}")
    assert {(p["tenant"], p["standing"], tuple(p["needs_consent"])) for p in status["places"]} == {
        ("acme", "on trial", ("kv",)),
        ("globex", "on trial", ("kv",)),
    }
    await acme.ok("PUT", f"{activation('acme', plugin)}/grants", json={"kv": True})
    promoted = await operator.ok("POST", f"{UPGRADES}/{started['id']}/promote")
    assert promoted["state"] == "promoted"
    assert {m["after"] for m in promoted["moves"]} == {"2.0.0"}
    now = await acme.ok("GET", activation("acme", plugin))
    assert (now["state"], now["version"], now["previous"], now["upgrade"]) == ("active", "2.0.0", "1.0.0", None)
    assert now["grants"] == ["kv"]
    assert (await types(stage, "acme", f"activation:{plugin}"))[-2:] == ["plugin.upgrade_promoted", "plugin.updated"]
    assert (await types(stage, "platform", f"upgrade:{started['id']}"))[-1] == "plugin.upgrade_promoted"
    await operator.problem(409, "POST", f"{UPGRADES}/{started['id']}/promote")
    await end(stage, plugin)


async def test_a_canary_that_fails_goes_back_by_itself_and_says_why(stage: Stage):
    operator, acme, plugin = await stage.client("platform"), await stage.client("acme"), "failing/guard"
    await two_versions(stage, plugin, renamed("One"), text_guest("trap"))
    before = stage.platform.activations.current.generation
    started = await begin(stage, plugin, tenants=100, thresholds={"min_calls": 5})
    for number in range(5):
        await acme.problem(503, "POST", "/api/v1/users", json={"email": f"f{number}@up.example", "name": "Ada"})

    async def back() -> bool:
        found = await operator.ok("GET", f"{UPGRADES}/{started['id']}")
        return found["state"] == "rolled_back"

    await until(back)
    status = await operator.ok("GET", f"{UPGRADES}/{started['id']}")
    assert "calls of the new version" in status["reason"]
    assert "failed" in status["reason"]
    assert status["report"]["canary"]["new"]["failures"] == 5

    async def as_before() -> bool:
        # The decision is stored first, then tenants are brought back one by one.
        return stage.platform.activations.current.generation == before

    await until(as_before)
    assert await name_of(stage, "acme") == "One"
    found = await acme.ok("GET", "/api/v1/events", params={"stream": f"activation:{plugin}", "limit": 200})
    told = found["items"][-1]
    assert told["type"] == "plugin.upgrade_rolled_back"
    assert told["data"]["figures"]["new"]["failures"] == 5
    assert told["data"]["reason"] == status["reason"]
    await end(stage, plugin)


async def test_calls_that_fail_while_the_canary_is_looked_at_are_in_its_report(stage: Stage, monkeypatch):
    operator, acme, plugin = await stage.client("platform"), await stage.client("acme"), "late/guard"
    await two_versions(stage, plugin, renamed("One"), text_guest("trap"), acme={})
    stored, ready, began = SqlUpgrades.figures, asyncio.Event(), asyncio.Event()

    async def failing_meanwhile(self, transaction, upgrade):
        found = await stored(self, transaction, upgrade)
        if asyncio.current_task().get_name() == "upgrades-monitor" and ready.is_set() and not began.is_set():
            began.set()
            for number in range(5):
                await acme.problem(503, "POST", "/api/v1/users", json={"email": f"l{number}@up.example", "name": "Ada"})
        return found

    monkeypatch.setattr(SqlUpgrades, "figures", failing_meanwhile)
    started = await begin(stage, plugin, tenants=100, thresholds={"min_calls": 5})
    ready.set()

    async def back() -> bool:
        found = await operator.ok("GET", f"{UPGRADES}/{started['id']}")
        return found["state"] == "rolled_back" and (await acme.ok("GET", activation("acme", plugin)))["upgrade"] is None

    await until(back)
    status = await operator.ok("GET", f"{UPGRADES}/{started['id']}")
    assert status["report"]["canary"]["new"]["failures"] == 5
    found = await acme.ok("GET", "/api/v1/events", params={"stream": f"activation:{plugin}", "limit": 200})
    assert found["items"][-1]["data"]["figures"]["new"]["failures"] == 5
    await end(stage, plugin, "acme")


async def test_a_canary_without_cause_to_go_back_is_promoted_by_itself_if_told_to(stage: Stage):
    operator, plugin = await stage.client("platform"), "auto/guard"
    await two_versions(stage, plugin, renamed("One"), renamed("Two"), acme={})
    thresholds = {"min_calls": 3, "promote_after_minutes": 0.0001}
    started = await begin(stage, plugin, tenants=100, thresholds=thresholds)
    for _ in range(3):
        assert await name_of(stage, "acme") == "Two"

    async def promoted() -> bool:
        return (await operator.ok("GET", f"{UPGRADES}/{started['id']}"))["state"] == "promoted"

    await until(promoted)
    now = await (await stage.client("acme")).ok("GET", activation("acme", plugin))
    assert (now["state"], now["version"]) == ("active", "2.0.0")
    await end(stage, plugin, "acme")


async def test_a_canary_by_share_of_calls_stays_with_a_correlation_id(stage: Stage):
    acme, plugin = await stage.client("acme"), "split/guard"
    await two_versions(stage, plugin, renamed("One"), renamed("Two"), acme={})
    body = {"plugin": plugin, "version": "2.0.0", "calls": 50}
    await (await stage.client("platform")).ok("POST", "/api/v1/plugins/install", json={"plugin": plugin})
    started = await acme.ok("POST", "/api/v1/tenants/acme/upgrades", json=body)

    async def ask(number: int) -> str:
        headers = {"x-correlation-id": f"split-call-{number:04}"}
        user = await acme.ok("POST", "/api/v1/users", json={"email": "s@up.example", "name": "Ada"}, headers=headers)
        await acme.ok("DELETE", f"/api/v1/users/{user['id']}", headers=headers)
        return str(user["name"])

    first = [await ask(n) for n in range(12)]
    assert set(first) == {"One", "Two"}
    assert [await ask(n) for n in range(12)] == first
    ended = await acme.ok("POST", f"/api/v1/tenants/acme/upgrades/{started['id']}/rollback", json={})
    assert ended["state"] == "rolled_back"
    assert {await ask(n) for n in range(12)} == {"One"}
    await end(stage, plugin, "acme")


async def test_upgrading_promoting_and_rolling_back_under_load_fail_no_call(stage: Stage):
    operator, acme, plugin = await stage.client("platform"), await stage.client("acme"), "steady/guard"
    await two_versions(stage, plugin, guest({}), guest({"payload": None}), acme={})
    done = asyncio.Event()

    async def call(worker: int) -> list[tuple[int, str]]:
        seen = []
        while not done.is_set() or len(seen) < 5:
            id = f"steady-{worker}-{len(seen):05}"
            headers = {"x-correlation-id": id}
            body = {"email": f"w{worker}n{len(seen)}@up.example", "name": "Ada"}
            answer = await acme.post("/api/v1/users", json=body, headers=headers)
            told = (await acme.ok("GET", f"/api/v1/hooks/{id}/explain"))[0]["implementations"][0]
            seen.append((answer.status_code, told["version"]))
        return seen

    workers = [asyncio.create_task(call(n)) for n in range(4)]
    try:
        for ending in ("rollback", "promote"):
            started = await begin(stage, plugin, mode="canary", tenants=100, calls=50)
            await operator.ok("PUT", f"{UPGRADES}/{started['id']}/share", json={"calls": 100})
            body = {} if ending == "rollback" else None
            await operator.ok("POST", f"{UPGRADES}/{started['id']}/{ending}", json=body)
        await operator.ok("POST", f"/api/v1/plugins/{plugin}/rollback")
    finally:
        done.set()
    seen = [one for worker in await asyncio.gather(*workers) for one in worker]
    assert len(seen) >= 20
    assert {status for status, _ in seen} == {201}
    assert {version for _, version in seen} == {"1.0.0", "2.0.0"}
    await end(stage, plugin, "acme")


# ---------------------------------------------------------------------------- shadow


async def test_a_shadow_answers_nobody_saves_nothing_and_reports_what_differs(stage: Stage):
    operator, acme, plugin = await stage.client("platform"), await stage.client("acme"), "shadow/guard"
    old, new = renamed("One", kv=("count", "1")), renamed("Twofold", kv=("count", "2"))
    await stage.install(old, plugin, "1.0.0", more=KV)
    for tenant in ("acme", "globex"):
        await stage.activate(tenant, plugin)
    await stage.publish(new, plugin, "2.0.0", more=KV)
    started = await begin(stage, plugin, mode="shadow", tenants=100)
    for _ in range(3):
        assert await name_of(stage, "acme") == "One"
    assert (await stage.platform.database.kv.get("acme", plugin, "count")).value == "1"

    async def reported() -> bool:
        found = (await operator.ok("GET", f"{UPGRADES}/{started['id']}"))["report"]
        return found.get("shadow", {}).get("acme", {}).get("calls") == 3

    await until(reported)
    (mine,) = [u for u in await acme.ok("GET", "/api/v1/tenants/acme/upgrades") if u["id"] == started["id"]]
    found = mine["report"]["shadow"]["acme"]
    assert (found["same"], found["different"], found["skipped"]) == (0, 3, 0)
    assert set(found["fields"]) == {"answer.payload.name", "kv.count"}
    assert found["old"]["p99_ms"] > 0
    assert found["new"]["p99_ms"] > 0
    differing = {f["field"]: (f["old"], f["new"]) for f in found["examples"][0]["fields"]}
    assert differing["answer.payload.name"] == ("text of 3 characters", "text of 7 characters")
    assert "Twofold" not in as_text(mine), "values are masked"
    assert [p["tenant"] for p in mine["places"]] == ["acme"], "a tenant sees only itself"
    query = "{ upgrades { id mode state report places { tenant standing } } }"
    (seen,) = [u for u in (await acme.graphql(query))["data"]["upgrades"] if u["id"] == started["id"]]
    assert seen["report"] == mine["report"]
    assert seen["places"] == [{"tenant": "acme", "standing": "on trial"}]
    (all_of_it,) = [u for u in (await operator.graphql(query))["data"]["upgrades"] if u["id"] == started["id"]]
    assert {p["tenant"] for p in all_of_it["places"]} == {"acme", "globex"}
    globex = await (await stage.client("globex")).ok("GET", "/api/v1/tenants/globex/upgrades")
    assert "acme" not in as_text(globex[0]["report"])
    await operator.ok("POST", f"{UPGRADES}/{started['id']}/rollback", json={"reason": "it differs"})
    assert await name_of(stage, "acme") == "One"
    await end(stage, plugin)


async def test_a_shadow_that_traps_is_nobodys_failure_but_its_own(stage: Stage):
    operator, plugin = await stage.client("platform"), "dark/guard"
    await two_versions(stage, plugin, renamed("One"), text_guest("trap"), acme={})
    started = await begin(stage, plugin, mode="shadow", tenants=100)
    assert await name_of(stage, "acme") == "One"

    async def reported() -> bool:
        found = (await operator.ok("GET", f"{UPGRADES}/{started['id']}"))["report"]
        return found.get("shadow", {}).get("acme", {}).get("new", {}).get("failures") == 1

    await until(reported)
    found = (await operator.ok("GET", f"{UPGRADES}/{started['id']}"))["report"]["shadow"]["acme"]
    assert found["fields"] == {"result": 1}
    assert found["examples"][0]["fields"][0]["new"].startswith("failed: ")
    await operator.ok("POST", f"{UPGRADES}/{started['id']}/rollback", json={})
    await end(stage, plugin, "acme")


# ---------------------------------------------------------------------------- pins, channels, windows


async def test_pins_channels_and_closed_windows_keep_a_tenant_where_it_is(stage: Stage):
    operator, plugin = await stage.client("platform"), "window/guard"
    acme, globex = await stage.client("acme"), await stage.client("globex")
    await two_versions(stage, plugin, renamed("One"), renamed("Two"))
    path = activation("globex", plugin)
    await globex.ok("PUT", f"{path}/pin", json={"pinned": True})
    now = datetime.now(UTC)
    hours = f"{now + timedelta(hours=2):%H}:00-{now + timedelta(hours=3):%H}:00"
    window = "/api/v1/tenants/acme/upgrade-window"
    assert (await acme.ok("PUT", window, json={"hours": hours}))["open"] is False
    started = await begin(stage, plugin, tenants=100)
    assert started["moves"] == []
    places = {p["tenant"]: p for p in (await operator.ok("GET", f"{UPGRADES}/{started['id']}"))["places"]}
    assert (places["acme"]["standing"], places["globex"]["standing"]) == ("waits", "stays")
    assert "outside its upgrade window" in places["acme"]["why"]
    assert places["globex"]["why"] == "pinned to 1.0.0"
    promoting = await operator.ok("POST", f"{UPGRADES}/{started['id']}/promote")
    assert (promoting["state"], promoting["moves"]) == ("promoting", [])
    problem = await operator.problem(409, "POST", f"/api/v1/plugins/{plugin}/upgrade", json={})
    assert "keelstone upgrade promote" in problem["fix"]
    await acme.ok("DELETE", window)
    await trials(stage).monitor.round()
    assert await name_of(stage, "acme") == "Two"
    assert await name_of(stage, "globex") == "One"
    assert (await operator.ok("GET", f"{UPGRADES}/{started['id']}"))["state"] == "promoted"
    await globex.ok("PUT", f"{path}/pin", json={"pinned": False})
    await stage.publish(renamed("Three"), plugin, "3.0.0-rc.1")
    move = {"version": "3.0.0-rc.1"}
    assert await operator.ok("POST", f"/api/v1/plugins/{plugin}/upgrade", json=move) == []
    assert (await globex.ok("PUT", f"{path}/pin", json={"channel": "rc"}))["channel"] == "rc"
    moves = await operator.ok("POST", f"/api/v1/plugins/{plugin}/upgrade", json=move)
    assert [(m["tenant"], m["after"]) for m in moves] == [("globex", "3.0.0-rc.1")]
    await globex.problem(422, "PUT", f"{path}/pin", json={"channel": "nightly"})
    await end(stage, plugin)


def trials(stage: Stage):
    """The running parts, to do now what they do every half minute."""
    catalog = stage.platform.hooks._registry._pluggy.get_plugin("keelstone/catalog")
    return catalog._trials


async def test_a_pin_ends_the_trial_in_its_tenant_only(stage: Stage):
    operator, plugin = await stage.client("platform"), "pinned/guard"
    await two_versions(stage, plugin, renamed("One"), renamed("Two"))
    started = await begin(stage, plugin, tenants=100)
    acme = await stage.client("acme")
    now = await acme.ok("PUT", f"{activation('acme', plugin)}/pin", json={"pinned": True})
    assert (now["state"], now["upgrade"], now["pinned"]) == ("active", None, True)
    assert (await name_of(stage, "acme"), await name_of(stage, "globex")) == ("One", "Two")
    assert (await types(stage, "acme", f"activation:{plugin}"))[-2] == "plugin.upgrade_rolled_back"
    await trials(stage).monitor.round()
    assert await name_of(stage, "acme") == "One", "what is pinned is not taken in again"
    await operator.ok("POST", f"{UPGRADES}/{started['id']}/rollback", json={})
    await end(stage, plugin)


# ---------------------------------------------------------------------------- who may, what cannot be


async def test_only_operators_upgrade_for_all_and_only_admins_in_their_tenant(stage: Stage):
    admin, member = await stage.member("acme", "admin"), await stage.member("acme", "member")
    globex = await stage.client("globex")
    body = {"plugin": "no/such", "version": "2.0.0"}
    for client in (admin, member):
        for method, path in (("GET", UPGRADES), ("POST", UPGRADES), ("POST", f"{UPGRADES}/x/promote")):
            await client.problem(403, method, path, json=body if method == "POST" else None)
    own = "/api/v1/tenants/acme/upgrades"
    await member.ok("GET", own)
    await member.problem(403, "POST", own, json=body)
    await member.problem(403, "PUT", "/api/v1/tenants/acme/upgrade-window", json={"hours": "22:00-23:00"})
    await globex.problem(403, "GET", own)
    await admin.problem(404, "POST", own, json=body)
    await admin.problem(404, "POST", f"{own}/nosuch/promote")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"tenants": 0}, 422),
        ({"calls": 101}, 422),
        ({"mode": "blue"}, 422),
        ({"thresholds": {"min_calls": 0}}, 422),
        ({"version": "newest"}, 422),
        ({"version": "9.9.9"}, 409),
        ({"plugin": "keelstone/users"}, 409),
        ({}, 404),
    ],
)
async def test_what_cannot_be_put_on_trial_is_refused(stage: Stage, body, status):
    operator = await stage.client("platform")
    if "wrong/guard" not in [p["id"] for p in await operator.ok("GET", "/api/v1/plugins")]:
        await stage.install(guest(), "wrong/guard", "1.0.0")
        await stage.install(guest(), "wrong/guard", "2.0.0")
    await operator.problem(status, "POST", UPGRADES, json={"plugin": "wrong/guard", "version": "2.0.0", **body})


async def test_one_upgrade_of_a_plugin_at_a_time_and_what_is_on_trial_is_not_uninstalled(stage: Stage):
    operator, plugin = await stage.client("platform"), "single/guard"
    await two_versions(stage, plugin, renamed("One"), renamed("Two"), acme={})
    started = await begin(stage, plugin, tenants=100)
    problem = await operator.problem(409, "POST", UPGRADES, json={"plugin": plugin, "version": "2.0.0"})
    assert problem["found"] == started["id"]
    await operator.problem(409, "DELETE", f"/api/v1/plugins/{plugin}", params={"version": "2.0.0"})
    acme = await stage.client("acme")
    off = await acme.ok("DELETE", activation("acme", plugin))
    assert (off["state"], off["upgrade"]) == ("disabled", None)
    await operator.ok("POST", f"{UPGRADES}/{started['id']}/rollback", json={})
