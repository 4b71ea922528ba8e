"""Every operation there is, asked by globex's admin with acme's names and ids: nothing of acme's is seen or changed.

The operations come from the OpenAPI document, so a new route is tested the day it is added; one whose
body nobody has described here fails the test.
"""

from __future__ import annotations

from typing import Any

import pytest

from kernel.ports import Effects
from tests.support.guests import guest, text_guest
from tests.support.stage import Client, Stage, as_text

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLUGIN = "acme/isolated"
MARK = "only-acme-knows"
# What to send where a body is needed; {..} are filled with acme's.
ASK = {"plugin": PLUGIN, "version": "1.0.0", "reason": "Wanted."}
HELD = {"plugin": PLUGIN, "version": "1.0.0", "reason": "taken over"}
BODIES: dict[tuple[str, str], Any] = {
    ("post", "/api/v1/users"): {"email": "new@globex.example", "name": "New"},
    ("patch", "/api/v1/users/{user}"): {"name": "Taken over"},
    ("put", "/api/v1/users/{user}/preferences"): {"colour": "taken over"},
    ("post", "/api/v1/tenants"): {"id": "stolen", "name": "Stolen"},
    ("patch", "/api/v1/tenants/{tenant}"): {"name": "Taken over"},
    ("post", "/api/v1/plugins/install"): {"plugin": PLUGIN},
    ("post", "/api/v1/bundles/install"): {"plugin": PLUGIN},
    ("post", "/api/v1/plugins/{publisher}/{name}/upgrade"): {},
    ("put", "/api/v1/tenants/{tenant}/activations/{publisher}/{name}"): {"grants": {}},
    ("put", "/api/v1/tenants/{tenant}/activations/{publisher}/{name}/settings"): {},
    ("put", "/api/v1/tenants/{tenant}/activations/{publisher}/{name}/grants"): {},
    ("put", "/api/v1/tenants/{tenant}/activations/{publisher}/{name}/pin"): {"pinned": True},
    ("post", "/api/v1/plugins/{publisher}/{name}/quarantine"): {"version": "1.0.0"},
    ("post", "/api/v1/plugins/{publisher}/{name}/release"): {"version": "1.0.0"},
    ("put", "/api/v1/tenants/{tenant}/budgets"): {"calls": 0},
    ("put", "/api/v1/recordings/policy"): {"keep": True},
    ("put", "/api/v1/tenants/{tenant}/activations/{publisher}/{name}/secrets/{secret}"): {"value": "taken over"},
    ("post", "/api/v1/upgrades"): {"plugin": PLUGIN, "version": "1.0.0"},
    ("put", "/api/v1/upgrades/{upgrade}/share"): {"calls": 50},
    ("post", "/api/v1/upgrades/{upgrade}/rollback"): {},
    ("post", "/api/v1/tenants/{tenant}/upgrades"): {"plugin": PLUGIN, "version": "1.0.0"},
    ("put", "/api/v1/tenants/{tenant}/upgrades/{upgrade}/share"): {"calls": 50},
    ("post", "/api/v1/tenants/{tenant}/upgrades/{upgrade}/rollback"): {},
    ("put", "/api/v1/tenants/{tenant}/upgrade-window"): {"hours": "0-24"},
    ("put", "/api/v1/roles/users/{user}"): {"roles": []},
    ("post", "/api/v1/api-keys"): {"name": "mine", "roles": ["member"]},
    ("post", "/api/v1/held-updates/allow"): HELD,
    ("post", "/api/v1/tenants/{tenant}/held-updates/allow"): HELD,
    ("put", "/api/v1/tenants/{tenant}/activations/{publisher}/{name}/rating"): {"stars": 1},
    ("put", "/api/v1/policy"): {"policy": {}},
    ("post", "/api/v1/policy/dry-run"): {"policy": {}},
    ("post", "/api/v1/policy/requests"): ASK,
    ("post", "/api/v1/policy/requests/{request}/approve"): {},
    ("post", "/api/v1/policy/requests/{request}/decline"): {},
    ("post", "/api/v1/policy/requests/{request}/revoke"): {},
    ("put", "/api/v1/tenants/{tenant}/policy"): {"policy": {}},
    ("post", "/api/v1/tenants/{tenant}/policy/dry-run"): {"policy": {}},
    ("post", "/api/v1/tenants/{tenant}/policy/requests"): ASK,
    ("post", "/api/v1/tenants/{tenant}/policy/requests/{request}/approve"): {},
    ("post", "/api/v1/tenants/{tenant}/policy/requests/{request}/decline"): {},
    ("post", "/api/v1/tenants/{tenant}/policy/requests/{request}/revoke"): {},
    ("post", "/api/v1/dead-letters/retry"): {"consumer": "{consumer}", "stream": "{stream}"},
    ("post", "/graphql"): {"query": "{ users { email } }"},
}
PUBLIC = ("/api/v1/auth/", "/healthz", "/readyz", "/metrics")


