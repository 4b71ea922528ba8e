"""Ratings and figures from a whole platform: what runs for a tenant is rated by it, and shown by the marketplace."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from marketplace.registry import RegistryReader
from marketplace.registry.figures import figures
from plugin_sdk.reporting import platform_name
from tests.support.guests import CAPABILITIES, guest
from tests.support.stage import Stage, copied

pytestmark = pytest.mark.asyncio(loop_scope="module")


def rating(tenant: str, plugin: str) -> str:
    return f"/api/v1/tenants/{tenant}/activations/{plugin}/rating"


async def test_a_tenant_rates_what_runs_for_it_and_the_marketplace_shows_it_without_its_name(stage: Stage):
    acme, globex = await stage.client("acme"), await stage.client("globex")
    await stage.install(guest(), "rated/guard", more=CAPABILITIES["kv"])
    await stage.activate("acme", "rated/guard")
    said = await acme.ok("PUT", rating("acme", "rated/guard"), json={"stars": 4, "text": "Quick, and <b>quiet</b>."})
    keys = await stage.anonymous.ok("GET", "/api/v1/auth/jwks.json")
    assert (said["version"], said["stars"], said["platform"]) == ("1.0.0", 4, platform_name(keys))
    assert "acme" not in said["tenant"]
    listed = await stage.anonymous.ok("GET", "/marketplace/plugins/rated/guard/ratings")
    assert (listed["summary"]["number"], listed["summary"]["mean"]) == (1, 4.0)
    assert "acme" not in listed["ratings"][0]["statement"]
    page = (await stage.anonymous.get("/marketplace/store/rated/guard")).text
    assert "Quick, and &lt;b&gt;quiet&lt;/b&gt;." in page
    # The same tenant again: another word, not another voice.
    await acme.ok("PUT", rating("acme", "rated/guard"), json={"stars": 2})
    listed = await stage.anonymous.ok("GET", "/marketplace/plugins/rated/guard/ratings")
    assert [each["stars"] for each in listed["ratings"]] == [2]
    # Who does not run it, or did but does not now, has nothing to say.
    await globex.problem(404, "PUT", rating("globex", "rated/guard"), json={"stars": 1})
    await globex.problem(403, "PUT", rating("acme", "rated/guard"), json={"stars": 1})
    await acme.ok("DELETE", "/api/v1/tenants/acme/activations/rated/guard")
    problem = await acme.problem(409, "PUT", rating("acme", "rated/guard"), json={"stars": 1})
    assert "nothing can be said of how it runs" in problem["detail"]


async def test_only_who_may_activate_rates_and_only_with_stars(stage: Stage):
    acme = await stage.client("acme")
    await stage.install(guest(), "rated/other")
    await stage.activate("acme", "rated/other")
    member = await stage.member("acme", "member")
    await member.problem(403, "PUT", rating("acme", "rated/other"), json={"stars": 5})
    for body in ({"stars": 0}, {"stars": 6}, {"stars": 5, "text": "x" * 1_001}, {}):
        await acme.problem(422, "PUT", rating("acme", "rated/other"), json=body)


async def test_the_marketplace_of_a_platform_has_pages_below_its_own_folder(stage: Stage):
    await stage.publish(guest(), "rated/shown")
    page = await stage.anonymous.get("/marketplace/")
    assert page.status_code == 200
    assert 'href="/marketplace/store/rated/shown"' in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert (await stage.anonymous.get("/marketplace/store/rated/none")).status_code == 404


async def test_the_operators_pages_open_in_the_platform_too_for_this_machine_alone(stage: Stage):
    registry = stage.platform.registry
    assert registry is not None
    link = registry.reader.access.make_link(registry.now())
    async with httpx.AsyncClient(transport=stage.transport, base_url="http://127.0.0.1:8700") as browser:
        assert (await browser.get("/marketplace/desk")).status_code == 403
        entered = await browser.post("/marketplace/desk/enter", data={"link": link})
        assert (entered.status_code, entered.headers["location"]) == (303, "/marketplace/desk")
        desk = await browser.get("/marketplace/desk")
        assert desk.status_code == 200
        assert 'href="/marketplace/desk/review"' in desk.text
    # By the name that others know the platform by, even its own machine is not let in.
    operator = await stage.client("platform")
    assert (await operator.get("/marketplace/desk")).status_code == 403


async def test_figures_leave_a_platform_only_where_its_operator_lets_them(seeded: Path, tmp_path: Path):
    found = {}
    for lets in (False, True):
        folder = copied(seeded, tmp_path / str(lets))
        async with Stage(folder, marketplace_figures=lets) as stage:
            await stage.install(guest(), "counted/guard")
            await stage.activate("acme", "counted/guard")
            client = await stage.client("acme")
            for number in range(3):
                person = {"email": f"p{number}@figures.example", "name": "Ada Lovelace"}
                assert (await client.post("/api/v1/users", json=person)).status_code == 201
            platform = platform_name(await stage.anonymous.ok("GET", "/api/v1/auth/jwks.json"))
        # A process that ends hands in what it has.
        reader = RegistryReader.open(folder / "marketplace")
        assert reader is not None
        with reader._tables.read() as connection:
            found[lets] = connection.execute(sa.select(figures)).all()
        reader.close()
    assert found[False] == []
    (row,) = found[True]
    assert (row.platform, row.plugin, row.version) == (platform, "counted/guard", "1.0.0")
    assert (row.tenants, row.calls, row.errors, sum(row.latency)) == (1, 3, 0, 3)
