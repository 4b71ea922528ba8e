"""Two platform processes on one PostgreSQL and one bus: activations seen, work shared, nothing twice."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.services import Server
from tests.support.chat import running_chat
from tests.support.served import Served, serve

pytestmark = pytest.mark.connected
GUARD, NOTIFIER = "keelstone-examples/email-guard", "keelstone-examples/chat-notifier"
PEOPLE = 40


def _until(check: Callable[[], bool], seconds: float = 30) -> float:
    began = time.monotonic()
    while not check():
        assert time.monotonic() - began < seconds, "it did not come about in time"
        time.sleep(0.02)
    return time.monotonic() - began


def _generation(served: Served) -> str:
    return str(httpx.get(f"{served.url}/readyz", timeout=10).json()["generation"])


def _observed(served: Served) -> int:
    text = httpx.get(f"{served.url}/metrics", timeout=10).text
    lines = [x for x in text.splitlines() if x.startswith("keelstone_hook_seconds_count{") and "event_received" in x]
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines))


@pytest.fixture(params=["redis", "kafka"])
def bus_url(request: pytest.FixtureRequest) -> str:
    server: Server = request.getfixturevalue(request.param)
    if request.param == "redis":
        return f"{server.url}?prefix=two-{secrets.token_hex(4)}&partitions=8"
    idempotent = "" if server.idempotent else "&idempotent=false"
    return f"{server.url}?topic=two-{secrets.token_hex(4)}&partitions=8{idempotent}"


def test_two_processes_see_each_others_activations_and_share_the_work(
    tmp_path: Path, database_url: str, bus_url: str
) -> None:
    with running_chat() as chat:
        address = chat.address
        shared = {
            "KEELSTONE_DATABASE_URL": database_url,
            "KEELSTONE_BUS_URL": bus_url,
            "KEELSTONE_MASTER_KEY": base64.b64encode(secrets.token_bytes(32)).decode(),
            "KEELSTONE_BLOB_URL": f"file://{tmp_path / 'blobs'}",
            "KEELSTONE_HTTP_PRIVATE_ALLOW": address,
        }
        with serve(tmp_path / "one", **shared) as one, serve(tmp_path / "two", seed=False, **shared) as two:
            token = one.token("acme")
            for plugin in (GUARD, NOTIFIER):
                one.cli("marketplace", "install", plugin)

            # What is switched on at one is on at two; how long that took is printed, not asserted.
            one.cli("tenant", "enable", "acme", GUARD, "--grant", "all")
            took = _until(lambda: _generation(two) == _generation(one))
            print(f"\nactivation seen by the other process {took:.2f} s after the command ended")
            with two.client("acme", token) as acme:
                refused = acme.post("/api/v1/users", json={"email": "a@mailinator.com", "name": "A"})
                assert (refused.status_code, refused.json()["code"]) == (422, "rejected")

            setting = f"webhook_url=http://{address}/hook"
            one.cli("tenant", "enable", "acme", NOTIFIER, "--grant", "all", "--set", setting)
            _until(lambda: _generation(two) == _generation(one))
            with one.client("acme", token) as left, two.client("acme", token) as right:
                for number in range(PEOPLE):
                    client = left if number % 2 else right
                    body = {"email": f"p{number}@example.com", "name": f"Person {number}"}
                    answer = client.post("/api/v1/users", json=body)
                    assert answer.status_code == 201, answer.text

                expected = {f"Person {n} (p{n}@example.com) has registered." for n in range(PEOPLE)}
                _until(lambda: expected <= set(chat.texts))
                _until(lambda: right.get("/api/v1/tenants/acme/overview").json()["users"] == PEOPLE + 1)
                posted = [text for text in chat.texts if text in expected]
                assert len(posted) == PEOPLE, "an event was posted twice"
                shares = (_observed(one), _observed(two))
                assert min(shares) > 0, f"only one process worked: {shares}"
                assert left.get("/api/v1/dead-letters").json() == []
            assert urlsplit(one.url).port != urlsplit(two.url).port
