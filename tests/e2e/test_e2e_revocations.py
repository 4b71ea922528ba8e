"""The marketplace ends a release: where it runs it is quarantined by itself, and nobody gets it any more."""

from __future__ import annotations

import pytest

from tests.support.guests import guest
from tests.support.stage import Stage, until

pytestmark = pytest.mark.asyncio(loop_scope="module")
PLUGIN = "ended/guard"


async def test_a_revoked_release_stops_within_seconds_and_cannot_be_let_back_in(stage: Stage):
    operator, acme = await stage.client("platform"), await stage.client("acme")
    await stage.install(guest({"payload": {"email": "x@end.example", "name": "Renamed"}}), PLUGIN, "1.0.0")
    await stage.activate("acme", PLUGIN)
    registry = stage.platform.registry
    assert registry is not None
    revoked = await registry.revoke(PLUGIN, "1.0.0", "It sends secrets out.")

    async def quarantined() -> bool:
        found = await operator.ok("GET", "/api/v1/plugins")
        return [p["state"] for p in found if p["id"] == PLUGIN] == ["quarantined"]

    await until(quarantined)
    found = await operator.ok("GET", "/api/v1/events", params={"type": "plugin.quarantined", "limit": 10})
    assert found["items"][-1]["data"]["reason"] == "revoked by the marketplace: It sends secrets out."

    async def reported() -> bool:
        return len(registry.reader.revocations.reach(revoked.digest)[1]) == 1

    await until(reported)
    (reached,) = registry.reader.revocations.reach(revoked.digest)[1]
    assert reached.host.startswith("platform-")
    assert reached.installed
    await operator.problem(409, "POST", f"/api/v1/plugins/{PLUGIN}/release", json={"version": "1.0.0"})
    assert await quarantined(), "what could not be let back in stays where it was"
    user = await acme.post("/api/v1/users", json={"email": "y@end.example", "name": "Ada"})
    assert user.status_code == 503, "its hook is asked for, and a guard that does not answer is no yes"
