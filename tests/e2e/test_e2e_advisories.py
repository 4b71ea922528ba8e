"""A known weakness: who has it is told, and what mends it need not cool down, if the marketplace says so."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from marketplace.advisories import sign_advisory
from plugin_sdk.sbom import Part
from tests.support.guests import guest
from tests.support.stage import Stage, copied, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
PLUGIN = "weak/guard"
POLICY = "/api/v1/policy"


@pytest_asyncio.fixture(loop_scope="module")
async def stage(seeded, tmp_path) -> AsyncIterator[Stage]:
    """A platform of each test's own: a policy is for everybody."""
    async with Stage(copied(seeded, tmp_path / "home")) as running:
        yield running


def osv(identifier: str = "WEAK-2026-1") -> bytes:
    affected = {
        "package": {"ecosystem": "Keelstone", "name": PLUGIN},
        "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "1.0.1"}]}],
    }
    said = {"id": identifier, "modified": "2026-11-23T10:00:00Z", "summary": "It sleeps", "affected": [affected]}
    return json.dumps(said).encode()


async def install(stage: Stage, version: str) -> int:
    operator = await stage.client("platform")
    asked = {"plugin": PLUGIN, "version": f"={version}"}
    return int((await operator.post("/api/v1/plugins/install", json=asked)).status_code)


async def put(stage: Stage, **policy: Any) -> None:
    operator = await stage.client("platform")
    await operator.ok("PUT", POLICY, json={"policy": policy})


async def test_a_release_that_mends_a_weakness_need_not_cool_down(stage: Stage):
    await stage.install(guest(), PLUGIN, "1.0.0")
    await put(stage, cool_down_hours=24)
    for version in ("1.0.1", "1.0.2"):
        await stage.publish(guest(), PLUGIN, version)
    registry = stage.platform.registry
    assert registry is not None
    assert await install(stage, "1.0.1") == 403
    # Its publisher's own word does not open the door: it could be given for anything.
    await registry.advise(sign_advisory(osv("WEAK-2026-0"), stage.key), by_publisher=True)
    assert await install(stage, "1.0.1") == 403
    await registry.advise(osv())
    await put(stage, cool_down_hours=24, fixes_wait=True)
    assert await install(stage, "1.0.1") == 403
    await put(stage, cool_down_hours=24)
    assert await install(stage, "1.0.2") == 403, "it mends nothing that 1.0.1 did not"
    assert await install(stage, "1.0.1") < 300


async def test_each_tenant_is_told_of_its_own_and_the_operator_of_all(stage: Stage):
    await stage.install(guest(), PLUGIN, "1.0.0")
    await stage.activate("acme", PLUGIN)
    registry = stage.platform.registry
    assert registry is not None
    await registry.advise(osv())
    await put(stage, cool_down_hours=24)
    assert await install(stage, "1.0.0") < 300  # asking for it is when the list is read anew
    operator, acme, globex = [await stage.client(name) for name in ("platform", "acme", "globex")]

    async def known() -> bool:
        return bool(await operator.ok("GET", "/api/v1/plugins/advisories"))

    await until(known)
    (found,) = await operator.ok("GET", "/api/v1/plugins/advisories")
    assert found == {
        "tenant": "acme",
        "plugin": PLUGIN,
        "version": "1.0.0",
        "advisory": "WEAK-2026-1",
        "summary": "It sleeps",
        "severity": None,
        "by": "marketplace",
        "aliases": [],
        "fixed_in": ["1.0.1"],
    }
    assert await acme.ok("GET", "/api/v1/plugins/advisories") == [found]
    assert await globex.ok("GET", "/api/v1/plugins/advisories") == []
    await globex.problem(403, "GET", "/api/v1/plugins/advisories", params={"tenant": "acme"})
    asked = {"query": "{ affectedPlugins { plugin version advisory fixedIn } }"}
    told = (await acme.ok("POST", "/graphql", json=asked))["data"]["affectedPlugins"]
    assert told == [{"plugin": PLUGIN, "version": "1.0.0", "advisory": "WEAK-2026-1", "fixedIn": ["1.0.1"]}]