class Acme:
    """What acme has that nobody else may see, and how it looks from inside."""

    def __init__(self, client: Client, names: dict[str, str]) -> None:
        self.client = client
        self.names = names

    async def state(self) -> str:
        """Everything that a stranger could have changed."""
        parts = [
            await self.client.ok("GET", path)
            for path in (
                "/api/v1/users?limit=200",
                "/api/v1/tenants/acme",
                "/api/v1/tenants/acme/activations",
                "/api/v1/api-keys",
                f"/api/v1/roles/users/{self.names['user']}",
                "/api/v1/dead-letters",
                "/api/v1/tenants/acme/budgets",
                "/api/v1/recordings",
                "/api/v1/recordings/policy",
                f"/api/v1/recordings/{self.names['recording']}",
                "/api/v1/tenants/acme/policy",
                "/api/v1/tenants/acme/policy/requests",
                "/api/v1/tenants/acme/consents",
            )
        ]
        return as_text(parts)


@pytest.fixture(scope="module")
def no_acme() -> dict[str, Acme]:
    return {}


async def _acme(stage: Stage, kept: dict[str, Acme]) -> Acme:
    if "acme" not in kept:
        await stage.install(guest(), PLUGIN)
        await stage.activate("acme", PLUGIN)
        client = await stage.client("acme")
        body = {"email": f"{MARK}@acme.example", "name": MARK, "attributes": {"note": MARK}}
        made = await client.request("POST", "/api/v1/users", json=body)
        user = made.json()["id"]
        key = await client.ok("POST", "/api/v1/api-keys", json={"name": MARK, "roles": ["member"]})
        event = (await client.ok("GET", "/api/v1/events?type=user.created&newest_first=true"))["items"][0]
        async with stage.platform.database.write("acme") as transaction:
            effects = Effects(kv_writes={"secret": MARK})
            await stage.platform.database.kv.apply(transaction, "acme", PLUGIN, effects)
        # A recorded failure, unmasked, so that whoever saw it would see the mark.
        await client.ok("PUT", "/api/v1/recordings/policy", json={"keep": True, "mask": False})
        await stage.install(text_guest("trap"), "iso/crasher")
        await stage.activate("acme", "iso/crasher")
        await client.request("POST", "/api/v1/users", json={**body, "email": f"{MARK}-2@acme.example"})
        await client.ok("DELETE", "/api/v1/tenants/acme/activations/iso/crasher")
        recording = (await client.ok("GET", "/api/v1/recordings"))["items"][0]["id"]
        assert MARK in as_text(await client.ok("GET", f"/api/v1/recordings/{recording}"))
        policy = {"policy": {"publishers": {"blocked": [PLUGIN.partition("/")[0]]}}}
        await client.ok("PUT", "/api/v1/tenants/acme/policy", json=policy)
        (request,) = await client.ok("POST", "/api/v1/tenants/acme/policy/requests", json={**ASK, "reason": MARK})
        await stage.quiet()
        names = {
            "request": request["id"],
            "recording": recording,
            "tenant": "acme",
            "user": user,
            "key": key["id"],
            "event": event["id"],
            "stream": event["stream"],
            "consumer": f"plugin:{PLUGIN}",
            "publisher": PLUGIN.partition("/")[0],
            "name": PLUGIN.partition("/")[2],
            "correlation_id": made.headers["x-correlation-id"],
        }
        kept["acme"] = Acme(client, names)
    return kept["acme"]


