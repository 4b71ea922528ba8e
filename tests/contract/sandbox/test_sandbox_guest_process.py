"""Guests that nobody knows yet run in a process of their own, and what comes from there is not believed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kernel.context import Context
from kernel.events import NewEvent
from kernel.ports import Effects, GuestCall, GuestResult, GuestUsage, KvValue, SecretSource
from kernel.settings import Settings
from sandbox import errors, open_runtime
from sandbox.guest_process import keeper, link, wire
from sandbox.guest_process.keeper import GuestProcess
from sandbox.guest_process.link import Link, Ran, check_result
from sandbox.hostcalls import HostServices
from sandbox.outgoing import EgressRefused, EgressRequest, EgressResponse
from sandbox.placement import LEAST_CALLS
from sandbox.policy import STRANGERS_PACE, effective_limits
from tests.contract.sandbox.conftest import ALL, MemoryKv, Sandbox, manifest

pytestmark = pytest.mark.lanes("apart")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The components' calls that ran in the guest process, by hook."""
    seen: list[str] = []
    run = GuestProcess.run

    async def spy(self: GuestProcess, call: GuestCall, *arguments: Any) -> Ran:
        seen.append(call.hook)
        return await run(self, call, *arguments)

    monkeypatch.setattr(GuestProcess, "run", spy)
    return seen


def link_of(box: Sandbox) -> Link:
    process = box.runtime._process
    assert process is not None
    assert process._link is not None
    return process._link


def pid_of(box: Sandbox) -> int:
    return link_of(box)._process.pid


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A child that nobody has waited for yet is still there, dead.
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


async def until(true: Any) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110 (nobody tells when a process is gone)
            await asyncio.sleep(0.01)


async def test_a_guest_runs_apart_until_it_is_known(box: Any, ran: list[str]) -> None:
    for _ in range(LEAST_CALLS + 5):
        assert (await box.run("echo", '{"a":1}')).output == '{"a":1}'
    assert len(ran) == LEAST_CALLS


async def test_a_guest_that_is_known_and_floods_the_host_is_sent_back(
    box: Any, ran: list[str], make_manifest: Any
) -> None:
    greedy = make_manifest(limits={"host_calls": 2, "time_ms": 5_000})
    for _ in range(LEAST_CALLS):
        await box.run("host", "cgreeting", manifest=greedy)
    before = len(ran)
    with pytest.raises(errors.GuestHostCallLimit):
        await box.run("host", "Lagain", manifest=greedy)
    await box.run("host", "cgreeting", manifest=greedy)
    assert len(ran) > before


async def test_a_process_that_is_gone_ends_its_calls_and_another_is_started(
    box: Any, make_manifest: Any, caplog: pytest.LogCaptureFixture
) -> None:
    await box.run("echo")
    first = pid_of(box)
    looping = asyncio.create_task(box.run("loop", manifest=make_manifest(limits={"time_ms": 20_000})))
    await until(lambda: link_of(box).busy)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(errors.GuestProcessEnded) as caught:
        await looping
    assert caught.value.hook == "user_creating"
    assert "and with it the calls of acme/guest" in caplog.text
    assert (await box.run("echo", '{"b":2}')).output == '{"b":2}'
    assert pid_of(box) != first


