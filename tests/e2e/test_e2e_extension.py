"""A trusted extension, found by its entry point, toggled tenant by tenant; and a platform started again."""

from __future__ import annotations

from pathlib import Path

import pytest

from plugin_sdk.services import PermissionCatalogue
from tests.support.extensions import on_path, write_extension
from tests.support.guests import CAPABILITIES, guest
from tests.support.stage import Stage, copied

EXTENSION = "acme/greeter"
CODE = """
from typing import Annotated

from fastapi import APIRouter

from plugin_sdk import Context, EventHandler, Routes, hookimpl
from plugin_sdk.web import requires

SEEN = []


class Greeter:
    @hookimpl
    def contribute_routes(self):
        router = APIRouter()

        @router.get("/greetings", summary="A greeting")
        async def greet(context: Annotated[Context, requires("greetings:read")]) -> dict[str, str]:
            return {"hello": context.tenant}

        @router.get("/tenants/{tenant}/greetings", summary="A greeting of a tenant named")
        async def greet_tenant(context: Annotated[Context, requires("greetings:read")]) -> dict[str, str]:
            return {"hello": context.tenant}

        return Routes(router)

    @hookimpl
    def contribute_event_handlers(self):
        async def handle(event, transaction):
            SEEN.append((event.tenant, event.data["name"]))

        return EventHandler("greeter", ("user.created",), handle)

    @hookimpl
    def user_creating(self, payload):
        return payload.model_copy(update={"name": "Dear " + payload.name})


def start(platform):
    return Greeter()
"""
MORE = """
[hooks.user_creating]

[permissions]
"greetings:read" = { summary = "Be greeted.", roles = ["admin", "member"] }
"""


@pytest.fixture
def installed(tmp_path: Path):
    """The extension is on the path, as pip would put it there."""
    folder = tmp_path / "site"
    write_extension(folder, "kst_greeter", EXTENSION, CODE, more=MORE)
    with on_path(folder):
        yield folder


async def register(stage: Stage, tenant: str, number: int) -> str:
    client = await stage.client(tenant)
    made = await client.ok("POST", "/api/v1/users", json={"email": f"e{number}@ext.example", "name": "Ada"})
    return made["name"]


async def test_routes_hooks_and_handlers_are_there_for_the_tenant_that_has_it_on(seeded, installed, tmp_path):
    async with Stage(copied(seeded, tmp_path / "home")) as stage:
        import kst_greeter.plugin as greeter

        acme, globex, operator = [await stage.client(t) for t in ("acme", "globex", "platform")]
        assert EXTENSION in (await stage.anonymous.ok("GET", "/readyz"))["plugins"]
        names = {p.name for p in stage.platform.services.get(PermissionCatalogue).permissions()}
        assert "greetings:read" in names
        for client in (acme, globex):
            problem = await client.problem(404, "GET", "/api/v1/greetings")
            assert problem["plugin"] == EXTENSION
        assert [await register(stage, t, 1) for t in ("acme", "globex")] == ["Ada", "Ada"]

        on = await stage.activate("acme", EXTENSION)
        assert on["state"] == "active"
        assert await acme.ok("GET", "/api/v1/greetings") == {"hello": "acme"}
        await globex.problem(404, "GET", "/api/v1/greetings")
        assert [await register(stage, t, 2) for t in ("acme", "globex")] == ["Dear Ada", "Ada"]

        # Nobody gets round the tenant by its path, the header or without signing in.
        assert await acme.ok("GET", "/api/v1/tenants/acme/greetings") == {"hello": "acme"}
        assert await operator.ok("GET", "/api/v1/tenants/acme/greetings") == {"hello": "acme"}
        await operator.problem(404, "GET", "/api/v1/tenants/globex/greetings")
        await globex.problem(403, "GET", "/api/v1/tenants/acme/greetings")
        await stage.anonymous.problem(401, "GET", "/api/v1/greetings")
        stale = await stage.client("acme", "ks_acme_" + "0" * 32 + "." + "A" * 43)
        await stale.problem(401, "GET", "/api/v1/greetings")

        await stage.quiet()
        assert greeter.SEEN == [("acme", "Dear Ada")], "events of other tenants, or from before, are not its own"

        await acme.ok("DELETE", f"/api/v1/tenants/acme/activations/{EXTENSION}")
        await acme.problem(404, "GET", "/api/v1/greetings")
        assert await register(stage, "acme", 3) == "Ada"


