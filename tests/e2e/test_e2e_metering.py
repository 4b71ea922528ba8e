"""What plugins use, budgets that bound it, advice for narrower grants and recordings of failures, over REST."""

from __future__ import annotations

import json
import tomllib

import pytest

from kernel.manifest import parse_manifest
from plugin_sdk.recordings import parse_recording
from tests.support.guests import CAPABILITIES, guest, text_guest
from tests.support.stage import Stage, as_text

pytestmark = pytest.mark.asyncio(loop_scope="module")

KV, LOG = CAPABILITIES["kv"], CAPABILITIES["log"]
SCORED = CAPABILITIES["events"].format(type="lead.scored")


async def register(stage: Stage, tenant: str, number: int):
    client = await stage.client(tenant)
    return await client.post("/api/v1/users", json={"email": f"p{number}@meter.example", "name": "Ada Lovelace"})


async def usage(stage: Stage, who: str, **params):
    client = await stage.client(who)
    return (await client.ok("GET", "/api/v1/usage", params=params))["items"]


async def told(stage: Stage, tenant: str, *types: str):
    client = await stage.client(tenant)
    found = await client.ok("GET", "/api/v1/events", params={"type": list(types), "limit": 200})
    return [(e["type"], e["data"]) for e in found["items"]]


async def test_what_a_plugin_used_is_summed_by_tenant_and_seen_by_nobody_else(stage: Stage):
    component = guest(kv=("last", "x" * 40))
    await stage.install(component, "meter/keeper", more=KV)
    for tenant in ("acme", "globex"):
        await stage.activate(tenant, "meter/keeper")
    for number in range(3):
        assert (await register(stage, "acme", number)).status_code == 201
    assert (await register(stage, "globex", 1)).status_code == 201
    [mine] = await usage(stage, "acme", plugin="meter/keeper")
    assert (mine["tenant"], mine["hook"], mine["version"]) == ("acme", "user_creating", "1.0.0")
    assert (mine["calls"], mine["failures"], mine["refused"]) == (3, 0, 0)
    assert mine["host_calls"] == 3
    assert mine["wall_us"] > 0
    assert mine["memory_mib_seconds"] > 0
    [theirs] = await usage(stage, "globex", plugin="meter/keeper")
    assert theirs["calls"] == 1
    everybody = await usage(stage, "platform", plugin="meter/keeper")
    assert {(u["tenant"], u["calls"]) for u in everybody} == {("acme", 3), ("globex", 1)}
    [one] = await usage(stage, "platform", plugin="meter/keeper", tenant="globex")
    assert one["calls"] == 1
    acme = await stage.client("acme")
    problem = await acme.problem(403, "GET", "/api/v1/usage", params={"tenant": "globex"})
    assert problem["code"] == "tenant-mismatch"
    answer = await acme.graphql('{ usage(plugin: "meter/keeper", by: "day") { plugin calls period } }')
    assert answer["data"]["usage"][0]["calls"] == 3
    assert len(answer["data"]["usage"][0]["period"]) == 10


async def test_usage_comes_in_pages_and_by_periods(stage: Stage):
    operator = await stage.client("platform")
    whole = await operator.ok("GET", "/api/v1/usage", params={"by": "hour"})
    assert len(whole["items"]) >= 2
    assert all(len(u["period"]) == 13 for u in whole["items"])
    paged, after = [], None
    for _ in range(20):
        params = {"by": "hour", "limit": 1} | ({"after": after} if after else {})
        page = await operator.ok("GET", "/api/v1/usage", params=params)
        paged += page["items"]
        after = page["next"]
        if after is None:
            break
    assert [(u["tenant"], u["plugin"], u["hook"]) for u in paged] == [
        (u["tenant"], u["plugin"], u["hook"]) for u in whole["items"]
    ]
    assert (await operator.ok("GET", "/api/v1/usage", params={"until": "2020"}))["items"] == []
    for bad in ({"since": "yesterday"}, {"after": "!"}, {"after": "WzFd"}):
        problem = await operator.problem(422, "GET", "/api/v1/usage", params=bad)
        assert problem["code"] == "validation"


async def test_a_spent_budget_refuses_before_the_plugin_runs_and_says_used_and_allowed(stage: Stage):
    await stage.install(guest(), "meter/spender")
    await stage.activate("globex", "meter/spender")
    globex = await stage.client("globex")
    path = "/api/v1/tenants/globex/budgets"
    await globex.ok("PUT", path, json={"plugin": "meter/spender", "period": "day", "calls": 5})
    statuses = [(await register(stage, "globex", 100 + n)).status_code for n in range(4)]
    assert statuses == [201] * 4
    [budget] = await globex.ok("GET", path)
    assert (budget["owner"], budget["used"]["calls"]) == ("admin", 4)
    warned = await told(stage, "globex", "budget.warned")
    assert [(d["used"], d["allowed"]) for _, d in warned] == [(4, 5)]
    assert (await register(stage, "globex", 104)).status_code == 201
    refused = await register(stage, "globex", 105)
    assert refused.status_code == 503
    assert refused.json()["cause"] == "budget-spent"
    assert refused.json()["found"] == 5
    [mine] = await usage(stage, "globex", plugin="meter/spender")
    assert (mine["calls"], mine["failures"], mine["refused"]) == (5, 0, 1), "it never ran"
    await globex.ok("GET", path)
    assert [d["budget"] for _, d in await told(stage, "globex", "budget.spent")] == ["calls"]
    health = await globex.ok("GET", "/api/v1/plugins/health")
    assert all(p["plugin"] != "meter/spender" or p["state"] == "active" for p in health), "no failure of the plugin"
    await globex.ok("DELETE", path, params={"plugin": "meter/spender", "period": "day"})
    assert (await register(stage, "globex", 106)).status_code == 201
    problem = await globex.problem(404, "DELETE", path, params={"plugin": "meter/spender", "period": "day"})
    assert problem["code"] == "not-found"


