"""The gate without a guest: clocks and random in recordings, in-place calls, limits by plan, services' book."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from kernel.caps import Caps
from kernel.context import Context
from kernel.errors import Conflict, Forbidden, ServiceMissing, ValidationFailed
from kernel.manifest import Limits
from kernel.ports import GuestCall, Replay
from kernel.service_calls import MAX_NESTED, ServiceBook, ServiceMethod, acting_as
from kernel.settings import Settings
from plugin_sdk.testing.fakes import FakeKv
from sandbox.calltime import Errand, ThreadTime
from sandbox.errors import GuestCancelled, NeedsThread, ReplayDiverged
from sandbox.hostcalls import HostCalls, HostServices
from sandbox.policy import LimitBook, effective_limits
from tests.support.manifests import WHY, make_manifest

MANIFEST = make_manifest(capabilities={"kv": {"why": WHY}, "clock": {"why": WHY}, "log": {"why": WHY}})
CALL = GuestCall(
    MANIFEST.id,
    "1.0.0",
    "d",
    MANIFEST,
    "user_creating",
    "{}",
    Context(tenant="acme"),
    frozenset({"kv", "clock", "log"}),
)
LIMITS = effective_limits(MANIFEST.limits, Settings())


def gate(call: GuestCall = CALL, **services) -> HostCalls:
    return HostCalls(call, LIMITS, HostServices(**services))


# ---------------------------------------------------------------------- recordings


def test_clocks_and_random_of_wasi_are_recorded_and_given_again():
    host = gate(now=lambda: 1_500_000_000_000_000_123, monotonic=lambda: 77, random=lambda n: bytes(range(n)))
    asked = [
        ("clocks/wall-clock", "now", ()),
        ("clocks/monotonic-clock", "now", ()),
        ("random/random", "get-random-bytes", (4,)),
        ("random/random", "get-random-u64", ()),
        ("random/insecure-seed", "insecure-seed", ()),
    ]
    first = [host.wasi(name, function)(*given) for name, function, given in asked]
    assert first[:3] == [{"seconds": 1_500_000_000, "nanoseconds": 123}, 77, b"\0\1\2\3"]
    stored = [
        replace(e, arguments=tuple(json.loads(json.dumps(e.arguments))), answer=json.loads(json.dumps(e.answer)))
        for e in host.recording
    ]
    assert [e.function for e in stored] == [f"wasi:{name}.{function}" for name, function, _ in asked]
    other = gate(replace(CALL, replay=Replay(tuple(stored))))
    assert [other.wasi(name, function)(*given) for name, function, given in asked] == first
    with pytest.raises(ReplayDiverged):
        other.wasi("clocks/wall-clock", "now")()


def test_what_has_no_answer_of_its_own_is_not_recorded():
    host = gate()
    assert host.wasi("cli/environment", "get-environment")() == []
    assert host.recording == ()
    assert host.usage(1, 2, 3).uses == {}


# ---------------------------------------------------------------------- in place


def test_in_place_what_must_be_waited_for_asks_for_a_thread_and_the_rest_does_not():
    host = gate(kv=FakeKv())
    host.in_place = True
    assert isinstance(host.host("1.1/clock", "now")(), int)
    host.host("1.1/log", "write")("info", "here")
    with pytest.raises(NeedsThread):
        host.host("1.1/kv", "get")("k")
    assert [line.message for line in host.logs] == ["here"]


async def test_in_a_thread_the_same_call_is_answered():
    kv = FakeKv({("acme", MANIFEST.id, "k"): "one"})
    host = HostCalls(CALL, LIMITS, HostServices(kv=kv), asyncio.get_running_loop())
    host.deadline = time.monotonic() + 30
    assert await asyncio.to_thread(host.host("1.1/kv", "get"), "k") == "one"
    assert await asyncio.to_thread(host.host("1.1/kv", "get-many"), ["k", "k", "other"]) == ["one", "one", None]


async def test_a_thread_that_stood_still_is_given_its_time_back_at_the_next_host_call():
    host = HostCalls(CALL, LIMITS, HostServices(kv=FakeKv()), asyncio.get_running_loop())
    clock = host.host("1.1/clock", "now")

    def stood_still(known: bool) -> object:
        host.time = ThreadTime() if known else None
        host.deadline = time.monotonic() + 0.01
        time.sleep(0.03)
        return clock()

    assert isinstance(await asyncio.to_thread(stood_still, True), int)
    assert (await asyncio.to_thread(stood_still, False)).value["code"] == "deadline"
    host.cancel()
    with pytest.raises(GuestCancelled):
        await asyncio.to_thread(stood_still, True)


@pytest.mark.parametrize("patient", [True, False])
async def test_what_waits_for_a_busy_loop_is_given_that_time_back(patient, monkeypatch):
    monkeypatch.setattr("sandbox.calltime.MOST_GIVEN", 10.0 if patient else 0.0)
    host = HostCalls(
        CALL, LIMITS, HostServices(kv=FakeKv({("acme", MANIFEST.id, "k"): "one"})), asyncio.get_running_loop()
    )
    host.time = ThreadTime()
    host.deadline = time.monotonic() + 0.05
    answer = asyncio.get_running_loop().run_in_executor(None, host.host("1.1/kv", "get"), "k")
    time.sleep(0.2)  # noqa: ASYNC251 - the loop has no turn for it
    found = await answer
    assert found == "one" if patient else found.value["code"] == "deadline"


async def test_work_that_the_loop_never_took_up_is_let_go_of():
    loop, work = asyncio.get_running_loop(), asyncio.sleep(0)
    errand = Errand(work, None)
    asyncio.run_coroutine_threadsafe(errand.run(), loop).cancel()
    errand.end(loop)
    await asyncio.sleep(0.01)
    assert inspect.getcoroutinestate(work) == inspect.CORO_CLOSED


# ---------------------------------------------------------------------- limits


@given(st.integers(0, 500), st.integers(0, 500) | st.none(), st.integers(0, 500) | st.none())
def test_operator_and_plan_can_only_lower_a_limit(asked, cap, planned):
    found = effective_limits(
        Limits(host_calls=asked), Settings(sandbox_caps=Caps(host_calls=cap)), Caps(host_calls=planned)
    )
    assert found.host_calls == min(n for n in (asked, cap, planned) if n is not None)


def test_fuel_is_counted_only_where_somebody_set_it():
    assert effective_limits(Limits(), Settings()).fuel is None
    assert effective_limits(Limits(), Settings(), Caps(fuel=5_000)).fuel == 5_000
    both = effective_limits(Limits(), Settings(sandbox_caps=Caps(fuel=2_000)), Caps(fuel=5_000))
    assert both.fuel == 2_000


async def test_a_tenants_plan_is_asked_for_once_in_a_while():
    now, asked = [0.0], []

    async def plan_of(tenant):
        asked.append(tenant)
        return "free" if now[0] < 100 else "team"

    book = LimitBook(Settings(plans={"free": Caps(events=1)}), plan_of, lambda: now[0])
    assert book.known(MANIFEST, "acme") is None
    assert (await book.of(MANIFEST, "acme")).events == 1
    assert book.known(MANIFEST, "acme").events == 1
    await book.of(MANIFEST, "acme")
    assert asked == ["acme"]
    now[0] = 100.0 + book.PLAN_SECONDS
    assert book.known(MANIFEST, "acme") is None
    assert (await book.of(MANIFEST, "acme")).events == MANIFEST.limits.events


async def test_a_plan_that_cannot_be_read_fails_no_call(caplog):
    async def broken(tenant):
        raise OSError("database gone")

    book = LimitBook(Settings(plans={"free": Caps(events=1)}), broken)
    assert (await book.of(MANIFEST, "acme")).events == MANIFEST.limits.events
    assert "the plan of tenant acme cannot be read" in caplog.text


async def test_without_plans_one_entry_serves_every_tenant():
    book = LimitBook(Settings())
    await book.of(MANIFEST, "acme")
    assert book.known(MANIFEST, "globex") is not None


# ---------------------------------------------------------------------- services


class Who(BaseModel):
    """Whom to greet."""

    name: str


async def _greet(context, payload):
    return {"hello": payload.name, "in": context.tenant}


GREET = ServiceMethod("greet", "Says hello.", Who, _greet)


async def test_a_method_gets_the_checked_payload_in_the_callers_tenant():
    book = ServiceBook()
    book.add("acme/greeter", GREET)
    answer = await book.call(Context(tenant="acme"), "acme/greeter", "greet", '{"name": "Ann"}')
    assert json.loads(answer) == {"hello": "Ann", "in": "acme"}
    for payload in ("{}", "[]", "nonsense", '{"name": 1}'):
        with pytest.raises(ValidationFailed):
            await book.call(Context(tenant="acme"), "acme/greeter", "greet", payload)
    with pytest.raises(Conflict):
        book.add("acme/greeter", GREET)


async def test_what_is_not_on_in_a_tenant_is_not_offered_there():
    book = ServiceBook(lambda tenant, plugin: tenant == "acme")
    book.add("acme/greeter", GREET)
    for tenant, plugin, method in (
        ("globex", "acme/greeter", "greet"),
        ("acme", "acme/other", "greet"),
        ("acme", "acme/greeter", "shout"),
    ):
        with pytest.raises(ServiceMissing):
            await book.call(Context(tenant=tenant), plugin, method, '{"name": "Ann"}')


async def test_calls_that_call_each_other_come_to_an_end():
    book, depth = ServiceBook(), [0]

    async def again(context, payload):
        depth[0] += 1
        return await book.call(context, "acme/greeter", "again", '{"name": "Ann"}')

    book.add("acme/greeter", ServiceMethod("again", "Calls itself.", Who, again))
    with pytest.raises(Forbidden):
        await book.call(Context(tenant="acme"), "acme/greeter", "again", '{"name": "Ann"}')
    assert depth == [MAX_NESTED]
    # Nothing of it is left behind.
    with pytest.raises(Forbidden):
        await book.call(Context(tenant="acme"), "acme/greeter", "again", '{"name": "Ann"}')
    assert depth == [2 * MAX_NESTED]


def test_a_service_is_called_by_the_plugin_not_by_who_caused_it():
    context = acting_as(Context(tenant="acme"), "acme/guest")
    assert (context.principal.id, context.principal.kind, context.principal.tenant) == ("acme/guest", "plugin", "acme")
    assert context.principal.permissions == frozenset()
