"""Updates in plain words, and what nobody has consented to: on a whole platform."""

from __future__ import annotations

import asyncio

import pytest

from plugin_sdk.receipts import ReceiptsDamaged, check_receipts
from tests.support.guests import CAPABILITIES, guest
from tests.support.stage import Stage, as_text

pytestmark = pytest.mark.asyncio(loop_scope="module")


def http(*hosts: str) -> str:
    named = ", ".join(f'"{h}"' for h in hosts)
    return f'[capabilities.http]\nwhy = "Sends what the tests look for."\nhosts = [{named}]\n'


def activation(tenant: str, plugin: str, more: str = "") -> str:
    return f"/api/v1/tenants/{tenant}/activations/{plugin}{more}"


async def test_a_newer_version_is_told_in_plain_words_by_what_its_code_really_uses(stage: Stage):
    acme = await stage.client("acme")
    await stage.install(guest(), "word/guard", more=CAPABILITIES["kv"] + CAPABILITIES["log"])
    await stage.activate("acme", "word/guard")
    assert (await acme.ok("GET", activation("acme", "word/guard")))["newer"] is None
    await acme.problem(404, "GET", activation("acme", "word/guard", "/changes"))
    more = CAPABILITIES["kv"] + http("api.x.com") + "[limits]\nmemory_mb = 32\n"
    await stage.install(guest(kv=("k", "v")), "word/guard", "1.1.0", more=more)
    newer = (await acme.ok("GET", activation("acme", "word/guard")))["newer"]
    assert [c["words"] for c in newer["changes"]] == [
        "now sends requests to other hosts (its code does not use that yet)",
        "no longer writes lines to its log",
        "now sends GET requests",
        "now reaches api.x.com",
        "now sets any header of a request",
        "may now use up to 32 MB of memory (before: 16 MB)",
        "its code now really keeps small values of its own for your tenant; until now it only asked to",
    ]
    assert newer["needs_consent"] == ["http"]
    assert newer["summary"].endswith("no longer writes lines to its log")
    assert newer == await acme.ok("GET", activation("acme", "word/guard", "/changes"))
    assert newer == await acme.ok("GET", activation("acme", "word/guard", "/changes"), params={"version": "1.1.0"})
    params = {"plugin": "word/guard", "version": "1.1.0"}
    seen = await acme.ok("GET", "/api/v1/tenants/acme/upgrade-preflight", params=params)
    (changed,) = seen["changes"]
    assert (changed["before"], changed["after"]) == ("1.0.0", "1.1.0")
    assert changed["changes"] == [c["words"] for c in newer["changes"]]
    # Once moved there, what was new is denied until somebody decides, and is told still.
    operator = await stage.client("platform")
    (move,) = await operator.ok("POST", "/api/v1/plugins/word/guard/upgrade", json={"version": "1.1.0"})
    assert (move["after"], move["needs_consent"]) == ("1.1.0", ["http"])
    told = await acme.ok("GET", activation("acme", "word/guard", "/changes"))
    assert (told["before"], told["after"], told["needs_consent"]) == ("1.0.0", "1.1.0", ["http"])
    globex = await stage.client("globex")
    await globex.problem(403, "GET", activation("acme", "word/guard", "/changes"))
    await globex.problem(404, "GET", activation("globex", "word/guard", "/changes"))