async def test_an_admin_cannot_lift_the_operators_budget(stage: Stage):
    globex, operator = await stage.client("globex"), await stage.client("platform")
    path = "/api/v1/tenants/globex/budgets"
    await operator.ok("PUT", path, json={"period": "month", "calls": 0})
    assert (await register(stage, "globex", 110)).status_code == 503, "all plugins together"
    await globex.ok("PUT", path, json={"period": "month", "calls": 1_000_000})
    assert (await register(stage, "globex", 111)).status_code == 503
    await globex.ok("DELETE", path, params={"period": "month"})
    await globex.problem(404, "DELETE", path, params={"period": "month"})
    await operator.ok("DELETE", path, params={"period": "month"})
    assert (await register(stage, "globex", 112)).status_code == 201
    problem = await globex.problem(422, "PUT", path, json={"period": "day"})
    assert "bound" in problem["detail"]


async def test_advice_proposes_a_manifest_that_is_narrower_and_still_good(stage: Stage):
    component = guest(kv=("k", "v"))
    await stage.install(component, "meter/greedy", more=f"{KV}\n{LOG}\n{SCORED}")
    await stage.activate("acme", "meter/greedy")
    assert (await register(stage, "acme", 300)).status_code == 201
    acme = await stage.client("acme")
    advice = await acme.ok("GET", "/api/v1/plugins/meter/greedy/advice")
    assert advice["deny"] == ["events", "log"]
    assert advice["calls"] == 1
    assert not advice["enough"]
    fragment = tomllib.loads(advice["manifest"])
    assert set(fragment["capabilities"]) == {"kv"}
    assert fragment["limits"]["host_calls"] == 2
    whole = (
        'manifest = 1\nid = "a1/b1"\nversion = "1.0.0"\nname = "Bee"\nsummary = "A narrower one."\nlicense = "MIT"\n'
    )
    parse_manifest(whole + advice["manifest"], file="proposed")
    globex = await stage.client("globex")
    await globex.problem(404, "GET", "/api/v1/plugins/meter/greedy/advice")
    await stage.client("acme")
    await acme.ok("DELETE", "/api/v1/tenants/acme/activations/meter/greedy")


async def test_a_failed_call_is_kept_masked_and_its_file_can_be_read(stage: Stage):
    await stage.install(text_guest("trap"), "meter/crasher")
    await stage.activate("acme", "meter/crasher")
    assert (await register(stage, "acme", 400)).status_code == 503
    acme, globex = await stage.client("acme"), await stage.client("globex")
    page = await acme.ok("GET", "/api/v1/recordings", params={"plugin": "meter/crasher"})
    [kept] = page["items"]
    assert (kept["code"], kept["hook"], kept["tenant"]) == ("guest-trap", "user_creating", "acme")
    answer = await acme.get(f"/api/v1/recordings/{kept['id']}")
    recording = parse_recording(answer.text)
    assert recording.outcome.code == "guest-trap"
    assert recording.outcome.trap
    payload = json.loads(recording.payload)
    assert payload["email"] != "p400@meter.example"
    assert len(payload["email"]) == len("p400@meter.example")
    assert "Lovelace" not in as_text(answer.text)
    assert recording.tenant != "acme"
    await globex.problem(404, "GET", f"/api/v1/recordings/{kept['id']}")
    assert (await globex.ok("GET", "/api/v1/recordings"))["items"] == []
    operator = await stage.client("platform")
    assert kept["id"] in [k["id"] for k in (await operator.ok("GET", "/api/v1/recordings"))["items"]]
    member = await stage.member("acme", "member")
    await member.problem(403, "GET", "/api/v1/recordings")
    await acme.ok("DELETE", f"/api/v1/recordings/{kept['id']}")
    assert (await acme.ok("GET", "/api/v1/recordings", params={"plugin": "meter/crasher"}))["items"] == []
    await acme.ok("DELETE", "/api/v1/tenants/acme/activations/meter/crasher")


async def test_a_tenant_decides_that_nothing_is_kept(stage: Stage):
    await stage.install(text_guest("trap"), "meter/private")
    await stage.activate("globex", "meter/private")
    globex = await stage.client("globex")
    assert await globex.ok("GET", "/api/v1/recordings/policy") == {"keep": True, "mask": True}
    await globex.ok("PUT", "/api/v1/recordings/policy", json={"keep": False})
    assert (await register(stage, "globex", 500)).status_code == 503
    assert (await globex.ok("GET", "/api/v1/recordings"))["items"] == []
    assert [d for _, d in await told(stage, "globex", "recordings.decided")] == [{"keep": False, "mask": True}]
    await globex.ok("DELETE", "/api/v1/tenants/globex/activations/meter/private")
