"""What authors' tests stand on: two hosts, time and chance, chaos, HTTP that is recorded, any allowed host."""

import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pytest_asyncio

import plugin_sdk
from kernel.errors import KeelstoneError
from plugin_sdk.testing import Chaos, FakeWeb, Guest
from plugin_sdk.testing.chaos import ChaosMisspelt
from plugin_sdk.testing.guest import GuestHost
from plugin_sdk.toolchain import Toolchains, build_plugin
from tests.support.absent import toolchains_at_hand

EXAMPLES = Path(plugin_sdk.__file__).parent / "examples"
ANN = {"user": "u1", "email": "ann@example.com", "name": "Ann"}
MANIFEST = """
manifest = 1
id = "acme/teller"
version = "1.0.0"
name = "Teller"
summary = "Tells the time and draws numbers, for tests."
license = "MIT"

[requires]
kernel = "^1.1"

[hooks.user_creating]

[capabilities.kv]
why = "Counts what it was asked."

[capabilities.clock]
why = "Tells the time."

[capabilities.random]
why = "Draws numbers."

[capabilities.http]
why = "Asks a service about the person."
hosts = ["api.example.com"]
methods = ["POST"]

[limits]
time_ms = 2000
memory_mb = 64

[build]
language = "python"
source = "guest/plugin.py"
"""
SOURCE = """
import random
import time
from datetime import UTC, datetime

from keelstone_guest import HostError, Reject, UserDraft, clock, hook, http, kv
from keelstone_guest import random as chance

seen = 0


@hook("user_creating")
def tell(draft: UserDraft) -> UserDraft:
    global seen
    seen += 1
    if draft.name == "ask":
        answer = http.post("https://api.example.com/people", json={"email": draft.email})
        return draft.replace(attributes={"status": answer.status, "body": answer.body})
    try:
        count = int(kv.get("count") or 0) + 1
    except HostError as error:
        raise Reject(error.code) from None
    kv.set("count", str(count))
    told = {
        "iso": datetime.now(UTC).isoformat(),
        "seconds": int(time.time()),
        "drawn": [random.randrange(1000) for _ in range(3)],
        "asked": [clock.now().isoformat(), clock.monotonic(), chance.hex(4), str(chance.number())],
        "count": count,
        "seen": seen,
    }
    return draft.replace(attributes=told)
"""