async def test_a_guest_with_which_the_process_ended_stays_apart_though_it_is_known(box: Any, ran: list[str]) -> None:
    reached, answer = asyncio.Event(), box.kv.get

    async def never(*_: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    box.kv.get = never
    waiting = asyncio.create_task(box.run("host", "gname"))
    await reached.wait()
    os.kill(pid_of(box), signal.SIGKILL)
    with pytest.raises(errors.GuestProcessEnded):
        await waiting
    box.kv.get = answer
    for _ in range(LEAST_CALLS + 5):
        await box.run("host", "cgreeting")
    assert len(ran) == 1 + LEAST_CALLS + 5


async def test_a_process_that_does_not_answer_is_ended(box: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await box.run("echo")
    pid = pid_of(box)
    monkeypatch.setattr(link, "MOST_GIVEN", 0.0)
    monkeypatch.setattr(link, "SILENT_SECONDS", 0.1)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(errors.GuestProcessEnded):
        await box.run("echo")
    await until(lambda: gone(pid))


async def test_calls_that_wait_for_a_thread_do_not_make_it_look_dead(
    opened: Any, make_manifest: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "MOST_GIVEN", 0.0)
    monkeypatch.setattr(link, "SILENT_SECONDS", 2.0)
    many = make_manifest(limits={"time_ms": 300, "concurrency": 16})
    async with opened(sandbox_threads=1) as box:
        await box.run("echo")
        pid = pid_of(box)
        found = await asyncio.gather(*(box.run("loop", manifest=many) for _ in range(10)), return_exceptions=True)
        assert [type(each) for each in found] == [errors.GuestTimeLimit] * 10
        assert pid_of(box) == pid


async def test_a_call_that_is_given_up_ends_in_there_too(box: Any, make_manifest: Any) -> None:
    await box.run("echo")
    looping = asyncio.create_task(box.run("loop", manifest=make_manifest(limits={"time_ms": 2_000})))
    await until(lambda: link_of(box).busy)
    looping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looping
    await until(lambda: not link_of(box).busy)
    assert (await box.run("echo", '{"c":3}')).output == '{"c":3}'


async def test_a_process_that_nobody_needs_is_ended_and_started_again(
    box: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "IDLE_SECONDS", 0.05)
    await box.run("echo")
    await until(lambda: box.runtime._process._link is None)
    assert (await box.run("echo", '{"d":4}')).output == '{"d":4}'


async def test_a_process_that_cannot_be_started_says_what_to_do_and_is_tried_again(
    box: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(errors.SandboxError, match="could not be started") as caught:
        await box.run("echo")
    assert "KEELSTONE_SANDBOX_GUEST_PROCESS" in str(caught.value.fix)
    monkeypatch.undo()
    assert (await box.run("echo", '{"e":5}')).output == '{"e":5}'


async def test_nothing_of_the_platforms_environment_is_in_there(opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEELSTONE_TEST_SECRET", "hunter2")
    async with opened() as box:
        await box.run("echo")
        found = await asyncio.to_thread(Path(f"/proc/{pid_of(box)}/environ").read_text)
    assert "hunter2" not in found
    assert {line.partition("=")[0] for line in found.split("\0") if line} == {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}


_KILLED = """
import asyncio, sys
from pathlib import Path
from kernel.settings import Settings
from sandbox import open_runtime
from tests.contract.sandbox.conftest import Sandbox

async def main() -> None:
    runtime = open_runtime(Settings(home=Path(sys.argv[1])))
    box = Sandbox(runtime, None, [])
    await box.run("echo")
    print(runtime._process._link._process.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_it_does_not_outlive_the_platform(home: Path) -> None:
    root = str(Path(__file__).parents[3])
    platform = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(home)], cwd=root, env=os.environ | {"PYTHONPATH": root},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert platform.stdout is not None
        pid = int(platform.stdout.readline())
        assert not gone(pid)
    finally:
        platform.kill()
        platform.wait()
        platform.stdout.close()
    end = time.monotonic() + 30
    while not gone(pid):
        assert time.monotonic() < end, "it is still there"
        time.sleep(0.05)


async def test_a_runtime_that_is_closed_has_no_process(opened: Any) -> None:
    async with opened() as box:
        await box.run("echo")
        pid = pid_of(box)
    assert gone(pid)
    with pytest.raises(errors.GuestCancelled, match="shutting down"):
        await box.runtime._process.run(None, None, None)


def test_tests_with_clocks_and_chance_of_their_own_stay_inside(home: Path) -> None:
    usual = open_runtime(Settings(home=home))
    odd = [open_runtime(Settings(home=home), now=lambda: 0), open_runtime(Settings(home=home), random=bytes)]
    off = open_runtime(Settings(home=home, sandbox_guest_process=False))
    assert usual._process is not None  # type: ignore[attr-defined]
    assert [runtime._process for runtime in (*odd, off)] == [None] * 3  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------- a process that lies


class _Stdin:
    """Collects what the platform says to the process."""

    def __init__(self) -> None:
        self.said: list[wire.Downward] = []

    def write(self, data: bytes) -> None:
        self.said.append(wire.DOWNWARD.validate_json(data[4:]))

    def close(self) -> None:
        pass


class _Impostor:
    """A process that says whatever a test wants."""

    pid = 0

    def __init__(self) -> None:
        self.stdin, self.stdout = _Stdin(), asyncio.StreamReader()
        self.returncode: int | None = None
        self._killed = asyncio.Event()

    def says(self, message: wire.Upward) -> None:
        self.stdout.feed_data(wire.frame(message))

    def kill(self) -> None:
        self.returncode = -9
        self._killed.set()
        self.stdout.feed_eof()

    async def wait(self) -> int:
        await self._killed.wait()
        return -9


@pytest.fixture
async def impostor(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(link, "END_SECONDS", 0.01)
    return _Impostor()


class _Secrets:
    async def secrets(self, tenant: str, plugin: str) -> dict[str, str]:
        return {"token": f"secret of {tenant}"}


def _call(grants: frozenset[str] = ALL, tenant: str = "acme") -> GuestCall:
    asked = manifest()
    return GuestCall(asked.id, asked.version, "0" * 64, asked, "user_creating", "{}", Context(tenant), grants)


async def _begin(impostor: _Impostor, call: GuestCall, services: HostServices) -> tuple[Link, asyncio.Task[Any], int]:
    link = Link(impostor, services)  # type: ignore[arg-type]
    link._reading = asyncio.create_task(link._read())
    limits = effective_limits(call.manifest.limits, Settings())
    task = asyncio.create_task(link.run(1, call, limits, STRANGERS_PACE))
    await until(lambda: link.busy)
    return link, task, 1


async def _told(impostor: _Impostor) -> wire.Told:
    def answers() -> list[wire.Told]:
        return [said for said in impostor.stdin.said if isinstance(said, wire.Told)]

    await until(answers)
    return answers()[-1]


_USAGE = GuestUsage(1, 1, 0, 0)


async def test_what_json_cannot_say_fails_its_own_call_alone(box: Any) -> None:
    with pytest.raises(errors.SandboxError, match="cannot be told"):
        await box.run("echo", "\ud800")
    assert (await box.run("echo", "{}")).output == "{}"


async def test_a_process_that_ended_before_a_call_came_ends_that_too(impostor: Any) -> None:
    link, first, _ = await _begin(impostor, _call(), HostServices())
    impostor.stdout.feed_eof()
    await first
    call = _call()
    ran = await link.run(2, call, effective_limits(call.manifest.limits, Settings()), STRANGERS_PACE)
    assert isinstance(ran.answer, errors.GuestProcessEnded)
    await link.close()


async def test_an_answer_to_no_call_is_dropped(impostor: Any) -> None:
    link, task, number = await _begin(impostor, _call(), HostServices())
    impostor.says(wire.Done(number + 1, GuestResult("mine", Effects(), _USAGE)))
    impostor.says(wire.Done(number, GuestResult("{}", Effects(), _USAGE)))
    assert (await task).answer.output == "{}"
    # A second answer to a call that has ended is nobody's either.
    impostor.says(wire.Done(number, GuestResult("again", Effects(), _USAGE)))
    await link.close()


@pytest.mark.parametrize(
    "effects",
    [
        Effects(kv_writes={"key": "value"}),
        Effects(kv_reads={"key": 1}),
        Effects(kv_ttl={"key": 1}),
    ],
)
async def test_effects_that_were_not_granted_are_no_answer(impostor: Any, effects: Effects) -> None:
    link, task, number = await _begin(impostor, _call(grants=frozenset()), HostServices())
    impostor.says(wire.Done(number, GuestResult("{}", effects, _USAGE)))
    ran = await task
    assert isinstance(ran.answer, errors.GuestProcessEnded)
    assert ran.ended
    assert link.ended
    await link.close()


async def test_events_that_the_manifest_does_not_name_are_no_answer(impostor: Any) -> None:
    link, task, number = await _begin(impostor, _call(), HostServices())
    impostor.says(wire.Done(number, GuestResult("{}", Effects(events=[NewEvent("users.deleted", {})]), _USAGE)))
    assert isinstance((await task).answer, errors.GuestProcessEnded)
    await link.close()


@pytest.mark.parametrize(
    "effects",
    [Effects(kv_writes={"key": "v" * (64 << 20)}), Effects(events=[NewEvent("lead.scored", {"score": 1})] * 10_000)],
    ids=["state", "events"],
)
async def test_no_more_is_left_than_the_call_may_leave(impostor: Any, effects: Effects) -> None:
    call = _call()
    link, task, _ = await _begin(impostor, call, HostServices())
    # What arrives is checked like this; a frame of such a size would be refused before.
    (entry,) = link._under_way.values()
    with pytest.raises(wire.Garbled, match="more events or state"):
        check_result(GuestResult("{}", effects, _USAGE), entry)
    task.cancel()
    await link.close()


@pytest.mark.parametrize("said", [b"\x00\x00\x00\x02{}", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x04nope"])
async def test_what_is_no_message_ends_the_process(impostor: Any, said: bytes) -> None:
    link, task, _ = await _begin(impostor, _call(), HostServices())
    impostor.stdout.feed_data(said)
    assert isinstance((await task).answer, errors.GuestProcessEnded)
    await link.close()
    assert impostor.returncode == -9


@pytest.mark.parametrize(
    "wanted",
    [
        wire.KvGet(("key",)),
        wire.KvList("", 10),
        wire.KvUsage(),
        wire.Secrets(),
        wire.Send("GET", "https://api.example.com/", (), "", (), 1_000, 1.0),
        wire.Complete("small", "hi", None, 10),
        wire.Notify("email", "ada@example.com", "hi", "hi"),
        wire.CallService("users", "users.find", "{}", 1.0),
    ],
)
async def test_what_was_not_granted_is_not_answered(impostor: Any, wanted: wire.Wanted) -> None:
    kv = MemoryKv()
    services = HostServices(kv=kv, find={SecretSource: _Secrets()}.get)
    link, task, number = await _begin(impostor, _call(grants=frozenset()), services)
    impostor.says(wire.Ask(number, 1, wanted))
    told = await _told(impostor)
    assert told.failed is not None
    assert told.failed[0] == "not-granted"
    task.cancel()
    await link.close()


async def test_a_call_that_is_not_under_way_is_told_nothing(impostor: Any) -> None:
    link, task, number = await _begin(impostor, _call(), HostServices(kv=MemoryKv()))
    impostor.says(wire.Ask(number + 7, 1, wire.KvUsage()))
    impostor.says(wire.Ask(number, 2, wire.KvUsage()))
    assert (await _told(impostor)).ask == 2
    task.cancel()
    await link.close()


async def test_state_is_that_of_the_calls_own_tenant(impostor: Any) -> None:
    kv = MemoryKv()
    kv.space("acme", manifest().id)["key"] = KvValue("acme's", 1)
    kv.space("globex", manifest().id)["key"] = KvValue("globex's", 1)
    link, task, number = await _begin(impostor, _call(tenant="globex"), HostServices(kv=kv))
    impostor.says(wire.Ask(number, 1, wire.KvGet(("key",))))
    assert (await _told(impostor)).value == {"key": {"value": "globex's", "version": 1}}
    task.cancel()
    await link.close()


async def test_the_values_of_secrets_are_not_told(impostor: Any) -> None:
    link, task, number = await _begin(impostor, _call(), HostServices(find={SecretSource: _Secrets()}.get))
    impostor.says(wire.Ask(number, 1, wire.Secrets()))
    told = await _told(impostor)
    assert set(told.value) == {"token"}
    assert "secret of acme" not in str(told.value)
    task.cancel()
    await link.close()


class _Echo:
    """Sends nothing, and answers what it would have sent with the secrets in it."""

    def __init__(self) -> None:
        self.request: EgressRequest | None = None

    async def send(self, request: EgressRequest, *_: Any, count: Any, visit: Any, **__: Any) -> EgressResponse:
        self.request = request
        count(100)
        visit(request.method, "api.example.com")
        for secret in request.secrets:
            secret.used(secret.name)
        said = " ".join(secret.value for secret in request.secrets)
        return EgressResponse(200, (("x-echo", said),), said.encode())


async def test_a_secret_is_put_in_outside_and_taken_out_again(impostor: Any) -> None:
    echo = _Echo()
    services = HostServices(egress=echo, find={SecretSource: _Secrets()}.get)
    link, task, number = await _begin(impostor, _call(), services)
    marks = (("token", "{{secret:token:1}}"), ("other", "{{secret:other:1}}"))
    impostor.says(wire.Ask(number, 1, wire.Send("GET", "https://api.example.com/", (), "", marks, 1_000, 1.0)))
    told = await _told(impostor)
    assert echo.request is not None
    assert [(s.name, s.placeholder, s.value) for s in echo.request.secrets] == [
        ("token", "{{secret:token:1}}", "secret of acme")
    ]
    assert "secret of acme" not in str(impostor.stdin.said)
    assert told.value["headers"] == [["x-echo", "[secret token]"]]
    assert told.value["used"] == ["token"]
    assert (told.value["count"], told.value["visits"]) == (100, [["GET", "api.example.com"]])
    task.cancel()
    await link.close()


async def test_no_more_is_sent_than_the_call_may_whatever_is_asked_for(impostor: Any) -> None:
    budgets: list[int] = []

    class Counting(_Echo):
        async def send(self, request: EgressRequest, *_: Any, **more: Any) -> EgressResponse:
            budgets.append(more["budget"])
            more["count"](more["budget"])
            raise EgressRefused("limit-http", "too much")

    link, task, number = await _begin(impostor, _call(), HostServices(egress=Counting()))
    most = effective_limits(manifest().limits, Settings()).http
    for ask in (1, 2):
        impostor.says(wire.Ask(number, ask, wire.Send("GET", "https://api.example.com/", (), "", (), 1 << 40, 1.0)))
        await until(lambda ask=ask: any(isinstance(s, wire.Told) and s.ask == ask for s in impostor.stdin.said))
    assert budgets == [most, 0]
    task.cancel()
    await link.close()


async def test_how_busy_the_platform_is_is_not_the_guests_time(box: Any, make_manifest: Any) -> None:
    brief = make_manifest(limits={"time_ms": 150})
    await box.run("host", "gname", manifest=brief)

    def is_busy() -> None:
        # Nothing of the platform's loop runs meanwhile, so nobody can answer the guest.
        time.sleep(0.5)

    asked = asyncio.create_task(box.run("host", "gname", manifest=brief))
    async with asyncio.timeout(30):
        while not link_of(box).busy:  # noqa: ASYNC110 (it lasts for a millisecond)
            await asyncio.sleep(0)
    is_busy()
    assert (await asked).output == "none"
