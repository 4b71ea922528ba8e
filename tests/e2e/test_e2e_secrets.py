"""A tenant's secrets for its plugins, and what guests may ask of built-in plugins, on a whole platform."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa

from kernel.adapters.sql.database import SqlDatabase
from kernel.context import Context
from kernel.manifest import PluginManifest
from kernel.ports import ALL_TENANTS, GuestCall, SecretSource
from plugin_sdk.testing import FakeWeb
from plugins.builtin.catalog.secrets.application import table
from sandbox import open_runtime
from tests.support.caller import caller
from tests.support.guests import guest
from tests.support.stage import Stage, as_text

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLUGIN = "vault/sender"
VALUE = "crm-s3cr3t-0815"
MORE = """
[capabilities.http]
why = "Sends to the CRM."
hosts = ["127.0.0.1:{port}", "api.example.com"]
methods = ["POST"]
[capabilities.secrets]
why = "Signs in to the CRM."
[capabilities.secrets.names.token]
why = "The token that the CRM's settings page shows."
hosts = ["127.0.0.1:{port}"]
[capabilities.secrets.names.other]
why = "Never entered by anybody."
hosts = ["api.example.com"]
"""


def path(tenant: str, secret: str = "") -> str:
    return f"/api/v1/tenants/{tenant}/activations/{PLUGIN}/secrets" + (f"/{secret}" if secret else "")


@pytest.fixture(scope="module")
def web():
    served = FakeWeb()
    yield served
    served.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def installed(stage: Stage, web: FakeWeb) -> PluginManifest:
    """A plugin that asks for two secrets, on in both tenants; one is entered in acme."""
    more = MORE.format(port=web.host.partition(":")[2])
    await stage.install(guest(), PLUGIN, more=more)
    for tenant in ("acme", "globex"):
        await stage.activate(tenant, PLUGIN)
    admin = await stage.client("acme")
    await admin.ok("PUT", path("acme", "token"), json={"value": VALUE})
    operator = await stage.client("platform")
    assert "vault/sender" in as_text(await operator.ok("GET", "/api/v1/plugins"))
    (activation,) = [a for a in await _releases(stage) if a.id == PLUGIN]
    return activation


def patient(manifest: PluginManifest) -> PluginManifest:
    """What is judged here is not how busy the machine is."""
    return manifest.model_copy(update={"limits": manifest.limits.model_copy(update={"time_ms": 5_000})})


async def _releases(stage: Stage) -> list[PluginManifest]:
    from plugins.builtin.catalog.infrastructure import SqlCatalog

    async with stage.platform.database.read(ALL_TENANTS) as transaction:
        return [patient(r.manifest) for r in await SqlCatalog().releases(transaction)]


async def send(stage: Stage, web: FakeWeb, manifest: PluginManifest, tenant: str, name: str = "token") -> str:
    """What a guest of the tenant comes to that has the secret sent: the gate and the secrets are the real ones."""

    def run(_call: GuestCall, ask: Any) -> tuple[bool, str]:
        mark = ask("secrets", "placeholder", name)
        if not isinstance(mark, str):
            return True, f"!{mark.value['code']}"
        headers = [{"name": "authorization", "value": f"Bearer {mark}"}]
        answer = ask("http", "send", {"method": "POST", "url": web.url, "headers": headers, "body": "x"})
        return True, answer["body"] if isinstance(answer, dict) else f"!{answer.value['code']}"

    settings = stage.settings.model_copy(update={"http_private_allow": (web.host,)})
    runtime = open_runtime(settings, find=stage.platform.services.find, native=run)
    call = GuestCall(
        PLUGIN, "1.0.0", "d", manifest, "user_creating", "{}", Context(tenant=tenant),
        frozenset(manifest.capabilities.asked()),
    )  # fmt: skip
    return (await runtime.call(call)).output


async def test_a_secret_is_entered_named_and_never_shown(stage: Stage, installed: PluginManifest):
    admin = await stage.client("acme")
    found = await admin.ok("GET", path("acme"))
    assert [(s["name"], s["entered"]) for s in found] == [("other", False), ("token", True)]
    assert found[1]["why"] == "The token that the CRM's settings page shows."
    assert found[1]["changed_by"]
    asked = await admin.graphql('{ pluginSecrets(plugin: "vault/sender") { name entered } }')
    assert asked["data"]["pluginSecrets"][1] == {"name": "token", "entered": True}
    events = await admin.ok("GET", "/api/v1/events", params={"stream": f"activation:{PLUGIN}", "limit": 50})
    assert "plugin.secret_changed" in as_text(events)
    for seen in (found, asked, events, await admin.ok("GET", "/api/v1/tenants/acme/activations")):
        assert VALUE not in as_text(seen)
    async with stage.platform.database.read("acme") as transaction:
        rows = (await transaction.execute(sa.select(table.c.cipher))).scalars().all()
    assert len(rows) == 1
    assert VALUE not in rows[0]


async def test_what_is_not_asked_for_or_cannot_be_sent_is_not_taken(stage: Stage, installed: PluginManifest):
    admin = await stage.client("acme")
    await admin.problem(404, "PUT", path("acme", "unknown"), json={"value": VALUE})
    for value in ("short", "x" * 9_000, "a value\r\nx-injected: 1", " spaces around it "):
        problem = await admin.problem(422, "PUT", path("acme", "other"), json={"value": value})
        assert value.strip()[:20] not in as_text(problem)
    await admin.problem(404, "DELETE", path("acme", "other"))
    member = await stage.member("acme", "member")
    await member.ok("GET", path("acme"))
    await member.problem(403, "PUT", path("acme", "token"), json={"value": VALUE})


async def test_a_guest_has_it_sent_and_an_echo_of_it_hidden(stage: Stage, web: FakeWeb, installed: PluginManifest):
    web.answer(200, f"you sent {VALUE}")
    assert await send(stage, web, installed, "acme") == "you sent [secret token]"
    assert web.requests[-1].headers["authorization"] == f"Bearer {VALUE}"
    assert await send(stage, web, installed, "acme", "other") == "!not-found"


async def test_another_tenants_secret_is_out_of_reach(stage: Stage, web: FakeWeb, installed: PluginManifest):
    assert await send(stage, web, installed, "globex") == "!not-found"
    other = await stage.client("globex")
    assert [s["entered"] for s in await other.ok("GET", path("globex"))] == [False, False]
    assert (await other.request("GET", path("acme"))).status_code in (403, 404)
    assert (await other.request("PUT", path("acme", "token"), json={"value": VALUE})).status_code in (403, 404)
    source = stage.platform.services.get(SecretSource)
    assert await source.secrets("globex", PLUGIN) == {}
    assert await source.secrets("acme", "vault/other") == {}


async def test_a_row_that_was_moved_to_another_tenant_opens_for_nobody(
    stage: Stage, web: FakeWeb, installed: PluginManifest
):
    database: SqlDatabase = stage.platform.database
    async with database.read("acme") as transaction:
        row = (await transaction.execute(sa.select(table))).one()._asdict()
    async with database.write(ALL_TENANTS) as transaction:
        await transaction.execute(sa.insert(table), row | {"tenant_id": "globex"})
    try:
        assert await send(stage, web, installed, "globex") == "!unavailable"
    finally:
        async with database.write("globex") as transaction:
            await transaction.execute(sa.delete(table))


async def test_a_removed_secret_is_gone(stage: Stage, web: FakeWeb, installed: PluginManifest):
    admin = await stage.client("acme")
    change = 'mutation { setPluginSecret(plugin: "vault/sender", name: "token", value: "another-value") }'
    assert (await admin.graphql(change))["data"] == {"setPluginSecret": True}
    await send(stage, web, installed, "acme")
    assert web.requests[-1].headers["authorization"] == "Bearer another-value"
    remove = 'mutation { removePluginSecret(plugin: "vault/sender", name: "token") }'
    assert (await admin.graphql(remove))["data"] == {"removePluginSecret": True}
    assert await send(stage, web, installed, "acme") == "!not-found"


async def test_an_uninstall_with_its_data_takes_the_secrets_along(stage: Stage, installed: PluginManifest):
    acme, operator = await stage.client("acme"), await stage.client("platform")
    await acme.ok("PUT", path("acme", "token"), json={"value": VALUE})
    for tenant in ("acme", "globex"):
        admin = await stage.client(tenant)
        await admin.ok("DELETE", f"/api/v1/tenants/{tenant}/activations/{PLUGIN}")
    await operator.ok("DELETE", f"/api/v1/plugins/{PLUGIN}", params={"data": "purge"})
    async with stage.platform.database.read(ALL_TENANTS) as transaction:
        assert (await transaction.execute(sa.select(table.c.name))).all() == []


# ---------------------------------------------------------------------- services

SERVICES = """
[capabilities.services]
why = "Looks people up."
[capabilities.services.calls]
"keelstone/users" = ["find"]
"keelstone/tenants" = ["get", "overview"]
"""


async def test_a_guest_finds_people_of_its_own_tenant_only(stage: Stage):
    admin = await stage.client("acme")
    ann = await admin.ok("POST", "/api/v1/users", json={"email": "ann@services.example", "name": "Ann"})
    finder = caller("1.1", "services", "call", "keelstone/users", "find", json.dumps({"id": ann["id"]}))
    by_address = caller("1.1", "services", "call", "keelstone/users", "find", '{"email": "ANN@services.example"}')
    tenant_of = caller("1.1", "services", "call", "keelstone/tenants", "get", "{}")
    await stage.install(finder, "vault/finder", more=SERVICES)
    (manifest,) = [m for m in await _releases(stage) if m.id == "vault/finder"]

    async def ask(component: bytes, tenant: str, grants: frozenset[str] = frozenset({"services"})) -> str:
        digest = hashlib.sha256(component).hexdigest()
        await stage.platform.runtime.prepare(digest, component, manifest)
        call = GuestCall(manifest.id, "1.0.0", digest, manifest, "user_creating", "{}", Context(tenant=tenant), grants)
        return (await stage.platform.runtime.call(call)).output

    assert json.loads(await ask(finder, "acme"))["email"] == "ann@services.example"
    assert json.loads(await ask(by_address, "acme"))["id"] == ann["id"]
    assert await ask(finder, "globex") == "null"
    assert json.loads(await ask(tenant_of, "globex"))["id"] == "globex"
    assert await ask(finder, "acme", frozenset()) == "!not-granted"
