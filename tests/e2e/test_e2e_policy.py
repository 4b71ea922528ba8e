"""Policies, dry runs and approvals on a whole platform: every road in is held to them, and nothing that runs stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from marketplace.registry.domains import VerifyDomain
from tests.support.guests import CAPABILITIES, guest
from tests.support.stage import Stage, as_text, copied

pytestmark = pytest.mark.asyncio(loop_scope="module")

OURS = "/api/v1/policy"
HTTP = '[capabilities.http]\nwhy = "Sends what the tests look for."\nhosts = ["{host}"]\n'


def of(tenant: str, more: str = "") -> str:
    return f"/api/v1/tenants/{tenant}/policy{more}"


def activation(tenant: str, plugin: str, more: str = "") -> str:
    return f"/api/v1/tenants/{tenant}/activations/{plugin}{more}"


@pytest_asyncio.fixture(loop_scope="module")
async def stage(seeded, tmp_path) -> AsyncIterator[Stage]:
    """A platform of each test's own: a policy is for everybody."""
    async with Stage(copied(seeded, tmp_path / "home")) as running:
        yield running


async def put(stage: Stage, where: str, policy: dict[str, Any], **more: Any) -> dict[str, Any]:
    client = await stage.client("platform" if where == OURS else where.split("/")[4])
    found: dict[str, Any] = await client.ok("PUT", where, json={"policy": policy, **more})
    return found


def told(found: list[dict[str, Any]]) -> set[tuple[str, str, str, str]]:
    return {(n["tenant"], n["plugin"], n["version"], f["rule"]) for n in found for f in n["findings"]}


async def event_types(stage: Stage, tenant: str) -> list[str]:
    found = await stage.platform.events.read_tenant(tenant, types=["plugin.*"], limit=100)
    return [e.type for e in found]


async def test_an_install_that_the_operators_policy_forbids_tells_every_rule_and_what_to_do(stage: Stage):
    operator = await stage.client("platform")
    await stage.publish(guest(), "bad/guard", more="[limits]\nmemory_mb = 64\n")
    policy = {"publishers": {"blocked": ["bad"]}, "licenses": ["MIT"], "limits": {"memory_mb": 32}}
    assert (await put(stage, OURS, policy))["nonconforming"] == []
    asked = {"plugin": "bad/guard", "version": "=1.0.0"}
    for dry in (True, False):
        refused = await operator.problem(403, "POST", "/api/v1/plugins/install", json={**asked, "dry_run": dry})
        assert refused["code"] == "policy-blocked"
        assert [f["rule"] for f in refused["findings"]] == ["publishers", "licenses", "limits"]
        assert {f["who"] for f in refused["findings"]} == {"an operator of the platform"}
        assert "keelstone marketplace requests ask bad/guard 1.0.0" in refused["fix"]
    assert "bad/guard" not in as_text(await operator.ok("GET", "/api/v1/plugins"))
    await operator.ok("DELETE", OURS)
    await operator.ok("POST", "/api/v1/plugins/install", json=asked)
    assert [t for t in await event_types(stage, "platform") if "policy" in t] == ["plugin.policy_changed"] * 2
    assert await stage.platform.events.verify_stream("platform", "policy:plugins") is None


async def test_a_cool_down_holds_back_installs_and_takes_older_dependencies(stage: Stage):
    operator = await stage.client("platform")
    await stage.publish(guest(), "cool/base", "1.0.0")
    await stage.publish(guest(), "cool/app", "1.0.0", more='[requires.plugins]\n"cool/base" = "^1"\n')
    assert (await put(stage, OURS, {"cool_down_hours": 24}))["nonconforming"] == []
    asked = {"plugin": "cool/app", "version": "*"}
    refused = await operator.problem(403, "POST", "/api/v1/plugins/install", json=asked)
    assert {f["rule"] for f in refused["findings"]} == {"cool_down_hours"}
    assert "cool/base 1.0.0: it was published" in refused["detail"]
    # One that is here already is no newcomer, and what comes along is the newest that may.
    await operator.ok("DELETE", OURS)
    await stage.publish(guest(), "cool/base", "1.1.0", more="[limits]\nmemory_mb = 64\n")
    await put(stage, OURS, {"limits": {"memory_mb": 32}})
    found = await operator.ok("POST", "/api/v1/plugins/install", json=asked)
    assert {(p["id"], p["version"]) for p in found} == {("cool/base", "1.0.0"), ("cool/app", "1.0.0")}
    refused = await operator.problem(
        403, "POST", "/api/v1/plugins/install", json={"plugin": "cool/base", "version": "*"}
    )
    assert refused["plugin"] == "cool/base"
    assert refused["found"] == "limits: memory_mb = 64"


