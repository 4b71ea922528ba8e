"""Fuel, where a tenant's plan meters it: a second engine counts instructions, and only for those tenants."""

from __future__ import annotations

import pytest

from kernel.ports import TenantPlans
from kernel.settings import Caps
from sandbox import errors


async def test_without_a_metering_plan_there_is_one_engine(box):
    assert box.runtime._shelves._metered is None
    assert (await box.run("echo", '{"a":1}')).output == '{"a":1}'


async def test_a_metered_call_has_its_fuel_and_no_more(opened):
    async with opened(sandbox_caps=Caps(fuel=100_000)) as box:
        assert (await box.run("echo", '{"a":1}')).output == '{"a":1}'
        with pytest.raises(errors.GuestFuelLimit) as caught:
            await box.run("compute")
        assert caught.value.extra["allowed"] == 100_000
        # Every call has the whole again.
        assert (await box.run("echo", '{"a":2}')).output == '{"a":2}'


async def test_a_live_instance_is_refuelled_for_each_call(opened, make_manifest):
    live = make_manifest(isolation="tenant")
    async with opened(sandbox_caps=Caps(fuel=2_000)) as box:
        assert [(await box.run("counter", manifest=live)).output for _ in range(4)] == ["11", "22", "33", "44"]


async def test_only_the_tenants_of_a_metering_plan_are_metered(opened):
    class Plans:
        async def plan(self, tenant):
            return {"acme": "free", "globex": "paid"}[tenant]

    async with opened(
        plans={"free": Caps(fuel=1_000), "paid": Caps(time_ms=2_000)}, ports={TenantPlans: Plans()}
    ) as box:
        with pytest.raises(errors.GuestFuelLimit):
            await box.run("compute", tenant="acme")
        assert (await box.run("compute", tenant="globex")).output == ""


async def test_the_memory_of_metered_guests_is_known_too(opened):
    async with opened(sandbox_caps=Caps(fuel=1_000_000)) as box:
        assert (await box.run("echo")).usage.memory_bytes == 65_536


async def test_what_a_metered_call_took_is_known_and_the_same_each_time(opened, make_manifest):
    async with opened(sandbox_caps=Caps(fuel=1 << 40)) as box:
        took = [(await box.run("echo", '{"a":1}')).usage.fuel for _ in range(3)]
        assert took[0] > 0
        assert len(set(took)) == 1
        assert (await box.run("compute")).usage.fuel > 100 * took[0]
        live = make_manifest(isolation="tenant")
        assert [(await box.run("counter", manifest=live)).usage.fuel for _ in range(3)][1:] == [
            (await box.run("counter", manifest=live)).usage.fuel
        ] * 2


async def test_both_lanes_count_the_same(opened):
    async with opened(sandbox_caps=Caps(fuel=1 << 40), sandbox_lane="auto") as fast:
        found = (await fast.run("echo", '{"a":1}')).usage.fuel
    async with opened(sandbox_caps=Caps(fuel=1 << 40), sandbox_lane="package") as package:
        assert (await package.run("echo", '{"a":1}')).usage.fuel == found


async def test_fuel_that_is_not_counted_is_nothing(box):
    assert (await box.run("echo", '{"a":1}')).usage.fuel == 0
