"""When a plugin fails: rested for the tenant that it fails for, kept so over a restart, told, withdrawn by rule."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.guests import guest, text_guest
from tests.support.stage import Stage, copied, until

PATH = "/api/v1/users"


async def register(client, number: int):
    return await client.post(PATH, json={"email": f"p{number}@health.example", "name": "Ada"})


async def health(client, plugin: str, **params):
    return [h for h in await client.ok("GET", "/api/v1/plugins/health", params=params) if h["plugin"] == plugin]


async def told(client, *types: str):
    found = await client.ok("GET", "/api/v1/events", params={"type": list(types), "limit": 200})
    return [e["type"] for e in found["items"]]


async def fail(client, times: int, start: int = 0) -> None:
    for number in range(times):
        assert (await register(client, start + number)).status_code == 503


async def test_a_failing_plugin_is_degraded_rests_over_a_restart_and_recovers(seeded, tmp_path):
    home = copied(seeded, tmp_path / "home")
    async with Stage(home) as first:
        # 1.0.0 crashes, always; the tenant goes on to 1.1.0, which doesn't, only after the restart.
        await first.install(text_guest("trap"), "health/crasher")
        await first.install(guest(), "health/crasher", "1.1.0")
        await first.activate("acme", "health/crasher", version="1.0.0")
        acme, globex = await first.client("acme"), await first.client("globex")
        await fail(acme, 5)

        async def rested() -> bool:
            # At once, unless the machine is so slow that the rest is over: then this was the probe.
            return (await register(acme, 50)).json()["cause"] == "breaker-open"

        await until(rested)
        [mine] = await health(acme, "health/crasher")
        assert mine["state"] == "degraded"
        assert [b["hook"] for b in mine["breakers"]] == ["user_creating"]
        assert mine["breakers"][0]["openings"] >= 1
        assert "guest-trap" in mine["breakers"][0]["error"]
        assert await health(globex, "health/crasher") == []
        assert await told(acme, "plugin.degraded") == ["plugin.degraded"]
        assert (await register(globex, 1)).status_code == 201
    async with Stage(home) as second:
        acme = await second.client("acme")
        [mine] = await health(acme, "health/crasher")
        assert mine["state"] == "degraded"
        assert mine["breakers"][0]["openings"] >= 1, "what an earlier process knew"

        async def probed() -> bool:
            return (await register(acme, 60)).json()["cause"] != "breaker-open"

        await until(probed)
        [mine] = await health(acme, "health/crasher")
        assert mine["breakers"][0]["openings"] >= 2
        assert mine["breakers"][0]["wait"] >= 2, "each failed probe doubles the rest, the restart did not begin anew"
        await second.activate("acme", "health/crasher", version="1.1.0")
        assert (await register(acme, 61)).status_code == 201
        [mine] = await health(acme, "health/crasher")
        assert (mine["state"], mine["breakers"]) == ("active", [])


async def test_a_plugin_that_works_again_is_active_again_and_says_so(seeded, tmp_path):
    async with Stage(copied(seeded, tmp_path / "home")) as stage:
        await stage.install(guest({"payload": {"nonsense": 1}}), "health/moody")
        await stage.activate("acme", "health/moody")
        acme = await stage.client("acme")
        await fail(acme, 5)
        assert [h["state"] for h in await health(acme, "health/moody")] == ["degraded"]
        reset = await acme.ok("POST", "/api/v1/tenants/acme/activations/health/moody/reset")
        assert reset == {"closed": 1}
        assert [h["state"] for h in await health(acme, "health/moody")] == ["active"]
        assert await told(acme, "plugin.degraded", "plugin.recovered") == ["plugin.degraded", "plugin.recovered"]
        member = await stage.member("acme", "member")
        await member.problem(403, "POST", "/api/v1/tenants/acme/activations/health/moody/reset")


async def test_a_release_that_fails_for_several_tenants_is_withdrawn_by_the_operators_rule(seeded, tmp_path):
    async with Stage(copied(seeded, tmp_path / "home"), quarantine_tenants=2) as stage:
        await stage.install(text_guest("trap"), "health/plague")
        for tenant in ("acme", "globex"):
            await stage.activate(tenant, "health/plague")
        acme, globex = await stage.client("acme"), await stage.client("globex")
        operator = await stage.client("platform")
        await fail(acme, 20)
        assert [h["state"] for h in await health(acme, "health/plague")] == ["degraded"], "one tenant says too little"
        await fail(globex, 5)
        assert {h["state"] for h in await health(operator, "health/plague")} == {"quarantined"}
        answer = (await register(acme, 90)).json()
        assert answer["cause"] in ("quarantined", "breaker-open")
        assert "plugin.quarantined" in await told(acme, "plugin.quarantined")
        assert "plugin.quarantined" in await told(operator, "plugin.quarantined")
        problem = await acme.problem(409, "PUT", "/api/v1/tenants/acme/activations/health/plague", json={})
        assert problem["code"] == "quarantined"
        body = {"plugin": "health/plague"}
        problem = await operator.problem(409, "POST", "/api/v1/plugins/install", json=body)
        assert problem["code"] == "quarantined"
        released = await operator.ok("POST", "/api/v1/plugins/health/plague/release", json={"version": "1.0.0"})
        assert released["state"] == "installed"
        await acme.ok("POST", "/api/v1/tenants/acme/activations/health/plague/reset")
        assert (await register(acme, 91)).json()["cause"] == "guest-trap", "its calls reach it again"


async def test_an_operator_withdraws_a_good_release_and_lets_it_back_in(seeded, tmp_path):
    async with Stage(copied(seeded, tmp_path / "home")) as stage:
        await stage.install(guest({"reject": {"reason": "guarded"}}), "health/guard")
        await stage.activate("acme", "health/guard")
        acme, operator = await stage.client("acme"), await stage.client("platform")
        assert (await register(acme, 1)).json()["detail"] == "guarded"
        path = "/api/v1/plugins/health/guard"
        await acme.problem(403, "POST", f"{path}/quarantine", json={"version": "1.0.0"})
        held = await operator.ok("POST", f"{path}/quarantine", json={"version": "1.0.0", "reason": "looks odd"})
        assert held["state"] == "quarantined"
        answer = await register(acme, 1)
        assert answer.status_code == 503, "a guard that is gone lets nobody pass"
        assert answer.json()["cause"] == "quarantined"
        again = await operator.ok("POST", f"{path}/quarantine", json={"version": "1.0.0"})
        assert again["state"] == "quarantined"
        await operator.ok("POST", f"{path}/release", json={"version": "1.0.0"})
        assert (await register(acme, 1)).json()["detail"] == "guarded"
        await operator.problem(409, "POST", f"{path}/release", json={"version": "1.0.0"})


async def test_a_hostile_plugin_of_one_tenant_costs_another_none_of_its_calls(seeded, tmp_path):
    async with Stage(copied(seeded, tmp_path / "home")) as stage:
        await stage.install(text_guest("loop"), "health/looper")
        await stage.install(text_guest("trap"), "health/trapper")
        await stage.install(guest(), "health/honest")
        await stage.activate("acme", "health/looper")
        await stage.activate("acme", "health/trapper")
        for tenant in ("acme", "globex"):
            await stage.activate(tenant, "health/honest")
        acme, globex = await stage.client("acme"), await stage.client("globex")
        done = asyncio.Event()
        failed = 0

        async def storm(offset: int) -> None:
            nonlocal failed
            number = offset
            while not done.is_set():
                number += 1
                failed += (await register(acme, number)).status_code == 503
                # Its breaker would end the storm: it is closed by hand, so that guests go on failing for real.
                await acme.post("/api/v1/tenants/acme/activations/health/looper/reset")
                await acme.post("/api/v1/tenants/acme/activations/health/trapper/reset")

        storms = [asyncio.create_task(storm(1_000_000 * n)) for n in range(3)]
        statuses = []
        async with asyncio.timeout(60):
            while len(statuses) < 40 or failed < 12:
                statuses.append((await register(globex, len(statuses))).status_code)
        done.set()
        await asyncio.gather(*storms)
        assert set(statuses) == {201}
        items = (await globex.ok("GET", "/api/v1/usage"))["items"]
        assert {(u["plugin"], u["calls"], u["failures"]) for u in items} == {("health/honest", len(statuses), 0)}
        assert all(
            h["state"] == "active" and not h["breakers"] for h in await globex.ok("GET", "/api/v1/plugins/health")
        )


@pytest.mark.parametrize("rule", ["1"])
def test_one_tenants_failures_can_be_no_rule(rule, monkeypatch):
    from pydantic import ValidationError

    from kernel.settings import Settings

    monkeypatch.setenv("KEELSTONE_QUARANTINE_TENANTS", rule)
    with pytest.raises(ValidationError, match="one tenant's failures"):
        Settings()