async def test_only_publishers_with_a_verified_domain_come_in_where_the_policy_says_so(stage: Stage):
    operator = await stage.client("platform")
    await stage.publish(guest(), "named/guard")
    await put(stage, OURS, {"verification": "domain"})
    asked = {"plugin": "named/guard", "version": "=1.0.0"}
    refused = await operator.problem(403, "POST", "/api/v1/plugins/install", json=asked)
    assert [(f["rule"], f["subject"]) for f in refused["findings"]] == [("verification", "named")]
    assert stage.platform.registry is not None
    # As after the domain was asked, which the marketplace's own tests do with a name server.
    await stage.platform.registry.commit(VerifyDomain("named", "named.example", b"{}", 0.0))
    await operator.ok("POST", "/api/v1/plugins/install", json=asked)
    await put(stage, of("acme"), {"verification": "domain"})
    acme = await stage.client("acme")
    await acme.ok("PUT", activation("acme", "named/guard"), json={"grants": {}})
    await operator.ok("DELETE", OURS)
    await stage.install(guest(), "nameless/guard")
    refused = await acme.problem(403, "PUT", activation("acme", "nameless/guard"), json={"grants": {}})
    assert [f["rule"] for f in refused["findings"]] == ["verification"]


async def test_a_tenants_policy_holds_its_activations_and_grants_and_nobody_elses(stage: Stage):
    acme, globex = await stage.client("acme"), await stage.client("globex")
    await stage.install(guest(), "own/guard", more=CAPABILITIES["kv"] + HTTP.format(host="api.evil.example"))
    await put(stage, of("acme"), {"capabilities_never": ["kv"], "hosts_never": ["*.evil.example"]})
    grants = {"kv": True, "http": True}
    refused = await acme.problem(403, "PUT", activation("acme", "own/guard"), json={"grants": grants})
    assert [(f["rule"], f["subject"]) for f in refused["findings"]] == [
        ("capabilities_never", "kv"),
        ("hosts_never", "api.evil.example"),
    ]
    assert {f["who"] for f in refused["findings"]} == {"an admin of the tenant"}
    asked = await acme.ok("GET", activation("acme", "own/guard", "/consent"))
    assert {a["name"] for a in asked if a["policy"]} == {"kv", "http"}
    assert "nothing may reach *.evil.example" in as_text(asked)
    assert not any(a["policy"] for a in await globex.ok("GET", activation("globex", "own/guard", "/consent")))
    await globex.ok("PUT", activation("globex", "own/guard"), json={"grants": grants})
    # With those denied it runs.
    made = await acme.ok("PUT", activation("acme", "own/guard"), json={"grants": {"kv": False, "http": False}})
    assert made["grants"] == []
    for name in grants:
        await acme.problem(403, "PUT", activation("acme", "own/guard", "/grants"), json={name: True})
    await put(stage, of("acme"), {"publishers": {"allowed": ["others"]}})
    await acme.ok("DELETE", activation("acme", "own/guard"))
    refused = await acme.problem(403, "PUT", activation("acme", "own/guard"), json={})
    assert [f["rule"] for f in refused["findings"]] == ["publishers"]


async def test_a_setting_may_not_lead_to_a_forbidden_host(stage: Stage):
    acme = await stage.client("acme")
    schema = '{"type": "object", "properties": {"hook": {"type": "string"}}}'
    await stage.install(guest(), "set/guard", schema=schema, more=HTTP.format(host="setting:hook"))
    await stage.activate("acme", "set/guard", settings={"hook": "https://good.example/in"})
    await put(stage, of("acme"), {"hosts_never": ["evil.example"]})
    refused = await acme.problem(
        403, "PUT", activation("acme", "set/guard", "/settings"), json={"hook": "https://evil.example/in"}
    )
    assert refused["findings"][0]["subject"] == "evil.example"
    await acme.ok("PUT", activation("acme", "set/guard", "/settings"), json={"hook": "https://other.example/in"})