async def test_installed_releases_are_told_with_what_mends_them_and_tenants_see_only_themselves(stage: Stage):
    await stage.install(guest(), PLUGIN, "1.0.0")
    for tenant in ("acme", "globex"):
        await stage.activate(tenant, PLUGIN)
    await stage.publish(guest(), PLUGIN, "1.0.1")
    registry = stage.platform.registry
    assert registry is not None
    await registry.advise(osv())
    await put(stage, cool_down_hours=24)
    assert await install(stage, "1.0.1") < 300  # asking for it is when the list is read anew
    operator, acme, globex = [await stage.client(name) for name in ("platform", "acme", "globex")]
    path = "/api/v1/plugins/affected"
    (found,) = await operator.ok("GET", path)
    assert found == {
        "plugin": PLUGIN,
        "version": "1.0.0",
        "state": "installed",
        "advisory": "WEAK-2026-1",
        "summary": "It sleeps",
        "severity": None,
        "by": "marketplace",
        "aliases": [],
        "fixed_in": ["1.0.1"],
        "mends": ["1.0.1"],
        "tenants": ["acme", "globex"],
    }
    assert await acme.ok("GET", path) == [found | {"tenants": ["acme"]}]
    assert await operator.ok("GET", path, params={"tenant": "globex"}) == [found | {"tenants": ["globex"]}]
    await globex.problem(403, "GET", path, params={"tenant": "acme"})
    # Whoever switches it off is no longer named, but it stays there to be switched on by mistake.
    await acme.ok("DELETE", f"/api/v1/tenants/acme/activations/{PLUGIN}")
    assert await acme.ok("GET", path) == [found | {"tenants": []}]
    assert await operator.ok("GET", path) == [found | {"tenants": ["globex"]}]


async def test_graphql_tells_operators_of_every_tenant_and_tenants_of_themselves(stage: Stage):
    await stage.install(guest(), PLUGIN, "1.0.0")
    for tenant in ("acme", "globex"):
        await stage.activate(tenant, PLUGIN)
    registry = stage.platform.registry
    assert registry is not None
    await registry.advise(osv())
    await put(stage, cool_down_hours=24)
    assert await install(stage, "1.0.0") < 300
    operator, acme = await stage.client("platform"), await stage.client("acme")
    query = """query ($tenant: String) {
        affectedPlugins(tenant: $tenant) { tenant }
        affectedReleases(tenant: $tenant) { version mends tenants }
    }"""

    def told(*tenants: str) -> dict[str, Any]:
        return {
            "affectedPlugins": [{"tenant": tenant} for tenant in tenants],
            "affectedReleases": [{"version": "1.0.0", "mends": [], "tenants": list(tenants)}],
        }

    assert (await operator.graphql(query))["data"] == told("acme", "globex")
    assert (await operator.graphql(query, tenant="globex"))["data"] == told("globex")
    assert (await acme.graphql(query))["data"] == told("acme")
    refused = await acme.graphql(query, tenant="globex")
    assert refused["data"] is None
    assert refused["errors"]


async def test_a_tenant_is_told_once_by_an_event_of_each_weakness_of_each_version(seeded, tmp_path):
    home = copied(seeded, tmp_path / "home")
    async with Stage(home) as stage:
        await stage.install(guest(), PLUGIN, "1.0.0")
        await stage.activate("acme", PLUGIN)
    told: list[dict[str, Any]] = []
    for number in (1, 2):  # the second is there to be waited for: the first must not come again with it
        async with Stage(home) as stage:
            assert stage.platform.registry is not None
            await stage.platform.registry.advise(osv(f"WEAK-2026-{number}"))
        async with Stage(home) as stage:
            acme, globex = [await stage.client(name) for name in ("acme", "globex")]

            async def heard(asking: Any = acme, last: str = f"WEAK-2026-{number}") -> bool:
                found = await asking.ok("GET", "/api/v1/events", params={"type": "plugin.affected"})
                told[:] = found["items"]
                return any(event["data"]["advisory"] == last for event in told)

            await until(heard)
            found = await globex.ok("GET", "/api/v1/events", params={"type": "plugin.affected"})
            assert found["items"] == []
    assert sorted(event["data"]["advisory"] for event in told) == ["WEAK-2026-1", "WEAK-2026-2"]
    assert next(event["data"] for event in told if event["data"]["advisory"] == "WEAK-2026-1") == {
        "plugin": PLUGIN,
        "version": "1.0.0",
        "advisory": "WEAK-2026-1",
        "summary": "It sleeps",
        "by": "marketplace",
        "aliases": [],
        "fixed_in": ["1.0.1"],
    }


async def test_what_is_known_later_of_a_part_reaches_the_tenant_with_its_provenance(stage: Stage):
    registry = stage.platform.registry
    assert registry is not None
    await stage.install(guest(), PLUGIN, "1.0.0", parts=[Part("npm", "evil", "1.0.0")])
    await stage.activate("acme", PLUGIN)
    affected = [{"package": {"ecosystem": "npm", "name": "evil"}, "versions": ["1.0.0"]}]
    said = {"id": "MAL-2026-1", "modified": "2026-11-23T10:00:00Z", "summary": "It steals", "affected": affected}
    await registry.import_weaknesses([said])
    await put(stage, cool_down_hours=24)
    assert await install(stage, "1.0.0") < 300  # asking for it is when the list is read anew
    acme = await stage.client("acme")

    async def known() -> bool:
        return bool(await acme.ok("GET", "/api/v1/plugins/advisories"))

    await until(known)
    (found,) = await acme.ok("GET", "/api/v1/plugins/advisories")
    assert (found["advisory"], found["by"], found["version"]) == ("DEP-MAL-2026-1", "OSV", "1.0.0")
    assert found["summary"] == "A part is malicious: evil (npm): It steals"