def _fill(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace(f"{{{name}}}", text)
        return value
    if isinstance(value, dict):
        return {k: v if k == "query" else _fill(v, names) for k, v in value.items()}
    return value


async def test_no_operation_shows_or_changes_anything_of_another_tenant(stage: Stage, no_acme: dict[str, Acme]) -> None:
    acme = await _acme(stage, no_acme)
    globex = await stage.client("globex")
    before = await acme.state()
    document = await globex.ok("GET", "/openapi.json")
    tried = 0
    for path, operations in sorted(document["paths"].items()):
        if path.startswith(PUBLIC):
            continue
        for method, operation in sorted(operations.items()):
            options: dict[str, Any] = {}
            if "requestBody" in operation:
                assert (method, path) in BODIES, f"say in BODIES what to send to {method} {path}"
                options["json"] = _fill(BODIES[(method, path)], acme.names)
            params = {
                p["name"]: acme.names.get(p["name"], "x")
                for p in operation.get("parameters", ())
                if p["in"] == "query" and (p.get("required") or p["name"] in ("stream", "consumer"))
            }
            answer = await globex.request(method.upper(), _fill(path, acme.names), params=params, **options)
            tried += 1
            where = f"{method} {path}: {answer.status_code} {answer.text[:300]}"
            assert answer.status_code < 500, where
            assert MARK not in answer.text, where
            if "{tenant}" in path:
                assert (answer.status_code, answer.json()["code"]) == (403, "tenant-mismatch"), where
            elif {"{user}", "{key}", "{event}", "{correlation_id}", "{recording}"} & set(
                path.split("/")
            ) and "roles" not in path:
                assert answer.status_code in (403, 404), where
    assert tried > 30
    assert await acme.state() == before


async def test_no_graphql_query_shows_anything_of_another_tenant(stage: Stage, no_acme: dict[str, Acme]) -> None:
    acme = await _acme(stage, no_acme)
    globex = await stage.client("globex")
    before = await acme.state()
    queries = [
        "{ users { id email name attributes } events(limit: 200) { type data stream } }",
        "{ tenants { id name configuration } activations { plugin settings } usage { tenant plugin } "
        "policyRequests { reason } consentReceipts { plugin } pluginPolicy { policy } "
        "heldUpdates { plugin } affectedPlugins { plugin } }",
        f'{{ user(id: "{acme.names["user"]}") {{ email }} }}',
        '{ tenant(id: "acme") { name } }',
        '{ activations(tenant: "acme") { plugin } }',
        '{ usage(tenant: "acme") { plugin } }',
        '{ budgets(tenant: "acme") { plugin } }',
        '{ pluginPolicy(tenant: "acme") { policy } }',
        '{ policyRequests(tenant: "acme") { reason } }',
        '{ consentReceipts(tenant: "acme") { statement } }',
        f'mutation {{ deactivatePlugin(plugin: "{PLUGIN}") {{ state }} }}',
    ]
    for number, query in enumerate(queries):
        answer = await globex.graphql(query)
        assert MARK not in as_text(answer), query
        # The first two are answered, with globex's own; whoever names acme's is refused.
        assert ("errors" in answer) == (number >= 2), as_text(answer)
    own = await globex.graphql(queries[0])
    assert "admin@globex.example" in as_text(own["data"]["users"])
    assert own["data"]["events"]
    assert await acme.state() == before


async def test_a_tenant_named_in_the_header_is_refused_to_all_but_operators(
    stage: Stage, no_acme: dict[str, Acme]
) -> None:
    await _acme(stage, no_acme)
    token = await stage.token("globex")
    stranger = await stage.client("globex", token, **{"X-Keelstone-Tenant": "acme"})
    answer = await stranger.problem(403, "GET", "/api/v1/users")
    assert answer["code"] == "tenant-mismatch"
    operator = await stage.client("platform", **{"X-Keelstone-Tenant": "acme"})
    assert MARK in as_text(await operator.ok("GET", "/api/v1/users?limit=200"))


async def test_stored_keys_are_private_to_tenant_and_plugin(stage: Stage, no_acme: dict[str, Acme]) -> None:
    await _acme(stage, no_acme)
    kv = stage.platform.database.kv
    found = await kv.get("acme", PLUGIN, "secret")
    assert found is not None
    assert found.value == MARK
    assert await kv.get("globex", PLUGIN, "secret") is None
    assert await kv.get("acme", "acme/other", "secret") is None
    assert await kv.list_keys("globex", PLUGIN, "", 10) == []


async def test_a_plugin_on_for_one_tenant_runs_for_no_other(stage: Stage, no_acme: dict[str, Acme]) -> None:
    await _acme(stage, no_acme)
    hooks = stage.platform.hooks
    assert [i.plugin for i in hooks.ready("acme", "user_creating")] == [PLUGIN]
    assert hooks.ready("globex", "user_creating") == ()
    globex = await stage.client("globex")
    answer = await globex.request("POST", "/api/v1/users", json={"email": "solo@globex.example", "name": "Solo"})
    assert answer.status_code == 201
    await globex.problem(404, "GET", f"/api/v1/hooks/{answer.headers['x-correlation-id']}/explain")
