"""Another version on trial: who answers, what is mirrored, and that a call keeps the version it began with."""

from __future__ import annotations

import asyncio
import json

import pytest

from kernel.activation import Activations
from kernel.context import Context
from kernel.errors import PluginFailed, PluginUnavailable
from kernel.guests import Guests
from kernel.hooks import Dispatcher
from kernel.payloads import UserDraft
from kernel.ports import ActivationRecord, Effects, GuestCall, GuestRelease, GuestResult, GuestUsage, UpgradeRecord
from tests.support.manifests import make_manifest

DRAFT = UserDraft(email="ada@example.com", name="Ada")
PLUGIN = "acme/guard"


class Runtime:
    """Each version registers people under its own name, once the gate is open."""

    def __init__(self) -> None:
        self.calls: list[GuestCall] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.nonsense = False

    async def call(self, call: GuestCall) -> GuestResult:
        self.calls.append(call)
        await self.gate.wait()
        reply = 7 if self.nonsense else {"payload": {"email": "x@example.com", "name": call.version}}
        return GuestResult(json.dumps(reply), Effects(kv_writes={"by": call.version}), GuestUsage(1, 1, 0, 0))


class Bench:
    def __init__(self) -> None:
        self.runtime = Runtime()
        self.guests = Guests(self.runtime)
        self.activations = Activations()
        self.hooks = Dispatcher(self.activations, self.guests)
        self.mirrored: list[tuple[str, GuestCall, object, GuestCall]] = []
        self.guests.mirror(lambda *found: self.mirrored.append(found))
        for version in ("1.0.0", "2.0.0"):
            self.guests.add(GuestRelease(make_manifest(PLUGIN, version, hooks={"user_creating": {}}), f"d{version}"))

    def on(self, mode=None, calls=100.0, version="1.0.0", **trial):
        upgrade = None if mode is None else UpgradeRecord("u1", "2.0.0", mode, calls, **trial)
        record = ActivationRecord("acme", PLUGIN, version, frozenset({"kv"}), {"n": 1}, upgrade)
        return self.activations.replace("acme", [record])

    async def ask(self, id: str = "a-correlation-id") -> str:
        outcome = await self.hooks.filter("user_creating", DRAFT, Context("acme", correlation_id=id))
        return outcome.payload.name


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_a_canary_answers_with_its_own_grants_and_settings(bench: Bench):
    bench.on("canary", grants=frozenset({"log"}), settings={"n": 2})
    assert await bench.ask() == "2.0.0"
    (call,) = bench.runtime.calls
    assert (call.grants, call.settings, call.digest) == (frozenset({"log"}), {"n": 2}, "d2.0.0")
    assert bench.mirrored == []


async def test_a_share_of_calls_is_chosen_by_correlation_id_and_grows(bench: Bench):
    ids = [f"call-{n}" for n in range(60)]
    answered = []
    for calls in (0.0, 30.0, 60.0, 100.0):
        bench.on("canary", calls)
        answers = [await bench.ask(id) for id in ids]
        assert [await bench.ask(id) for id in ids] == answers, "asked again, it is the same version"
        answered.append({id for id, version in zip(ids, answers, strict=True) if version == "2.0.0"})
    assert answered[0] == set()
    assert answered[3] == set(ids)
    assert 0 < len(answered[1]) < len(answered[2]) < 60
    assert answered[1] < answered[2]


async def test_calls_under_way_end_in_the_version_they_began_with(bench: Bench):
    bench.on()
    bench.runtime.gate.clear()
    first = asyncio.create_task(bench.ask())
    await asyncio.sleep(0)
    bench.on("canary")
    second = asyncio.create_task(bench.ask())
    await asyncio.sleep(0)
    assert len(bench.runtime.calls) == 2
    bench.on()
    bench.runtime.gate.set()
    assert (await first, await second, await bench.ask()) == ("1.0.0", "2.0.0", "1.0.0")


async def test_where_the_new_version_cannot_be_called_the_old_one_answers(bench: Bench):
    release = GuestRelease(make_manifest(PLUGIN, "2.0.0", hooks={"user_creating": {}}), "d2")
    bench.guests.add_broken(release, PluginUnavailable("It is not stored here."))
    bench.on("canary")
    assert await bench.ask() == "1.0.0"


async def test_a_shadow_gets_the_call_after_the_answer_with_its_own_grants(bench: Bench):
    bench.on("shadow", grants=frozenset(), settings={"n": 2})
    told: list[GuestCall] = []
    bench.guests.watch(lambda call, result: told.append(call))
    assert await bench.ask() == "1.0.0"
    ((upgrade, live, result, twin),) = bench.mirrored
    assert upgrade == "u1"
    assert (live.version, twin.version, twin.digest) == ("1.0.0", "2.0.0", "d2.0.0")
    assert (twin.grants, twin.settings, twin.payload, twin.hook) == (frozenset(), {"n": 2}, live.payload, live.hook)
    assert result.effects.kv_writes == {"by": "1.0.0"}
    rehearsed = await bench.guests.rehearse(twin)
    assert rehearsed.effects.kv_writes == {"by": "2.0.0"}
    assert [c.version for c in told] == ["1.0.0"], "nobody is told of a mirrored call"
    bench.runtime.nonsense = True
    with pytest.raises(PluginFailed, match="does not fit"):
        await bench.guests.rehearse(twin)
    assert bench.guests.active(PLUGIN, "2.0.0") == 0


async def test_a_shadow_takes_its_share_and_sees_failures_too(bench: Bench):
    bench.on("shadow", 40.0)
    for number in range(50):
        assert await bench.ask(f"call-{number}") == "1.0.0"
    assert 0 < len(bench.mirrored) < 50
    bench.on("shadow")
    bench.runtime.nonsense = True
    with pytest.raises(PluginUnavailable):
        await bench.ask()
    assert isinstance(bench.mirrored[-1][2], PluginFailed)


async def test_a_trial_is_part_of_the_generation(bench: Bench):
    plain = bench.on().generation
    found = {
        bench.on("canary").generation,
        bench.on("canary", 50.0).generation,
        bench.on("shadow").generation,
        bench.on("canary", grants=frozenset({"kv"})).generation,
        bench.on("canary", settings={"n": 1}).generation,
    }
    assert len(found | {plain}) == 6
    assert bench.on().generation == plain
