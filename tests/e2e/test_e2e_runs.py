"""Who ran what: for any digest, which tenants, with which grants, when, and by whose word."""

from __future__ import annotations

import pytest

from tests.support.guests import CAPABILITIES, guest
from tests.support.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="module")
PLUGIN = "ran/guard"
ASKED = CAPABILITIES["log"] + CAPABILITIES["kv"]
PATH = f"/api/v1/tenants/{{tenant}}/activations/{PLUGIN}"


async def digest_of(stage: Stage, version: str) -> str:
    registry = stage.platform.registry
    assert registry is not None
    release = registry.reader.index(PLUGIN).find(version)
    assert release is not None
    return release.digest


async def test_every_run_of_a_package_is_known_to_the_operator_and_each_tenants_own_to_it(stage: Stage):
    operator, acme, globex = [await stage.client(name) for name in ("platform", "acme", "globex")]
    await stage.install(guest(), PLUGIN, "1.0.0", more=ASKED)
    await stage.activate("acme", PLUGIN)
    await stage.activate("globex", PLUGIN)
    first = await digest_of(stage, "1.0.0")
    asked = [each["name"] for each in await acme.ok("GET", PATH.format(tenant="acme") + "/consent")]
    less = {name: name != asked[0] for name in asked}
    await acme.ok("PUT", PATH.format(tenant="acme"), json={"grants": less})
    await stage.install(guest(), PLUGIN, "1.0.1", more=ASKED)
    await globex.ok("DELETE", PATH.format(tenant="globex"))

    found = await operator.ok("GET", f"/api/v1/runs/{first}")
    assert {run["version"] for run in found} == {"1.0.0"}
    mine = [run for run in found if run["tenant"] == "acme"]
    assert [set(run["granted"]) for run in mine] == [set(asked), set(asked[1:])]
    assert mine[0]["until"] == mine[1]["since"]
    assert all(run["by"] and len(run["receipt"]) == 64 for run in found)
    (other,) = [run for run in found if run["tenant"] == "globex"]
    assert other["until"] is not None

    assert await acme.ok("GET", f"/api/v1/runs/{first}") == mine
    assert await globex.ok("GET", f"/api/v1/runs/{first}") == [other]
    query = {"query": f'{{ pluginRuns(digest: "{first}") {{ tenant version granted until }} }}'}
    told = (await globex.ok("POST", "/graphql", json=query))["data"]["pluginRuns"]
    assert [run["tenant"] for run in told] == ["globex"]
    await operator.problem(404, "GET", "/api/v1/runs/" + "0" * 64)


async def test_what_nobody_ran_has_no_runs(stage: Stage):
    operator = await stage.client("platform")
    await stage.install(guest(), PLUGIN, "2.0.0")
    assert await operator.ok("GET", f"/api/v1/runs/{await digest_of(stage, '2.0.0')}") == []
