"""An upgrade on trial over two platform processes: seen by both, judged by what both measured."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

import pytest

from api.seed import ensure_operator, seed
from tests.services import Server
from tests.support.guests import guest, text_guest
from tests.support.stage import Stage, until

pytestmark = pytest.mark.connected
PLUGIN = "shared/guard"


async def test_a_canary_is_judged_by_what_all_processes_measured(
    tmp_path: Path, database_url: str, redis: Server
) -> None:
    shared = {
        "database_url": database_url,
        "bus_url": f"{redis.url}?prefix=up-{secrets.token_hex(4)}&partitions=8",
        "blob_url": f"file://{tmp_path / 'blobs'}",
    }
    async with Stage(tmp_path / "one", **shared) as one:
        await ensure_operator(one.platform)
        registry, one.platform.registry = one.platform.registry, None
        await seed(one.platform)
        one.platform.registry = registry
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        async with Stage(tmp_path / "two", **shared) as two:
            await one.install(guest({"payload": {"email": "x@up.example", "name": "Old"}}), PLUGIN, "1.0.0")
            await one.activate("acme", PLUGIN)
            await one.publish(text_guest("trap"), PLUGIN, "2.0.0")
            operator = await one.client("platform")
            before = one.platform.activations.current.generation
            body = {"plugin": PLUGIN, "version": "2.0.0", "tenants": 100, "thresholds": {"min_calls": 6}}
            started = await operator.ok("POST", "/api/v1/upgrades", json=body)

            async def same() -> bool:
                here, there = (s.platform.activations.current.generation for s in (one, two))
                return here == there

            await until(same)
            # Three failures each open no breaker: only the sum of both is cause enough.
            for number in range(6):
                client = await (one, two)[number % 2].client("acme")
                who = {"email": f"p{number}@up.example", "name": "Ada"}
                assert (await client.post("/api/v1/users", json=who)).status_code == 503

            async def back() -> bool:
                found = await operator.ok("GET", f"/api/v1/upgrades/{started['id']}")
                return found["state"] == "rolled_back"

            await until(back)
            found = await operator.ok("GET", f"/api/v1/upgrades/{started['id']}")
            assert found["reason"].startswith("6 of 6 calls of the new version failed")

            async def as_before() -> bool:
                return {s.platform.activations.current.generation for s in (one, two)} == {before}

            await until(as_before)
            for stage in (one, two):
                client = await stage.client("acme")
                user = await client.ok("POST", "/api/v1/users", json={"email": "q@up.example", "name": "Ada"})
                assert user["name"] == "Old"
                await client.ok("DELETE", f"/api/v1/users/{user['id']}")