async def test_setting_a_policy_stops_nothing_and_says_what_no_longer_conforms(stage: Stage):
    acme, operator = await stage.client("acme"), await stage.client("platform")
    await stage.install(guest(), "run/guard", more=CAPABILITIES["kv"])
    await stage.activate("acme", "run/guard")
    strict = {"publishers": {"blocked": ["run"]}, "capabilities_never": ["kv"]}
    dry = await acme.ok("POST", of("acme", "/dry-run"), json={"policy": strict})
    expected = {("acme", "run/guard", "1.0.0", "publishers"), ("acme", "run/guard", "1.0.0", "capabilities_never")}
    assert dry["blocks"] is True
    assert told(dry["nonconforming"]) == expected
    assert (await acme.ok("GET", of("acme")))["version"] == 0
    assert told((await put(stage, of("acme"), strict))["nonconforming"]) == expected
    (listed,) = await acme.ok("GET", "/api/v1/tenants/acme/activations")
    assert listed["state"] == "active"
    assert len(listed["policy"]) == 2
    # What runs may still be set up and switched off, and the operator sees its own policy's part alone.
    await acme.ok("PUT", activation("acme", "run/guard"), json={"settings": {"strict": True}})
    theirs = await operator.ok("POST", f"{OURS}/dry-run", json={"policy": strict})
    assert told(theirs["nonconforming"]) == {
        ("", "run/guard", "1.0.0", "publishers"),
        ("acme", "run/guard", "1.0.0", "capabilities_never"),
    }
    assert (await operator.ok("GET", OURS))["nonconforming"] == []
    assert (await operator.ok("POST", f"{OURS}/dry-run", json={"policy": {}})) == {"blocks": False, "nonconforming": []}
    shown = await acme.graphql("{ pluginPolicy { version policy nonconforming { plugin findings } } }")
    assert shown["data"]["pluginPolicy"]["version"] == 1
    assert shown["data"]["pluginPolicy"]["nonconforming"][0]["plugin"] == "run/guard"


async def test_upgrades_move_whom_the_policies_let(stage: Stage):
    acme, operator = await stage.client("acme"), await stage.client("platform")
    await stage.install(guest(), "up/guard")
    for tenant in ("acme", "globex"):
        await stage.activate(tenant, "up/guard")
    await stage.publish(guest(), "up/guard", "2.0.0", more="[limits]\nmemory_mb = 64\n")
    await put(stage, of("acme"), {"limits": {"memory_mb": 32}})
    params = {"plugin": "up/guard", "version": "2.0.0"}
    seen = await operator.ok("GET", "/api/v1/upgrade-preflight", params=params)
    assert [(f["tenant"], f["severity"]) for f in seen["findings"] if f["kind"] == "policy"] == [("acme", "waits")]
    started = await operator.ok("POST", "/api/v1/upgrades", json={**params, "tenants": 100})
    assert {m["tenant"]: bool(m["error"]) for m in started["moves"]} == {"acme": True, "globex": False}
    # What is on trial in globex is not promoted once its policy forbids it: the trial ends.
    await put(stage, of("globex"), {"limits": {"memory_mb": 32}})
    done = await operator.ok("POST", f"/api/v1/upgrades/{started['id']}/promote")
    assert {m["tenant"]: m["after"] for m in done["moves"]} == {"acme": "1.0.0", "globex": "1.0.0"}
    globex = await stage.client("globex")
    now = await globex.ok("GET", activation("globex", "up/guard"))
    assert (now["version"], now["upgrade"], now["state"]) == ("1.0.0", None, "active")
    # At once, and as an admin's own trial.
    moves = await operator.ok("POST", "/api/v1/plugins/up/guard/upgrade", json={"version": "2.0.0"})
    assert all("limits of the tenant's policy" in m["error"] for m in moves)
    assert len(moves) == 2
    refused = await acme.problem(403, "POST", "/api/v1/tenants/acme/upgrades", json=params)
    assert refused["code"] == "policy-blocked"
    # The operator's own, set after the install, holds every road.
    await put(stage, OURS, {"limits": {"memory_mb": 32}})
    await operator.problem(403, "POST", "/api/v1/plugins/up/guard/upgrade", json={"version": "2.0.0"})
    await operator.problem(403, "POST", "/api/v1/upgrades", json=params)
    seen = await operator.ok("GET", "/api/v1/upgrade-preflight", params=params)
    assert [(f["tenant"], f["severity"]) for f in seen["findings"] if f["kind"] == "policy"] == [
        ("", "breaks"),
        ("acme", "waits"),
        ("globex", "waits"),
    ]