@pytest.fixture(scope="module")
def teller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python guest, built if there is a compiler."""
    folder = tmp_path_factory.mktemp("teller")
    (folder / "guest").mkdir()
    (folder / "plugin.toml").write_text(MANIFEST)
    (folder / "guest" / "plugin.py").write_text(SOURCE)
    return folder


@pytest_asyncio.fixture(params=["memory", pytest.param("sandbox", marks=pytest.mark.toolchain)])
async def guest(teller: Path, request: pytest.FixtureRequest) -> AsyncIterator[Guest]:
    host: GuestHost = request.param
    if host == "sandbox":
        with toolchains_at_hand():
            build_plugin(teller, Toolchains())
    async with Guest(teller, host=host) as made:
        yield made


async def told(guest: Guest, name: str = "Ann") -> dict[str, Any]:
    answer = await guest.filter("user_creating", {"email": "ann@example.com", "name": name})
    assert answer.rejected is None
    found: dict[str, Any] = answer.payload["attributes"]
    return found


async def test_the_clock_stands_where_it_is_set_and_goes_on_when_told(guest: Guest) -> None:
    guest.clock.set("2031-05-06T07:08:09+00:00")
    first = await told(guest)
    guest.clock.advance(60)
    second = await told(guest)
    assert first["iso"].startswith("2031-05-06T07:08:09")
    assert second["seconds"] - first["seconds"] == 60
    guest.clock.run()
    assert (await told(guest))["seconds"] != second["seconds"]


async def test_the_same_seed_draws_the_same_numbers_on_either_host(guest: Guest) -> None:
    guest.random.seed(7)
    first = (await told(guest))["drawn"]
    guest.random.seed(7)
    assert (await told(guest))["drawn"] == first
    guest.random.seed(8)
    assert (await told(guest))["drawn"] != first


async def test_what_the_guest_asks_for_by_its_capabilities_is_the_same_on_either_host(guest: Guest) -> None:
    guest.clock.set("2031-05-06T07:08:09")
    guest.random.seed(7)
    guest.clock.advance(2)
    drawn = Random("7, asked")
    expected = [drawn.randbytes(4).hex(), str(int.from_bytes(drawn.randbytes(8), "little"))]
    assert (await told(guest))["asked"] == ["2031-05-06T07:08:11+00:00", 3_000_000_000, *expected]


async def test_state_is_saved_between_calls_and_modules_are_not(guest: Guest) -> None:
    await told(guest)
    again = await told(guest)
    assert again["count"] == 2
    assert again["seen"] == 1
    assert guest.stored == {"count": "2"}


async def test_denied_and_failing_host_calls_reach_the_guest_as_codes(guest: Guest) -> None:
    guest.chaos("deny kv")
    assert (await guest.filter("user_creating", {"email": "a@b.example", "name": "A"})).rejected == "not-granted"
    guest.calm()
    chaos = guest.chaos("fail kv.get deadline", times=1)
    assert (await guest.filter("user_creating", {"email": "a@b.example", "name": "A"})).rejected == "deadline"
    assert (await told(guest))["count"] == 1
    assert chaos.struck == 1


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("trap at kv.set", "guest-trap"),
        ("timeout at kv.set", "guest-time-limit"),
        ("out of memory", "guest-memory-limit"),
    ],
)
async def test_a_call_that_ends_in_the_middle_saves_nothing(guest: Guest, rule: str, code: str) -> None:
    await told(guest)
    guest.chaos(rule, times=1)
    with pytest.raises(KeelstoneError) as ended:
        await told(guest)
    assert ended.value.code == code
    assert guest.stored == {"count": "1"}
    assert (await told(guest))["count"] == 2


async def test_a_slow_host_is_waited_for(guest: Guest) -> None:
    chaos = guest.chaos("slow kv.get 0.05")
    assert (await told(guest))["count"] == 1
    assert chaos.struck == 1


async def test_a_host_named_in_the_manifest_is_the_tests_own_server(guest: Guest) -> None:
    guest.web.answer(418, "short and stout")
    assert await told(guest, "ask") == {"status": 418, "body": "short and stout"}
    (request,) = guest.web.requests
    assert (request.method, request.path, request.headers["host"]) == ("POST", "/people", "api.example.com")
    assert request.json() == {"email": "ann@example.com"}


async def test_http_is_recorded_once_and_answered_from_the_file_ever_after(guest: Guest, tmp_path: Path) -> None:
    real = FakeWeb()
    real.answer(201, '{"id": 7}', {"content-type": "application/json"})
    file = tmp_path / "people.json"
    guest.web.record(file, upstream=real.url)
    first = await told(guest, "ask")
    real.close()
    guest.web.record(file)
    assert await told(guest, "ask") == first == {"status": 201, "body": '{"id": 7}'}
    assert len(real.requests) == 1
    (entry,) = json.loads(file.read_text())
    assert entry["request"]["host"] == "api.example.com"
    assert "headers" not in entry["request"]


async def test_a_request_that_was_not_recorded_fails_the_test(guest: Guest, tmp_path: Path) -> None:
    file = tmp_path / "people.json"
    file.write_text("[]")
    guest.web.record(file)
    assert (await told(guest, "ask"))["status"] == 502
    await guest.close()
    with pytest.raises(AssertionError, match=r"POST api\.example\.com/people"):
        guest.check_recorded()


@pytest.mark.parametrize("rule", ["", "deny", "break kv", "slow kv soon", "trap kv.set"])
def test_a_misspelt_rule_is_refused(rule: str) -> None:
    with pytest.raises(ChaosMisspelt):
        Chaos(rule)


async def test_a_component_in_another_language_meets_the_same_chaos(tmp_path: Path) -> None:
    folder = tmp_path / "chat-notifier"
    shutil.copytree(EXAMPLES / "chat-notifier", folder, ignore=shutil.ignore_patterns("sandbox", "__pycache__"))
    async with Guest(folder) as guest:
        guest.settings = {"webhook_url": guest.web.url + "hook"}
        guest.chaos("trap at http.send", times=1)
        with pytest.raises(KeelstoneError) as ended:
            await guest.observe("user.created", ANN)
        assert ended.value.code == "guest-trap"
        assert guest.stored == {}
        await guest.observe("user.created", ANN)
        assert len(guest.web.requests) == 1


def test_a_plugins_tests_run_on_each_host_when_they_ask_for_it(teller: Path) -> None:
    tests = teller / "tests"
    tests.mkdir(exist_ok=True)
    (tests / "conftest.py").write_text(
        "from plugin_sdk.testing.fixtures import guest, guest_runner, pytest_generate_tests, pytest_pyfunc_call\n"
    )
    (tests / "test_teller.py").write_text(
        "async def test_it_counts(guest):\n"
        "    await guest.filter('user_creating', {'email': 'a@b.example', 'name': 'A'})\n"
        "    assert guest.stored == {'count': '1'}\n"
    )
    command = [sys.executable, "-m", "api.cli", "plugin", "test", str(teller), "--host", "memory", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    report = json.loads(done.stdout)
    assert report["passed"], done.stdout
    assert report["tests"]["passed"] == 1
