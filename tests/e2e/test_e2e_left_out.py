"""A built-in plugin left out of the configuration: its routes, types, permissions and tables' use are gone,
those that require it say so, and the platform still starts and serves the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel.discovery import find_plugins
from kernel.errors import ValidationFailed
from kernel.events import NewEvent
from plugin_sdk.services import PermissionCatalogue
from tests.support.stage import Stage, copied

BUILTINS = ("catalog", "identity", "tenants", "users")
OWN_PATHS = {
    "catalog": ("/api/v1/plugins", "/api/v1/tenants/{tenant}/activations"),
    "identity": ("/api/v1/auth/token", "/api/v1/api-keys", "/api/v1/roles"),
    "tenants": ("/api/v1/tenants", "/api/v1/tenants/{tenant}"),
    "users": ("/api/v1/users", "/api/v1/users/{user}"),
}
OWN_TYPES = {"catalog": "Activation", "identity": None, "tenants": "Tenant", "users": "User"}


@pytest.mark.parametrize("name", BUILTINS)
async def test_what_a_left_out_plugin_brings_is_gone_and_the_rest_serves(
    seeded: Path, tmp_path: Path, name: str
) -> None:
    plugin = f"keelstone/{name}"
    async with Stage(copied(seeded, tmp_path / "home"), plugins_disabled=(plugin,)) as stage:
        ready = await stage.anonymous.ok("GET", "/readyz")
        assert ready["ready"]
        assert plugin in ready["held_back"]
        held = {item.plugin: item.reason for item in stage.platform.held_back}
        assert "KEELSTONE_PLUGINS_DISABLED" in held[plugin]
        for other, reason in held.items():
            assert other == plugin or plugin in reason, f"{other} does not say why: {reason}"

        document = await stage.anonymous.ok("GET", "/openapi.json")
        for path in OWN_PATHS[name]:
            assert path not in document["paths"]
        schema = await stage.anonymous.graphql("{ __schema { types { name } } }")
        types = {t["name"] for t in schema["data"]["__schema"]["types"]}
        assert OWN_TYPES[name] not in types
        assert "Event" in types

        manifest = next(found.manifest for found in find_plugins() if found.manifest.id == plugin)
        known = {p.name for p in stage.platform.services.get(PermissionCatalogue).permissions()}
        assert not known & set(manifest.permissions)
        for declared in manifest.events.declares:
            async with stage.platform.database.write("acme") as transaction:
                with pytest.raises(ValidationFailed, match="not registered"):
                    transaction.emit("test:1", NewEvent(declared.type, {}))

        if name != "identity":
            operator = await stage.client("platform")
            assert (await operator.ok("GET", "/api/v1/events?limit=1"))["items"]
            for other in set(BUILTINS) - {name, "identity"} - {p.partition("/")[2] for p in held}:
                for path in OWN_PATHS[other]:
                    assert path in document["paths"]
        else:
            answer = await stage.anonymous.problem(401, "GET", "/api/v1/users")
            assert answer["code"] == "unauthenticated"


async def test_a_plugin_that_comes_back_finds_its_tables_as_they_were(seeded: Path, tmp_path: Path) -> None:
    home = copied(seeded, tmp_path / "home")
    async with Stage(home) as stage:
        acme = await stage.client("acme")
        await acme.ok("POST", "/api/v1/users", json={"email": "kept@acme.example", "name": "Kept"})
    async with Stage(home, plugins_disabled=("keelstone/users",)) as stage:
        await (await stage.client("acme")).problem(404, "GET", "/api/v1/users")
    async with Stage(home) as stage:
        found = await (await stage.client("acme")).ok("GET", "/api/v1/users?email=kept@acme.example")
        assert [u["name"] for u in found["items"]] == ["Kept"]


async def test_every_built_in_left_out_still_starts(tmp_path: Path) -> None:
    async with Stage(tmp_path / "home", plugins_disabled=tuple(f"keelstone/{n}" for n in BUILTINS)) as stage:
        assert (await stage.anonymous.ok("GET", "/readyz"))["ready"]
        assert len(stage.platform.held_back) == len(BUILTINS)