async def test_a_rollback_is_always_the_way_back(stage: Stage):
    operator = await stage.client("platform")
    await stage.install(guest(), "back/guard", more="[limits]\nmemory_mb = 64\n")
    await stage.activate("acme", "back/guard")
    await stage.publish(guest(), "back/guard", "2.0.0")
    await operator.ok("POST", "/api/v1/plugins/back/guard/upgrade", json={"version": "2.0.0"})
    await put(stage, OURS, {"limits": {"memory_mb": 32}})
    (move,) = await operator.ok("POST", "/api/v1/plugins/back/guard/rollback")
    assert (move["after"], move["error"]) == ("1.0.0", None)


async def test_an_admin_asks_the_operator_who_lets_exactly_that_release_in(stage: Stage):
    acme, globex, operator = [await stage.client(t) for t in ("acme", "globex", "platform")]
    await stage.install(guest(), "ask/guard")
    await stage.publish(guest(), "ask/guard", "1.1.0")
    await put(stage, OURS, {"licenses": ["MIT"]})
    await acme.problem(403, "PUT", activation("acme", "ask/guard"), json={})
    wish = {"plugin": "ask/guard", "version": "1.0.0", "reason": "Our door needs it."}
    (asked,) = await acme.ok("POST", of("acme", "/requests"), json=wish)
    assert (asked["level"], asked["state"], asked["tenant"]) == ("operator", "open", "acme")
    assert len(asked["digest"]) == 64
    await acme.problem(409, "POST", of("acme", "/requests"), json=wish)
    # It is the operator's to decide, and nobody else's to see.
    await acme.problem(404, "POST", of("acme", f"/requests/{asked['id']}/approve"), json={})
    await globex.problem(404, "POST", of("globex", f"/requests/{asked['id']}/decline"), json={})
    await globex.problem(403, "POST", of("acme", f"/requests/{asked['id']}/approve"), json={})
    await acme.problem(403, "POST", f"{OURS}/requests/{asked['id']}/approve", json={})
    assert await globex.ok("GET", of("globex", "/requests")) == []
    (listed,) = await operator.ok("GET", f"{OURS}/requests")
    assert listed["reason"] == "Our door needs it."
    late = {"expires_at": (datetime.now(UTC) - timedelta(hours=1)).isoformat()}
    await operator.problem(422, "POST", f"{OURS}/requests/{asked['id']}/approve", json=late)
    done = await operator.ok("POST", f"{OURS}/requests/{asked['id']}/approve", json={"answer": "Once."})
    assert done["state"] == "approved"
    await operator.problem(409, "POST", f"{OURS}/requests/{asked['id']}/approve", json={})
    await acme.ok("PUT", activation("acme", "ask/guard"), json={})
    await globex.problem(403, "PUT", activation("globex", "ask/guard"), json={})
    await operator.problem(403, "POST", "/api/v1/plugins/install", json={"plugin": "ask/guard", "version": "=1.1.0"})
    assert [a["id"] for a in (await acme.ok("GET", of("acme")))["approvals"]] == [asked["id"]]
    assert [a["id"] for a in (await operator.ok("GET", OURS))["approvals"]] == [asked["id"]]
    types = [t for t in await event_types(stage, "acme") if "approval" in t]
    assert types == ["plugin.approval_requested", "plugin.approval_decided"]
    # Taken back: what runs goes on, and does not come in again.
    await operator.ok("POST", f"{OURS}/requests/{asked['id']}/revoke", json={})
    assert (await acme.ok("GET", activation("acme", "ask/guard")))["state"] == "active"
    await acme.ok("DELETE", activation("acme", "ask/guard"))
    await acme.problem(403, "PUT", activation("acme", "ask/guard"), json={})


