"""Plugins that answer each other's events, on a whole platform: the chain ends, and others are served."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kernel.causation import MAX_HOPS
from kernel.events import Event
from tests.hostile.text import compiled, text
from tests.support.guests import guest
from tests.support.stage import Stage, make_home, until

REPLY = b"{}"


def _events(emits: str, *subscribes: str) -> dict[str, str]:
    listed = ", ".join(f'"{kind}"' for kind in subscribes)
    return {
        "hook": "event_received",
        "more": f"""
[capabilities.events]
why = "Emits what the tests look for."
emits = ["{emits}"]

[events]
subscribes = [{listed}]

[[events.declares]]
type = "{emits}"
summary = "An event of the tests."
""",
    }


@pytest.fixture
async def stage(tmp_path_factory: pytest.TempPathFactory, event_home: Path) -> AsyncIterator[Stage]:
    async with Stage(event_home) as running:
        yield running


@pytest.fixture
def event_home(tmp_path: Path) -> Path:
    return make_home(tmp_path / "home")


async def stored(stage: Stage, tenant: str, plugin: str) -> list[Event]:
    found: list[Event] = []
    while True:
        more = await stage.platform.events.read_stream(tenant, f"plugin:{plugin}", after=len(found), limit=500)
        found += more
        if not more:
            return found


async def test_two_plugins_that_trigger_each_other_come_to_an_end(stage: Stage) -> None:
    await stage.install(
        guest({}, emit=("ping.sent", {})), "acme/ping", **_events("ping.sent", "user.created", "pong.sent")
    )
    await stage.install(guest({}, emit=("pong.sent", {})), "acme/pong", **_events("pong.sent", "ping.sent"))
    for plugin in ("acme/ping", "acme/pong"):
        await stage.activate("acme", plugin)
    acme, globex = await stage.client("acme"), await stage.client("globex")
    await acme.ok("POST", "/api/v1/users", json={"email": "first@example.com", "name": "First"})

    async def ended() -> bool:
        return len(await acme.ok("GET", "/api/v1/dead-letters")) == 1

    await until(ended, 120)
    await stage.quiet()
    chain = await stored(stage, "acme", "acme/ping") + await stored(stage, "acme", "acme/pong")
    assert sorted(event.hops for event in chain) == list(range(1, MAX_HOPS + 2))
    (letter,) = await acme.ok("GET", "/api/v1/dead-letters")
    assert letter["attempts"] == 0
    assert "answer each other's events" in letter["error"]
    assert f"at most {MAX_HOPS} hops" in letter["error"]
    # The other tenant has neither the plugins nor their noise.
    await globex.ok("POST", "/api/v1/users", json={"email": "g@example.com", "name": "Other"})
    await stage.quiet()
    assert await globex.ok("GET", "/api/v1/dead-letters") == []
    assert await stored(stage, "globex", "acme/ping") == []


async def test_a_plugin_that_multiplies_its_own_events_comes_to_an_end_soon(stage: Stage) -> None:
    emit = "(call $events.emit (i32.const 1024) (i32.const 9) (i32.const 1033) (i32.const 2) (i32.const 128))"
    storm = compiled(
        text(
            f"{emit * 4} (call $answer (i32.const 1033) (i32.const 2))", uses=["events.emit"], data=b"ping.sent" + REPLY
        )
    )
    await stage.install(storm, "acme/storm", **_events("ping.sent", "user.created", "ping.sent"))
    await stage.activate("acme", "acme/storm")
    acme = await stage.client("acme")
    await acme.ok("POST", "/api/v1/users", json={"email": "first@example.com", "name": "First"})
    # Each event becomes four, three hops further: 4, 16, 64 and 256, of which the last are not handled.
    everything = 4 + 16 + 64 + 256

    async def ended() -> bool:
        return len(await stored(stage, "acme", "acme/storm")) == everything

    await until(ended, 240)
    await stage.quiet()
    chain = await stored(stage, "acme", "acme/storm")
    assert len(chain) == everything
    assert max(event.hops for event in chain) == 12
    assert len((await acme.ok("GET", "/api/v1/users"))["items"]) >= 1