async def test_an_update_that_could_do_more_with_what_was_granted_waits_for_consent(stage: Stage):
    acme, operator = await stage.client("acme"), await stage.client("platform")
    await stage.install(guest(), "more/guard", more=http("api.x.com"))
    for tenant in ("acme", "globex"):
        await stage.activate(tenant, "more/guard")
    await (await stage.client("globex")).ok("PUT", activation("globex", "more/guard", "/grants"), json={"http": False})
    await stage.install(guest(), "more/guard", "1.1.0", more=http("api.x.com", "api.y.com"))
    params = {"plugin": "more/guard", "version": "1.1.0"}
    seen = await operator.ok("GET", "/api/v1/upgrade-preflight", params=params)
    held = [(f["tenant"], f["severity"]) for f in seen["findings"] if f["kind"] == "consent"]
    assert held == [("acme", "waits")]
    # Where it is denied, code moves; where it is granted, it would reach another host.
    moves = await operator.ok("POST", "/api/v1/plugins/more/guard/upgrade", json={"version": "1.1.0"})
    found = {m["tenant"]: m for m in moves}
    assert (found["globex"]["after"], found["globex"]["error"]) == ("1.1.0", None)
    assert found["acme"]["after"] == "1.0.0"
    assert "http to api.y.com" in found["acme"]["error"]
    started = await operator.ok("POST", "/api/v1/upgrades", json={**params, "tenants": 100})
    assert [m["tenant"] for m in started["moves"] if m["error"]] == ["acme"]
    await operator.ok("POST", f"/api/v1/upgrades/{started['id']}/rollback", json={})
    asked = await acme.ok("GET", activation("acme", "more/guard", "/consent"), params={"version": "1.1.0"})
    assert [(a["name"], a["decision"]) for a in asked] == [("http", "undecided")]
    missing = await acme.problem(409, "PUT", activation("acme", "more/guard"), json={"version": "1.1.0"})
    assert missing["code"] == "consent-required"
    body = {"version": "1.1.0", "grants": {"http": True}}
    agreed = await acme.ok("PUT", activation("acme", "more/guard"), json=body)
    assert (agreed["version"], agreed["grants"]) == ("1.1.0", ["http"])
    # The way back needs nobody's consent.
    back = {m["tenant"]: m for m in await operator.ok("POST", "/api/v1/plugins/more/guard/rollback")}
    assert (back["acme"]["after"], back["acme"]["error"]) == ("1.0.0", None)


async def test_an_admins_own_trial_has_denied_what_would_be_more_until_it_is_decided(stage: Stage):
    acme = await stage.client("acme")
    await stage.install(guest(), "try/guard", more=http("api.x.com"))
    await stage.activate("acme", "try/guard")
    await stage.install(guest(), "try/guard", "1.1.0", more=http("api.x.com", "api.y.com"))
    upgrades = "/api/v1/tenants/acme/upgrades"
    started = await acme.ok("POST", upgrades, json={"plugin": "try/guard", "version": "1.1.0"})
    trial = (await acme.ok("GET", activation("acme", "try/guard")))["upgrade"]
    assert (trial["grants"], trial["denied"]) == ([], ["http"])
    await acme.ok("PUT", activation("acme", "try/guard", "/grants"), json={"http": True})
    await acme.ok("PUT", f"{upgrades}/{started['id']}/share", json={"calls": 50})
    trial = (await acme.ok("GET", activation("acme", "try/guard")))["upgrade"]
    assert (trial["grants"], trial["calls"]) == (["http"], 50)
    await acme.ok("POST", f"{upgrades}/{started['id']}/promote")
    now = await acme.ok("GET", activation("acme", "try/guard"))
    assert (now["version"], now["grants"]) == ("1.1.0", ["http"])


async def receipts(stage: Stage, tenant: str) -> list[dict]:
    """What the tenant's receipts say, oldest first, each checked with the platform's published keys."""
    client = await stage.client(tenant)
    keys = await stage.anonymous.ok("GET", "/api/v1/auth/jwks.json")
    return check_receipts(await client.ok("GET", f"/api/v1/tenants/{tenant}/consents/export"), keys)