async def test_a_member_asks_an_admin_and_may_not_decide(stage: Stage):
    acme = await stage.client("acme")
    member = await stage.member("acme", "member")
    await stage.install(guest(), "want/guard", more=CAPABILITIES["kv"])
    await put(stage, of("acme"), {"capabilities_never": ["kv"]})
    wish = {"plugin": "want/guard", "version": "1.0.0", "reason": "It keeps our counts."}
    (asked,) = await member.ok("POST", of("acme", "/requests"), json=wish)
    assert asked["level"] == "tenant"
    approve = of("acme", f"/requests/{asked['id']}/approve")
    await member.problem(403, "POST", approve, json={})
    await member.problem(403, "PUT", of("acme"), json={"policy": {}})
    await member.problem(403, "POST", of("acme", "/dry-run"), json={"policy": {}})
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    done = await acme.ok("POST", approve, json={"expires_at": until})
    assert datetime.fromisoformat(done["expires_at"]) == datetime.fromisoformat(until)
    await acme.ok("PUT", activation("acme", "want/guard"), json={"grants": {"kv": True}})
    free = {"plugin": "want/guard", "version": "1.0.0", "reason": "Once more."}
    assert (
        "No policy stands against" in (await member.problem(409, "POST", of("acme", "/requests"), json=free))["detail"]
    )
    await member.problem(404, "POST", of("acme", "/requests"), json={**free, "plugin": "no/such"})


async def test_both_policies_are_asked_and_a_declined_request_lifts_nothing(stage: Stage):
    acme, operator = await stage.client("acme"), await stage.client("platform")
    await stage.publish(guest(), "both/guard")
    await put(stage, OURS, {"licenses": ["MIT"]})
    await put(stage, of("acme"), {"publishers": {"allowed": []}})
    wish = {"plugin": "both/guard", "version": "1.0.0", "reason": "Wanted here."}
    asked = {a["level"]: a["id"] for a in await acme.ok("POST", of("acme", "/requests"), json=wish)}
    assert asked.keys() == {"operator", "tenant"}
    declined = await operator.ok("POST", f"{OURS}/requests/{asked['operator']}/decline", json={"answer": "No."})
    assert (declined["state"], declined["answer"]) == ("declined", "No.")
    body = {"plugin": "both/guard", "version": "=1.0.0"}
    await operator.problem(403, "POST", "/api/v1/plugins/install", json=body)
    (mine,) = await operator.ok("POST", f"{OURS}/requests", json=wish)
    await operator.ok("POST", f"{OURS}/requests/{mine['id']}/approve", json={})
    await operator.ok("POST", "/api/v1/plugins/install", json=body)
    await acme.problem(403, "PUT", activation("acme", "both/guard"), json={})
    await acme.ok("POST", of("acme", f"/requests/{asked['tenant']}/approve"), json={})
    await acme.ok("PUT", activation("acme", "both/guard"), json={})


async def test_two_who_change_a_policy_at_once_do_not_undo_each_other(stage: Stage):
    acme, globex = await stage.client("acme"), await stage.client("globex")
    assert (await put(stage, of("acme"), {"licenses": ["MIT"]}, version=0))["version"] == 1
    stale = await acme.problem(409, "PUT", of("acme"), json={"policy": {}, "version": 0})
    assert stale["code"] == "concurrency"
    assert (await put(stage, of("acme"), {}, version=1))["version"] == 2
    await acme.problem(409, "DELETE", of("acme"), params={"version": 1})
    assert (await acme.ok("DELETE", of("acme"), params={"version": 2}))["policy"] is None
    await acme.problem(404, "DELETE", of("acme"))
    await acme.problem(422, "PUT", of("acme"), json={"policy": {"limits": {"memory": 1}}})
    # A tenant's is its own: nobody else reads or sets it, and the platform's is an operator's.
    for method, path in (("GET", of("acme")), ("DELETE", of("acme")), ("GET", OURS), ("GET", f"{OURS}/requests")):
        await globex.problem(403, method, path)
    await globex.problem(403, "PUT", OURS, json={"policy": {}})
