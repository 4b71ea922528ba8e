"""An event's journey to a sandboxed plugin: from the commit to a chat's webhook, or to the dead letters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.chat import Chat, running_chat
from tests.support.stage import Client, Stage, copied, make_home, until

NOTIFIER = "keelstone-examples/chat-notifier"


@pytest.fixture
async def acme_and_chat(tmp_path: Path) -> AsyncIterator[tuple[Stage, Client, Chat]]:
    """acme has the chat notifier on, and may reach the chat; globex has not."""
    home = copied(EXAMPLES_HOME[0], tmp_path / "home")
    with running_chat() as chat:
        async with Stage(home, http_private_allow=(chat.address,)) as stage:
            operator = await stage.client("platform")
            await operator.ok("POST", "/api/v1/plugins/install", json={"plugin": NOTIFIER})
            settings = {"webhook_url": f"http://{chat.address}/hook", "events": ["user.created", "user.updated"]}
            await stage.activate("acme", NOTIFIER, settings=settings)
            await stage.quiet()
            yield stage, await stage.client("acme"), chat


EXAMPLES_HOME: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def _examples_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    EXAMPLES_HOME[:] = [make_home(tmp_path_factory.mktemp("examples") / "home", examples=True)]


async def test_one_tenants_events_reach_its_chat_and_nobody_elses(
    acme_and_chat: tuple[Stage, Client, Chat],
) -> None:
    stage, acme, chat = acme_and_chat
    globex = await stage.client("globex")
    await globex.ok("POST", "/api/v1/users", json={"email": "g@example.com", "name": "Globex person"})
    await acme.ok("POST", "/api/v1/users", json={"email": "a@example.com", "name": "Acme person"})
    await stage.quiet()

    async def arrived() -> bool:
        return "Acme person (a@example.com) has registered." in chat.texts

    await until(arrived)
    assert not [text for text in chat.texts if "Globex" in text]
    assert chat.texts.count("Acme person (a@example.com) has registered.") == 1


async def test_a_failing_chat_parks_the_sequence_and_a_retry_releases_it_in_order(
    acme_and_chat: tuple[Stage, Client, Chat],
) -> None:
    stage, acme, chat = acme_and_chat
    chat.status = 503
    made = await acme.ok("POST", "/api/v1/users", json={"email": "b@example.com", "name": "Before"})
    await acme.ok("PATCH", f"/api/v1/users/{made['id']}", json={"name": "After"})

    async def parked() -> bool:
        return len(await acme.ok("GET", "/api/v1/dead-letters")) == 2

    await until(parked, 60)
    letters = await acme.ok("GET", "/api/v1/dead-letters")
    assert [x["event"]["type"] for x in letters] == ["user.created", "user.updated"]
    assert {x["consumer"] for x in letters} == {f"plugin:{NOTIFIER}"}
    assert letters[0]["attempts"] >= 1
    assert letters[1]["attempts"] == 0, "the later event of the sequence waits untried"
    assert chat.texts == []
    globex = await stage.client("globex")
    assert await globex.ok("GET", "/api/v1/dead-letters") == []
    await acme.ok("POST", "/api/v1/users", json={"email": "c@example.com", "name": "Meanwhile"})

    chat.status = 200
    sequence = {"consumer": f"plugin:{NOTIFIER}", "stream": f"user:{made['id']}"}

    # The plugin's breaker may still rest it for a moment.
    async def released() -> bool:
        answer = await acme.post("/api/v1/dead-letters/retry", json=sequence)
        return answer.status_code == 200

    await until(released, 60)
    mine = ["Before (b@example.com) has registered.", f"user.updated on user:{made['id']}"]
    assert [text for text in chat.texts if text in mine] == mine
    assert not [x for x in await acme.ok("GET", "/api/v1/dead-letters") if x["event"]["stream"] == f"user:{made['id']}"]


async def test_without_the_grant_nothing_leaves_the_platform(acme_and_chat: tuple[Stage, Client, Chat]) -> None:
    stage, acme, chat = acme_and_chat
    path = f"/api/v1/tenants/acme/activations/{NOTIFIER}/grants"
    await acme.ok("PUT", path, json={"http": False})
    await stage.quiet()
    chat.texts.clear()
    chat.tries = 0
    await acme.ok("POST", "/api/v1/users", json={"email": "d@example.com", "name": "Unseen"})

    async def dealt_with() -> bool:
        stored = await acme.ok("GET", "/api/v1/events", params={"type": "user.created", "newest_first": True})
        event = next(e for e in stored["items"] if e["data"]["email"] == "d@example.com")
        consumer = f"plugin:{NOTIFIER}"
        full = await stage.platform.events.read_stream("acme", event["stream"])
        return await stage.platform.database.consumers.state(consumer, full[0]) in ("handled", "parked")

    await until(dealt_with, 60)
    assert chat.tries == 0
