"""A tenant's plan bounds its plugins' calls on a whole platform."""

from __future__ import annotations

from pathlib import Path

from kernel.ports import TenantPlans
from tests.support.guests import CAPABILITIES, guest
from tests.support.stage import Stage, copied


async def test_a_plan_bounds_its_own_tenants_only(seeded: Path, tmp_path: Path) -> None:
    async with Stage(copied(seeded, tmp_path / "home"), plans={"tiny": {"kv_keys": 0}}) as stage:
        # This guest ends itself when the host refuses to keep its key.
        await stage.install(guest(kv=("seen", "1")), "acme/keeper", more=CAPABILITIES["kv"])
        operator = await stage.client("platform")
        await operator.ok("PATCH", "/api/v1/tenants/acme", json={"plan": "tiny"})
        assert await stage.platform.services.get(TenantPlans).plan("acme") == "tiny"
        for tenant in ("acme", "globex"):
            await stage.activate(tenant, "acme/keeper")
        person = {"email": "ann@plans.example", "name": "Ann"}
        acme, globex = await stage.client("acme"), await stage.client("globex")
        problem = await acme.problem(503, "POST", "/api/v1/users", json=person)
        assert problem["plugin"] == "acme/keeper"
        await globex.ok("POST", "/api/v1/users", json=person)
