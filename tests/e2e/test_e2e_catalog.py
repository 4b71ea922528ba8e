"""The plugin service over REST: install, consent, activate, set up, pin, upgrade, roll back, uninstall."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.guests import CAPABILITIES, guest
from tests.support.stage import Stage, as_text

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLUGINS, INSTALL = "/api/v1/plugins", "/api/v1/plugins/install"
KV = CAPABILITIES["kv"]
SCORED = CAPABILITIES["events"].format(type="lead.scored")


def renamed(name: str) -> bytes:
    """A guest that registers everybody under one name."""
    return guest({"payload": {"email": "same@guest.example", "name": name}})


def activation(tenant: str, plugin: str) -> str:
    return f"/api/v1/tenants/{tenant}/activations/{plugin}"


async def register(stage: Stage, tenant: str, number: int, name: str = "Ada"):
    client = await stage.client(tenant)
    return await client.post("/api/v1/users", json={"email": f"p{number}@catalog.example", "name": name})


async def types(stage: Stage, tenant: str, stream: str) -> list[str]:
    client = await stage.client(tenant)
    found = await client.ok("GET", "/api/v1/events", params={"stream": stream, "limit": 200})
    return [e["type"] for e in found["items"]]


# ---------------------------------------------------------------------------- install


async def test_an_install_shows_its_plan_then_brings_requirements_first_and_again_changes_nothing(stage: Stage):
    operator = await stage.client("platform")
    await stage.publish(guest(), "needs/base", more="")
    await stage.publish(guest(), "needs/top", extra="", more='[requires.plugins]\n"needs/base" = "^1"\n')
    before = await operator.ok("GET", PLUGINS)
    plan = await operator.ok("POST", INSTALL, json={"plugin": "needs/top", "dry_run": True})
    assert [(p["id"], p["state"]) for p in plan] == [("needs/base", "planned"), ("needs/top", "planned")]
    assert await operator.ok("GET", PLUGINS) == before, "a plan changes nothing"
    done = await operator.ok("POST", INSTALL, json={"plugin": "needs/top"})
    assert [p["id"] for p in done] == ["needs/base", "needs/top"]
    again = await operator.ok("POST", INSTALL, json={"plugin": "needs/top"})
    assert [(p["id"], p["state"]) for p in again] == [("needs/top", "installed")]
    assert await types(stage, "platform", "release:needs/top") == ["plugin.installed"]
    page = await operator.ok("GET", f"{PLUGINS}/needs/top")
    assert page["chain"]
    assert page["readme"].startswith("# Guard")
    assert page["digest"]
    problem = await operator.problem(409, "DELETE", f"{PLUGINS}/needs/base")
    assert "needs/top" in problem["detail"]
    await operator.ok("DELETE", f"{PLUGINS}/needs/top", params={"data": "purge"})
    await operator.ok("DELETE", f"{PLUGINS}/needs/base", params={"data": "purge"})


async def test_an_impossible_requirement_is_explained_and_nothing_is_installed(stage: Stage):
    operator = await stage.client("platform")
    await stage.publish(guest(), "wish/base")
    await stage.publish(guest(), "wish/top", more='[requires.plugins]\n"wish/base" = "^9"\n')
    await stage.publish(guest(), "wish/lone", more='[requires.plugins]\n"wish/ghost" = "*"\n')
    before = await operator.ok("GET", PLUGINS)
    problem = await operator.problem(409, "POST", INSTALL, json={"plugin": "wish/top"})
    assert problem["code"] == "resolution"
    assert "wish/top 1.0.0 wants wish/base ^9" in problem["detail"]
    assert "there is wish/base 1.0.0" in problem["detail"]
    problem = await operator.problem(409, "POST", INSTALL, json={"plugin": "wish/lone"})
    assert "no version of wish/ghost is known" in problem["detail"]
    problem = await operator.problem(409, "POST", INSTALL, json={"plugin": "wish/base", "version": ">=2"})
    assert "you want wish/base >=2" in problem["detail"]
    assert await operator.ok("GET", PLUGINS) == before


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"plugin": "no/such"}, 404, "not-found"),
        ({"plugin": "keelstone/users", "version": "^99"}, 409, "resolution"),
        ({"plugin": "no/such", "version": "newest"}, 404, "not-found"),
        ({"plugin": ""}, 422, "validation"),
        ({"plugin": "../../etc/passwd"}, 422, "validation"),
        ({"plugin": "NO/Such\u0000"}, 422, "validation"),
        ({"version": "1"}, 422, "validation"),
        ({"plugin": "a/b1", "force": True}, 422, "validation"),
    ],
)
async def test_what_cannot_be_installed_is_refused(stage: Stage, body, status, code):
    problem = await (await stage.client("platform")).problem(status, "POST", INSTALL, json=body)
    assert problem["code"] == code


async def test_a_range_that_cannot_be_read_is_refused(stage: Stage):
    await stage.publish(guest(), "range/guard")
    operator = await stage.client("platform")
    problem = await operator.problem(422, "POST", INSTALL, json={"plugin": "range/guard", "version": "newest"})
    assert problem["code"] == "version"
    problem = await operator.problem(422, "POST", f"{PLUGINS}/range/guard/upgrade", json={"version": "^1"})
    assert problem["code"] == "version"


async def test_only_operators_install_upgrade_and_uninstall(stage: Stage):
    for role in ("admin", "member"):
        client = await stage.member("acme", role)
        for method, path, body in (
            ("POST", INSTALL, {"plugin": "no/such"}),
            ("POST", f"{PLUGINS}/no/such/upgrade", {}),
            ("POST", f"{PLUGINS}/no/such/rollback", None),
            ("DELETE", f"{PLUGINS}/no/such", None),
        ):
            await client.problem(403, method, path, json=body)


async def test_an_install_that_fails_leaves_no_trace(stage: Stage):
    operator = await stage.client("platform")
    await stage.publish(guest(), "trace/base")
    await stage.publish(
        guest(),
        "trace/top",
        more='[requires.plugins]\n"trace/base" = "^1"\n'
        '[[events.declares]]\ntype = "user.created"\nsummary = "Not theirs."\n',
    )
    files = stored(stage)
    problem = await operator.problem(409, "POST", INSTALL, json={"plugin": "trace/top"})
    assert problem["code"] == "schema-incompatible"
    assert "belongs to keelstone/users" in problem["detail"]
    assert stored(stage) == files
    ids = [p["id"] for p in await operator.ok("GET", PLUGINS)]
    assert "trace/base" not in ids
    assert not stage.platform.sync.callable_here("trace/base", "1.0.0")


def stored(stage: Stage) -> set[str]:
    """Blobs and compiled artifacts on the disk."""
    folders = (stage.home / "blobs", stage.home / "artifacts")
    found = {str(p) for f in folders if f.exists() for p in f.rglob("*") if p.is_file()}
    return {p for p in found if not p.endswith("seal.key")}


# ---------------------------------------------------------------------------- consent and activation


async def test_nothing_is_switched_on_before_everything_asked_for_is_decided(stage: Stage):
    await stage.install(guest(kv=("k", "v"), emit=("lead.scored", {"n": 0})), "ask/guard", more=KV + SCORED)
    admin = await stage.client("acme")
    path = activation("acme", "ask/guard")
    asked = await admin.ok("GET", f"{path}/consent")
    assert {a["name"]: (a["decision"], a["new"]) for a in asked} == {
        "events": ("undecided", True),
        "kv": ("undecided", True),
    }
    assert all(a["what"] and a["why"] and a["worst"] for a in asked)
    assert "lead.scored" in as_text(asked)
    for grants in ({}, {"kv": True}):
        problem = await admin.problem(409, "PUT", path, json={"grants": grants})
        assert problem["code"] == "consent-required"
        assert [c["name"] for c in problem["capabilities"]] == ["events", "kv"]
    problem = await admin.problem(422, "PUT", path, json={"grants": {"kv": True, "events": True, "http": True}})
    assert "http" in problem["detail"]
    await admin.problem(404, "GET", path)
    assert await types(stage, "acme", "activation:ask/guard") == []
    done = await admin.ok("PUT", path, json={"grants": {"kv": True, "events": False}})
    assert (done["state"], done["grants"], done["denied"]) == ("active", ["kv"], ["events"])
    assert await types(stage, "acme", "activation:ask/guard") == ["plugin.consented", "plugin.activated"]
    member = await stage.member("acme", "member")
    await member.ok("GET", path)
    for method, sub, body in (
        ("PUT", "", {}),
        ("DELETE", "", None),
        ("PUT", "/settings", {}),
        ("PUT", "/grants", {}),
        ("PUT", "/pin", {"pinned": True}),
    ):
        await member.problem(403, method, path + sub, json=body)
    await admin.ok("DELETE", path)


async def test_a_denied_capability_is_denied_to_the_guest_and_the_refusal_is_clear(stage: Stage):
    await stage.install(guest(kv=("k", "v")), "denied/guard", more=KV)
    admin = await stage.client("acme")
    path = activation("acme", "denied/guard")
    await admin.ok("PUT", path, json={"grants": {"kv": False}})
    answer = await register(stage, "acme", 900)
    assert answer.status_code == 503
    assert answer.json()["plugin"] == "denied/guard"
    assert (await register(stage, "globex", 900)).status_code == 201
    await admin.ok("PUT", f"{path}/grants", json={"kv": True})
    assert (await register(stage, "acme", 901)).status_code == 201
    assert await stage.platform.database.kv.get("acme", "denied/guard", "k") is not None
    assert await stage.platform.database.kv.get("globex", "denied/guard", "k") is None
    await admin.ok("DELETE", path)


async def test_settings_are_checked_kept_and_seen_by_the_guest_at_once(stage: Stage):
    await stage.install(guest(), "set/guard")
    admin = await stage.client("acme")
    path = activation("acme", "set/guard")
    for wrong in ({"strict": "yes"}, {"colour": "red"}, {"strict": None}):
        problem = await admin.problem(422, "PUT", path, json={"settings": wrong})
        assert problem["plugin"] == "set/guard"
        assert problem["problems"]
    await admin.problem(404, "PUT", f"{path}/settings", json={"strict": True})
    await admin.ok("PUT", path, json={"settings": {"strict": False}})
    assert stage.platform.activations.current.of("acme").get("set/guard").settings == {"strict": False}
    await admin.problem(422, "PUT", f"{path}/settings", json={"strict": 1})
    after = await admin.ok("PUT", f"{path}/settings", json={"strict": True})
    assert after["settings"] == {"strict": True}
    assert stage.platform.activations.current.of("acme").get("set/guard").settings == {"strict": True}
    assert (await types(stage, "acme", "activation:set/guard"))[-1] == "plugin.configured"
    await admin.ok("DELETE", path)


SCHEMA_FOR_ANYTHING = '{"type": "object", "properties": {"word": {}, "words": {"type": "object"}}}'


@pytest.mark.parametrize(
    "text",
    [
        '{"word": "\\ud800"}',
        '{"word": 18446744073709551617}',
        '{"word": NaN}',
        '{"words": {"\\u0000": 1}}',
        '{"word": 1e999}',
    ],
)
async def test_settings_that_could_not_be_read_again_never_reach_the_store(stage: Stage, text):
    operator, admin = await stage.client("platform"), await stage.client("acme")
    if "any/guard" not in [p["id"] for p in await operator.ok("GET", PLUGINS)]:
        await stage.install(guest(), "any/guard", schema=SCHEMA_FOR_ANYTHING)
    path = activation("acme", "any/guard")
    await admin.ok("PUT", path, json={})
    headers = {"content-type": "application/json"}
    await admin.problem(422, "PUT", f"{path}/settings", content=text, headers=headers)
    await admin.problem(422, "PUT", path, content='{"settings": ' + text + "}", headers=headers)
    assert (await admin.ok("GET", path))["settings"] == {}
    await stage.platform.sync.load()


async def test_switching_off_keeps_settings_and_grants_for_the_next_time(stage: Stage):
    await stage.install(renamed("Off"), "off/guard", more=KV)
    admin = await stage.client("acme")
    path = activation("acme", "off/guard")
    await stage.activate("acme", "off/guard", settings={"strict": True})
    off = await admin.ok("DELETE", path)
    assert (off["state"], off["settings"], off["grants"]) == ("disabled", {"strict": True}, ["kv"])
    problem = await admin.problem(409, "DELETE", path)
    assert problem["code"] == "lifecycle"
    on = await admin.ok("PUT", path, json={})
    assert (on["state"], on["settings"], on["grants"]) == ("active", {"strict": True}, ["kv"])
    assert await admin.ok("PUT", path, json={}) | {"changed_at": None} == on | {"changed_at": None}
    await admin.ok("DELETE", path)


@pytest.mark.parametrize("plugin", ["keelstone/users", "keelstone/catalog"])
async def test_built_in_plugins_are_neither_activated_nor_uninstalled(stage: Stage, plugin):
    admin, operator = await stage.client("acme"), await stage.client("platform")
    problem = await admin.problem(403, "PUT", activation("acme", plugin), json={})
    assert "built in" in problem["detail"]
    await admin.problem(404, "DELETE", activation("acme", plugin))
    await operator.problem(404, "DELETE", f"{PLUGINS}/{plugin}")
    await operator.problem(404, "POST", f"{PLUGINS}/{plugin}/rollback")


async def test_plugins_whose_order_contradicts_itself_are_not_both_switched_on(stage: Stage):
    for one, other in (("order/aa", "order/bb"), ("order/bb", "order/aa")):
        await stage.install(guest(), one, hook=f'user_creating]\nbefore = ["{other}"]\n\n[hooks.user_updating')
    admin = await stage.client("acme")
    await admin.ok("PUT", activation("acme", "order/aa"), json={})
    problem = await admin.problem(409, "PUT", activation("acme", "order/bb"), json={})
    assert "order/aa, order/bb" in problem["detail"]
    assert (await register(stage, "acme", 910)).status_code == 201
    await admin.ok("DELETE", activation("acme", "order/aa"))
    await admin.ok("PUT", activation("acme", "order/bb"), json={})
    await admin.ok("DELETE", activation("acme", "order/bb"))


# ---------------------------------------------------------------------------- upgrade, rollback, pin


async def names(stage: Stage, numbers: range) -> dict[str, str]:
    found = {}
    for tenant in ("acme", "globex"):
        client = await stage.client(tenant)
        for number in numbers:
            user = (await client.post("/api/v1/users", json={"email": f"u{number}@up.example", "name": "Ada"})).json()
            found[tenant] = user.get("name", str(user))
            await client.delete(f"/api/v1/users/{user.get('id')}")
    return found


async def test_an_upgrade_moves_who_follows_leaves_the_pinned_and_a_rollback_goes_back(stage: Stage):
    operator = await stage.client("platform")
    await stage.install(renamed("One"), "up/guard", "1.0.0")
    for tenant in ("acme", "globex"):
        await stage.activate(tenant, "up/guard")
    globex = await stage.client("globex")
    await globex.ok("PUT", f"{activation('globex', 'up/guard')}/pin", json={"pinned": True})
    await stage.publish(renamed("Two"), "up/guard", "2.0.0", more=KV)
    moves = await operator.ok("POST", f"{PLUGINS}/up/guard/upgrade", json={})
    assert moves == [{"tenant": "acme", "before": "1.0.0", "after": "2.0.0", "error": None, "needs_consent": ["kv"]}]
    assert await names(stage, range(1)) == {"acme": "Two", "globex": "One"}
    acme = await stage.client("acme")
    now = await acme.ok("GET", activation("acme", "up/guard"))
    assert (now["version"], now["previous"], now["grants"], now["denied"]) == ("2.0.0", "1.0.0", [], ["kv"])
    assert await operator.ok("POST", f"{PLUGINS}/up/guard/upgrade", json={}) == []
    moves = await operator.ok("POST", f"{PLUGINS}/up/guard/rollback")
    assert [(m["tenant"], m["after"], m["error"]) for m in moves] == [("acme", "1.0.0", None)]
    assert await names(stage, range(1)) == {"acme": "One", "globex": "One"}
    await globex.ok("PUT", f"{activation('globex', 'up/guard')}/pin", json={"pinned": False})
    moves = await operator.ok("POST", f"{PLUGINS}/up/guard/upgrade", json={"version": "2.0.0"})
    assert sorted(m["tenant"] for m in moves) == ["acme", "globex"]
    assert (await types(stage, "acme", "activation:up/guard"))[-1] == "plugin.updated"
    for tenant in ("acme", "globex"):
        await (await stage.client(tenant)).ok("DELETE", activation(tenant, "up/guard"))


async def test_an_upgrade_and_a_rollback_under_load_fail_no_call(stage: Stage):
    operator, acme = await stage.client("platform"), await stage.client("acme")
    await stage.install(guest({}), "load/guard", "1.0.0")
    await stage.activate("acme", "load/guard")
    await stage.publish(guest({"payload": None}), "load/guard", "1.1.0")
    done = asyncio.Event()

    async def call(worker: int) -> list[int]:
        statuses: list[int] = []
        while not done.is_set() or len(statuses) < 5:
            body = {"email": f"w{worker}n{len(statuses)}@load.example", "name": "Ada"}
            statuses.append((await acme.post("/api/v1/users", json=body)).status_code)
        return statuses

    workers = [asyncio.create_task(call(n)) for n in range(4)]
    try:
        await operator.ok("POST", f"{PLUGINS}/load/guard/upgrade", json={})
        await operator.ok("POST", f"{PLUGINS}/load/guard/rollback")
    finally:
        done.set()
    results = await asyncio.gather(*workers)
    assert {status for statuses in results for status in statuses} == {201}
    await acme.ok("DELETE", activation("acme", "load/guard"))


async def test_a_tenant_whose_settings_do_not_fit_stays_and_is_reported(stage: Stage):
    operator = await stage.client("platform")
    await stage.install(guest(), "fit/guard", "1.0.0")
    await stage.activate("acme", "fit/guard", settings={"strict": True})
    await stage.activate("globex", "fit/guard")
    schema = '{"type": "object", "properties": {"level": {"type": "integer", "default": 0}}}'
    await stage.publish(guest(), "fit/guard", "2.0.0", schema=schema)
    moves = {m["tenant"]: m for m in await operator.ok("POST", f"{PLUGINS}/fit/guard/upgrade", json={})}
    assert "unknown setting strict" in moves["acme"]["error"]
    assert moves["acme"]["after"] == "1.0.0"
    assert moves["globex"]["after"] == "2.0.0"
    found = await (await stage.client("globex")).ok("GET", activation("globex", "fit/guard"))
    assert found["settings"] == {"level": 0}, "a default of 0 is a default"
    assert (await register(stage, "acme", 920)).status_code == 201
    problem = await operator.problem(409, "DELETE", f"{PLUGINS}/fit/guard", params={"version": "1.0.0"})
    assert "1 tenant" in problem["detail"]
    for tenant in ("acme", "globex"):
        await (await stage.client(tenant)).ok("DELETE", activation(tenant, "fit/guard"))


async def test_a_rollback_survives_an_event_type_that_grew(stage: Stage):
    operator = await stage.client("platform")

    def declared(*fields: str) -> str:
        lines = "".join(f'{name} = {{ type = "integer" }}\n' for name in fields)
        return (
            '[[events.declares]]\ntype = "grow.scored"\nsummary = "A score."\n'
            f'[events.declares.data]\ntype = "object"\n[events.declares.data.properties]\n{lines}'
        )

    await stage.install(renamed("Small"), "grow/guard", "1.9.0", more=declared("score"))
    await stage.activate("acme", "grow/guard")
    await stage.publish(renamed("Grown"), "grow/guard", "1.10.0", more=declared("score", "weight"))
    await operator.ok("POST", f"{PLUGINS}/grow/guard/upgrade", json={})
    assert (await names(stage, range(1)))["acme"] == "Grown"
    await operator.ok("POST", f"{PLUGINS}/grow/guard/rollback")
    assert (await names(stage, range(1)))["acme"] == "Small"
    await stage.publish(renamed("Broken"), "grow/guard", "2.0.0", more=declared("points"))
    problem = await operator.problem(409, "POST", f"{PLUGINS}/grow/guard/upgrade", json={})
    assert problem["code"] == "schema-incompatible"
    assert (await names(stage, range(1)))["acme"] == "Small"
    await (await stage.client("acme")).ok("DELETE", activation("acme", "grow/guard"))


async def test_what_was_never_upgraded_does_not_roll_back(stage: Stage):
    operator = await stage.client("platform")
    await stage.install(guest(), "back/guard")
    problem = await operator.problem(404, "POST", f"{PLUGINS}/back/guard/rollback")
    assert "No tenant runs" in problem["detail"]
    await stage.activate("acme", "back/guard")
    problem = await operator.problem(409, "POST", f"{PLUGINS}/back/guard/rollback")
    assert "no earlier version" in problem["detail"]
    await operator.problem(404, "POST", f"{PLUGINS}/no/such/upgrade", json={})
    await operator.problem(404, "POST", f"{PLUGINS}/no/such/rollback")
    await (await stage.client("acme")).ok("DELETE", activation("acme", "back/guard"))


# ---------------------------------------------------------------------------- uninstall


@pytest.mark.parametrize("fate", ["retain", "purge", "export"])
async def test_an_uninstall_does_with_data_what_it_was_told_and_leaves_no_residue(stage: Stage, fate):
    operator, acme = await stage.client("platform"), await stage.client("acme")
    plugin = f"gone/{fate}"
    files = stored(stage)
    await stage.install(guest(kv=("count", "0")), plugin, more=KV)
    await stage.activate("acme", plugin, settings={"strict": True})
    assert (await register(stage, "acme", {"retain": 930, "purge": 931, "export": 932}[fate])).status_code == 201
    problem = await operator.problem(409, "DELETE", f"{PLUGINS}/{plugin}")
    assert "still active for 1 tenant" in problem["detail"]
    await acme.ok("DELETE", activation("acme", plugin))
    removal = await operator.ok("DELETE", f"{PLUGINS}/{plugin}", params={"data": fate})
    assert removal["versions"] == ["1.0.0"]
    assert removal["residue"] == []
    assert stored(stage) == files
    assert plugin not in [p["id"] for p in await operator.ok("GET", PLUGINS)]
    await operator.problem(404, "GET", f"{PLUGINS}/{plugin}")
    await operator.problem(404, "DELETE", f"{PLUGINS}/{plugin}")
    await acme.problem(404, "PUT", activation("acme", plugin), json={})
    kept = await stage.platform.database.kv.get("acme", plugin, "count")
    if fate == "retain":
        assert removal["kept_keys"] == 1
        assert kept.value == "0"
        await operator.ok("POST", INSTALL, json={"plugin": plugin})
        back = await acme.ok("PUT", activation("acme", plugin), json={})
        assert (back["settings"], back["grants"]) == ({"strict": True}, ["kv"])
        await acme.ok("DELETE", activation("acme", plugin))
    else:
        assert kept is None
        await acme.problem(404, "GET", activation("acme", plugin))
        assert removal["exported"] == ({"acme": {"count": "0"}} if fate == "export" else None)


async def test_one_version_goes_and_the_other_stays(stage: Stage):
    operator = await stage.client("platform")
    await stage.install(guest(), "two/guard", "1.0.0")
    await stage.install(guest(), "two/guard", "2.0.0")
    await stage.activate("acme", "two/guard", version="2.0.0")
    removal = await operator.ok("DELETE", f"{PLUGINS}/two/guard", params={"version": "1.0.0"})
    assert removal["residue"] == []
    await operator.problem(409, "DELETE", f"{PLUGINS}/two/guard", params={"version": "2.0.0"})
    await operator.problem(404, "DELETE", f"{PLUGINS}/two/guard", params={"version": "3.0.0"})
    assert (await register(stage, "acme", 940)).status_code == 201, "both versions have one component"
    await (await stage.client("acme")).ok("DELETE", activation("acme", "two/guard"))


# ---------------------------------------------------------------------------- GraphQL, executions


async def test_graphql_activates_and_deactivates_with_the_same_rules(stage: Stage):
    await stage.install(renamed("Graph"), "graph/guard", more=KV)
    acme = await stage.client("acme")
    mutation = """mutation A($grants: JSON) {
      activatePlugin(plugin: "graph/guard", grants: $grants, settings: {strict: false}) { state grants denied settings }
    }"""
    told = await acme.graphql(mutation)
    assert told["errors"][0]["extensions"]["code"] == "consent-required"
    told = await acme.graphql(mutation, grants={"kv": False})
    assert told["data"]["activatePlugin"] == {
        "state": "active",
        "grants": [],
        "denied": ["kv"],
        "settings": {"strict": False},
    }
    told = await acme.graphql("{ activations { plugin state } plugins { id kind capabilities } }")
    assert {"plugin": "graph/guard", "state": "active"} in told["data"]["activations"]
    assert {"id": "graph/guard", "kind": "guest", "capabilities": ["kv"]} in told["data"]["plugins"]
    for grants in ([1], "kv", {"kv": "yes"}):
        told = await acme.graphql(mutation, grants=grants)
        assert told["errors"][0]["extensions"]["code"] == "validation", told
    told = await acme.graphql('mutation { deactivatePlugin(plugin: "graph/guard") { state } }')
    assert told["data"]["deactivatePlugin"]["state"] == "disabled"
    member = await stage.member("acme", "member")
    told = await member.graphql(mutation, grants={"kv": False})
    assert told["errors"][0]["extensions"]["code"] == "forbidden"


async def test_executions_are_summed_and_told_as_events_to_their_tenant(seeded, tmp_path):
    from tests.support.stage import copied

    home = copied(seeded, tmp_path / "home")
    async with Stage(home) as first:
        await first.install(guest({"reject": {"reason": "no"}}), "exec/guard")
        await first.activate("acme", "exec/guard")
        for number in range(3):
            await register(first, "acme", number)
    async with Stage(home) as second:
        acme, globex = await second.client("acme"), await second.client("globex")
        told = await acme.ok("GET", "/api/v1/events", params={"type": "plugin.executed"})
        assert [(e["data"]["calls"], e["data"]["failures"], e["data"]["hook"]) for e in told["items"]] == [
            (3, 0, "user_creating")
        ]
        assert (await globex.ok("GET", "/api/v1/events", params={"type": "plugin.executed"}))["items"] == []
