"""Nothing of one tenant ever reaches another, and nothing of one call the next, however a guest tries."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel.errors import GuestFailure
from kernel.manifest import PluginManifest
from tests.hostile.conftest import Opener
from tests.hostile.corpus import manifest_of
from tests.hostile.door import Door, open_door, shape_of
from tests.hostile.probes import spy
from tests.hostile.text import compiled

TENANTS = ("acme", "globex", "initech")
LIMITS = {"time_ms": 100, "memory_mb": 16}

steps = st.lists(
    st.tuples(st.sampled_from(TENANTS), st.sampled_from(["call", "call", "call", "save", "crash", "hang"])),
    min_size=1,
    max_size=14,
)


@dataclass
class Expected:
    """What one tenant's next call may find."""

    memory: str = ""
    calls: int = 0
    saved: str = ""
    marks: set[str] = field(default_factory=set)

    def begun_anew(self) -> None:
        self.memory, self.calls = "", 0

    def report(self, tenant: str) -> str:
        first = self.memory[:8]
        return f'{self.memory}|{first}|{1 + self.calls}|{2 + self.calls}|{self.saved}|"secret of {tenant}"|'


async def play(door: Door, manifest: PluginManifest, script: list[tuple[str, str]]) -> None:
    """Let tenants use the spy in this order; every report must be what a model of it says, no more."""
    component = compiled(spy())
    live = manifest.isolation == "tenant"
    known = {tenant: Expected() for tenant in TENANTS}
    for tenant in TENANTS:
        await door.save(tenant, manifest.id, await door.run(component, "begin---", manifest=manifest, tenant=tenant))
        known[tenant].saved = "begin---"
        if live:
            known[tenant].memory, known[tenant].calls = "begin---", 1
    for number, (tenant, what) in enumerate(script):
        mine = known[tenant]
        mark = {"crash": "!", "hang": "?"}.get(what, "=") + f"{tenant}-{number}-left"
        options = {"manifest": manifest, "tenant": tenant, "settings": {"secret": f"secret of {tenant}"}}
        if live and mine.calls and not mine.marks:
            # The first call had no settings: an instance that knew others is begun anew.
            mine.begun_anew()
        mine.marks.add(mark)
        if what in ("crash", "hang"):
            with pytest.raises(GuestFailure) as caught:
                await door.run(component, mark, **options)  # type: ignore[arg-type]
            assert caught.value.code == ("guest-trap" if what == "crash" else "guest-time-limit")
            mine.begun_anew()
            continue
        result = await door.run(component, mark, **options)  # type: ignore[arg-type]
        assert result.output == mine.report(tenant)
        if live:
            mine.memory, mine.calls = mark, mine.calls + 1
        if what == "save":
            await door.save(tenant, manifest.id, result)
            mine.saved = mark
    for tenant, line in door.logs:
        assert line.message in known[tenant].marks | {"begin---"}


@pytest.mark.parametrize("lane", ["auto", "package", "apart"])
@pytest.mark.parametrize("isolation", ["call", "tenant"])
def test_a_guest_finds_what_is_its_tenants_and_nothing_else(
    hostile_home: Path, migrated: Path, tmp_path: Path, lane: str, isolation: str
) -> None:
    manifest = manifest_of("acme/spy", isolation=isolation, limits=LIMITS)
    runs = iter(range(1_000))

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(script=steps)
    def all_scripts(script: list[tuple[str, str]]) -> None:
        async def one() -> None:
            scratch = tmp_path / str(next(runs))
            scratch.mkdir()
            async with open_door(hostile_home, migrated, scratch, **shape_of(lane)) as door:
                await play(door, manifest, script)

        asyncio.run(one())

    all_scripts()


@pytest.mark.parametrize("isolation", ["call", "tenant"])
async def test_tenants_calling_at_once_never_see_each_other(doors: Opener, isolation: str) -> None:
    manifest = manifest_of("acme/spy", isolation=isolation, limits={"time_ms": 20_000, "concurrency": 64})
    component = compiled(spy())
    async with doors(sandbox_threads=4, sandbox_slots=32) as door:
        await door.run(component, "begin---", manifest=manifest)

        async def call(tenant: str, number: int) -> tuple[str, str]:
            result = await door.run(
                component,
                f"={tenant}-{number:03}",
                manifest=manifest,
                tenant=tenant,
                settings={"secret": f"secret of {tenant}"},
            )
            return tenant, result.output

        for start in range(0, 240, 24):
            found = await asyncio.gather(*(call(TENANTS[n % 3], n) for n in range(start, start + 24)))
            for tenant, report in found:
                others = [other for other in TENANTS if other != tenant and other in report]
                assert others == [], report
                assert f"secret of {tenant}" in report
        assert all(tenant in line.message or line.message == "begin---" for tenant, line in door.logs)


async def test_two_plugins_of_one_tenant_do_not_share_keys(door: Door) -> None:
    component = compiled(spy())
    one, other = manifest_of("acme/spy"), manifest_of("acme/other-spy")
    await door.save("acme", one.id, await door.run(component, "=first--", manifest=one))
    assert "first" not in (await door.run(component, "=second-", manifest=other)).output
    assert "first" in (await door.run(component, "=third--", manifest=one)).output


async def test_a_plugin_whose_id_begins_like_anothers_does_not_see_its_keys(door: Door) -> None:
    component = compiled(spy())
    for plugin in ("acme/sp", "acme/spy", "acme/spy-two"):
        manifest = manifest_of(plugin)
        report = (await door.run(component, f"={plugin}", manifest=manifest)).output
        await door.save("acme", plugin, await door.run(component, f"={plugin}", manifest=manifest))
        assert "=acme" not in report


async def test_without_its_grants_a_guest_learns_nothing(door: Door) -> None:
    component, manifest = compiled(spy()), manifest_of("acme/spy")
    await door.save("acme", manifest.id, await door.run(component, "=before-", manifest=manifest))
    result = await door.run(
        component, "=after--", manifest=manifest, grants=frozenset(), settings={"secret": "secret of acme"}
    )
    assert result.output == "||1|2|||"
    assert not result.effects


async def test_a_live_instance_forgets_what_it_knew_when_a_grant_goes(door: Door) -> None:
    component, manifest = compiled(spy()), manifest_of("acme/spy", isolation="tenant", limits={"time_ms": 20_000})
    options = {"manifest": manifest, "settings": {"secret": "secret of acme"}}
    await door.run(component, "=before-", **options)  # type: ignore[arg-type]
    assert "=before-" in (await door.run(component, "=again--", **options)).output  # type: ignore[arg-type]
    result = await door.run(component, "=after--", grants=frozenset({"log"}), **options)  # type: ignore[arg-type]
    assert result.output == "||1|2|||"