async def test_each_decision_gives_a_signed_receipt_that_says_what_was_shown_and_names_the_one_before(stage: Stage):
    acme = await stage.client("acme")
    me = (await acme.ok("GET", "/api/v1/auth/me"))["id"]
    before = len(await receipts(stage, "acme"))
    await stage.install(guest(), "paper/guard", more=CAPABILITIES["kv"] + http("api.x.com"))
    path = activation("acme", "paper/guard")
    await acme.ok("PUT", path, json={"grants": {"kv": True, "http": False}})
    await acme.ok("PUT", f"{path}/grants", json={"http": True})
    await acme.ok("PUT", f"{path}/settings", json={"strict": True})
    await stage.install(guest(), "paper/guard", "1.1.0", more=CAPABILITIES["kv"] + http("api.x.com", "api.y.com"))
    await acme.ok("PUT", path, json={"version": "1.1.0", "grants": {"http": True}})
    said = (await receipts(stage, "acme"))[before:]
    assert [(s["version"], s["granted"], s["denied"]) for s in said] == [
        ("1.0.0", ["kv"], ["http"]),
        ("1.0.0", ["http", "kv"], []),
        ("1.1.0", ["http", "kv"], []),
    ]
    assert {s["by"] for s in said} == {me}
    assert "@" not in as_text(said)
    assert [s["changes"] for s in said] == [[], [], ["now reaches api.y.com"]]
    assert said[2]["replaces"] == "1.0.0"
    assert len(said[0]["digest"]) == 64
    shown = {s["capability"]: s["what"] for s in said[0]["shown"]}
    assert "send requests (GET) to api.x.com" in shown["http"]
    listed = await acme.ok("GET", "/api/v1/tenants/acme/consents", params={"plugin": "paper/guard"})
    assert [r["version"] for r in listed] == ["1.1.0", "1.0.0", "1.0.0"]
    older = await acme.ok("GET", "/api/v1/tenants/acme/consents", params={"before": listed[0]["number"]})
    assert older[0]["digest"] == listed[1]["digest"] == said[2]["previous"]
    events = await stage.platform.events.read_tenant("acme", types=["plugin.consented"], limit=100)
    assert [e.data["receipt"] for e in events][-3:] == [r["digest"] for r in reversed(listed)]
    found = await acme.graphql('{ consentReceipts(plugin: "paper/guard") { number digest } }')
    assert [r["digest"] for r in found["data"]["consentReceipts"]] == [r["digest"] for r in listed]


async def test_a_decision_that_is_refused_leaves_no_receipt_and_a_trials_leaves_its_own(stage: Stage):
    acme = await stage.client("acme")
    before = len(await receipts(stage, "acme"))
    await stage.install(guest(), "none/guard", more=CAPABILITIES["kv"])
    await acme.problem(409, "PUT", activation("acme", "none/guard"), json={})
    assert len(await receipts(stage, "acme")) == before
    await stage.activate("acme", "none/guard")
    await stage.install(guest(), "none/guard", "1.1.0", more=CAPABILITIES["kv"] + CAPABILITIES["log"])
    upgrades = "/api/v1/tenants/acme/upgrades"
    await acme.ok("POST", upgrades, json={"plugin": "none/guard", "version": "1.1.0"})
    await acme.ok("PUT", activation("acme", "none/guard", "/grants"), json={"log": True})
    said = (await receipts(stage, "acme"))[before:]
    assert [(s["version"], s["granted"]) for s in said] == [
        ("1.0.0", ["kv"]),
        ("1.0.0", ["kv"]),
        ("1.1.0", ["kv", "log"]),
    ]


async def test_decisions_at_the_same_time_are_one_chain(stage: Stage):
    acme = await stage.client("acme")
    before = len(await receipts(stage, "acme"))
    plugins = [f"many/guard-{n}" for n in range(4)]
    for plugin in plugins:
        await stage.install(guest(), plugin, more=CAPABILITIES["kv"])
    work = [acme.ok("PUT", activation("acme", plugin), json={"grants": {"kv": True}}) for plugin in plugins]
    await asyncio.gather(*work)
    said = (await receipts(stage, "acme"))[before:]
    assert sorted(s["plugin"] for s in said) == plugins


async def test_receipts_are_a_tenants_own(stage: Stage):
    acme, globex = await stage.client("acme"), await stage.client("globex")
    await stage.install(guest(), "mine/guard")
    before = len(await receipts(stage, "globex"))
    await stage.activate("acme", "mine/guard")
    assert len(await receipts(stage, "globex")) == before
    assert "mine/guard" not in as_text(await globex.ok("GET", "/api/v1/tenants/globex/consents"))
    for path in ("/api/v1/tenants/acme/consents", "/api/v1/tenants/acme/consents/export"):
        await globex.problem(403, "GET", path)
        await stage.anonymous.problem(401, "GET", path)
    # Its receipts do not pass for another's, and no receipt passes for a token.
    own = await acme.ok("GET", "/api/v1/tenants/acme/consents/export")
    with pytest.raises(ReceiptsDamaged):
        check_receipts({**own, "tenant": "globex"})
    stolen = await stage.client("acme", own["receipts"][0])
    await stolen.problem(401, "GET", "/api/v1/auth/me")