async def test_an_extension_that_is_gone_or_left_out_is_not_missed_and_comes_back_as_it_was(
    seeded, installed, tmp_path
):
    home = copied(seeded, tmp_path / "home")
    async with Stage(home) as stage:
        await stage.activate("acme", EXTENSION)
    async with Stage(home, plugins_disabled=(EXTENSION,)) as stage:
        assert await register(stage, "acme", 1) == "Ada"
        await (await stage.client("acme")).problem(404, "GET", "/api/v1/greetings")
        held = (await stage.anonymous.ok("GET", "/readyz"))["held_back"]
        assert held == {EXTENSION: "left out by KEELSTONE_PLUGINS_DISABLED"}
    async with Stage(home) as stage:
        assert await register(stage, "acme", 2) == "Dear Ada"
        assert await register(stage, "globex", 2) == "Ada"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise RuntimeError('at import')\n", "at import"),
        ("def start(platform):\n    raise RuntimeError('at start')\n", "at start"),
        (
            "from plugin_sdk import hookimpl\nclass P:\n    @hookimpl\n    def user_creating(self, colour): ...\n"
            "def start(platform):\n    return P()\n",
            "does not fit",
        ),
        (
            "from plugin_sdk import hookimpl\nclass P:\n    @hookimpl\n    async def starting(self):\n"
            "        raise OSError('no disk')\n"
            "def start(platform):\n    return P()\n",
            "failed while starting: OSError: no disk",
        ),
    ],
    ids=["import", "start", "signature", "starting"],
)
async def test_an_extension_that_does_not_start_stops_the_boot_by_name(seeded, tmp_path, code, told):
    from kernel.errors import PluginFailed

    write_extension(tmp_path / "site", "kst_broken", "acme/broken", code)
    with on_path(tmp_path / "site"), pytest.raises(PluginFailed, match=told) as caught:
        async with Stage(copied(seeded, tmp_path / "home")):
            pass
    assert caught.value.plugin == "acme/broken"


# ---------------------------------------------------------------------------- a second start


async def test_a_second_start_finds_everything_as_it_was(seeded, tmp_path):
    home = copied(seeded, tmp_path / "home")
    kv = CAPABILITIES["kv"]
    async with Stage(home) as stage:
        await stage.install(guest({"payload": {"email": "x@again.example", "name": "One"}}, kv=("k", "0")), more=kv)
        await stage.activate("acme", settings={"strict": False})
        assert (await (await stage.client("acme")).ok("POST", "/api/v1/users", json=USER))["name"] == "One"
        await stage.quiet()
        acme = await stage.client("acme")
        key = (await acme.ok("POST", "/api/v1/api-keys", json={"name": "k", "roles": ["admin"]}))["key"]
        token = await stage.token("acme")
        await stage.quiet()
        before = await picture(stage, token)
    artifacts = {p.name: p.stat().st_mtime_ns for p in (home / "artifacts").iterdir()}
    async with Stage(home) as stage:
        assert await picture(stage, token) == before, "an access token outlives the process"
        assert {p.name: p.stat().st_mtime_ns for p in (home / "artifacts").iterdir()} == artifacts, "nothing compiled"
        acme = await stage.client("acme", key)
        twice = await acme.problem(409, "POST", "/api/v1/users", json=USER | {"email": "y@again.example"})
        assert twice["found"] == "x@again.example", "the guest still gives everybody one address"
        globex = await stage.client("globex")
        assert (await globex.ok("POST", "/api/v1/users", json=USER))["name"] == "Ada"
        kept = await stage.platform.database.kv.get("acme", "acme/guard", "k")
        assert kept is not None
        assert kept.value == "0"
        moves = await (await stage.client("platform")).ok("GET", "/api/v1/plugins/acme/guard")
        assert moves["chain"]


USER = {"email": "ada@again.example", "name": "Ada"}


async def picture(stage: Stage, token: str) -> dict:
    """What an admin sees of its tenant."""
    acme = await stage.client("acme", token)
    overview = await acme.ok("GET", "/api/v1/tenants/acme/overview")
    return {
        path: await acme.ok("GET", path)
        for path in (
            "/api/v1/users",
            "/api/v1/tenants/acme",
            "/api/v1/tenants/acme/activations",
            "/api/v1/plugins",
            "/api/v1/events?limit=200&type=user.*&type=plugin.activated",
            "/api/v1/api-keys",
            "/api/v1/dead-letters",
            "/api/v1/roles",
        )
    } | {"generation": stage.platform.activations.current.generation, "users": overview["users"]}


HEALTH = """
from plugin_sdk import HealthCheck, hookimpl


class Patient:
    @hookimpl
    def contribute_health_checks(self):
        async def check():
            raise OSError("the disk is full")

        return HealthCheck("database", check)

    @hookimpl
    async def stopping(self):
        raise OSError("cannot stop")


def start(platform):
    return Patient()
"""


async def test_a_plugins_own_check_counts_and_its_failing_stop_keeps_nobody_else(seeded, tmp_path, caplog):
    write_extension(tmp_path / "site", "kst_patient", "acme/patient", HEALTH)
    home = copied(seeded, tmp_path / "home")
    with on_path(tmp_path / "site"), caplog.at_level("ERROR"):
        async with Stage(home) as stage:
            ready = await stage.anonymous.get("/readyz")
            assert ready.status_code == 503
            checks = ready.json()["checks"]
            assert checks["acme/patient: database"] == "failed: the disk is full"
            assert checks["database"] == "ok"
    assert "acme/patient failed while stopping: OSError: cannot stop" in caplog.text
    async with Stage(home) as stage:
        assert (await stage.anonymous.get("/readyz")).status_code == 200
