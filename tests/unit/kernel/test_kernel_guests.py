"""Guests as implementations: their replies lifted, nonsense refused, the broken never skipped in silence."""

from __future__ import annotations

import asyncio
import json

import pytest

from kernel.activation import Activations
from kernel.context import Context
from kernel.errors import BudgetSpent, KeelstoneError, PluginFailed, PluginQuarantined, PluginUnavailable, Rejected
from kernel.guests import Guests
from kernel.hooks import Dispatcher
from kernel.hookspecs import HOOKS
from kernel.payloads import AccessDecision, AccessRequest, EventView, UserDraft
from kernel.ports import ActivationRecord, Effects, GuestCall, GuestRelease, GuestResult, GuestUsage
from tests.support.manifests import make_manifest

DRAFT = UserDraft(email="ada@example.com", name="Ada", attributes={"n": 0})
ASKED = AccessRequest(principal="u1", action="users:read")
EVENT = EventView(
    id="e1", type="user.created", tenant="acme", stream="user:1", version=1, position=1, time="2026-01-01T00:00:00Z"
)
MANIFEST = make_manifest(hooks={"user_creating": {}, "access_deciding": {}, "event_received": {}})


class FakeRuntime:
    """Answers what it is told to; remembers what it was asked."""

    def __init__(self, answer="{}") -> None:
        self.answer = answer
        self.calls: list[GuestCall] = []
        self.gate: asyncio.Event | None = None

    async def call(self, call: GuestCall) -> GuestResult:
        self.calls.append(call)
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return GuestResult(self.answer, Effects(kv_writes={"k": "v"}), GuestUsage(10, 20, 0, 0))

    async def prepare(self, digest, component, manifest) -> None:
        raise AssertionError("not asked for here")

    def prepared(self, digest) -> bool:
        return True

    async def forget(self, digest) -> None: ...

    async def close(self) -> None: ...


def setup(answer, hook="user_creating"):
    runtime = FakeRuntime(answer if isinstance(answer, Exception) else json.dumps(answer))
    guests = Guests(runtime)
    guests.add(GuestRelease(MANIFEST, "d" * 64))
    bound = guests.bind("acme/hello", "1.0.0", HOOKS[hook], frozenset({"kv"}), {"limit": 0})
    assert bound is not None
    return runtime, guests, bound[1]


@pytest.mark.parametrize(
    ("hook", "payload", "reply", "lifted"),
    [
        ("user_creating", DRAFT, {}, None),
        ("user_creating", DRAFT, {"payload": None, "reject": None}, None),
        (
            "user_creating",
            DRAFT,
            {
                "payload": {
                    "email": "b@example.com",
                    "name": "B",
                    "attributes": {"n": 0, "f": False, "t": "", "x": None},
                }
            },
            UserDraft(email="b@example.com", name="B", attributes={"n": 0, "f": False, "t": "", "x": None}),
        ),
        ("access_deciding", ASKED, {"answer": None}, None),
        ("access_deciding", ASKED, {}, None),
        (
            "access_deciding",
            ASKED,
            {"answer": {"allow": False, "reason": ""}},
            AccessDecision(allow=False, reason=""),
        ),
        ("event_received", EVENT, {}, None),
        ("event_received", EVENT, {"done": True}, None),
    ],
)
async def test_a_reply_is_lifted_to_what_a_built_in_would_return(hook, payload, reply, lifted):
    runtime, _, call = setup(reply, hook)
    answer = await call(payload, Context("acme"))
    assert answer.value == lifted
    assert answer.effects.kv_writes == {"k": "v"}
    sent = runtime.calls[0]
    assert json.loads(sent.payload) == payload.model_dump(mode="json")
    assert (sent.hook, sent.grants, sent.settings) == (hook, frozenset({"kv"}), {"limit": 0})


@pytest.mark.parametrize(
    ("hook", "payload", "reply", "told"),
    [
        ("user_creating", DRAFT, {"payload": {"email": "b@example.com"}}, "name"),
        ("user_creating", DRAFT, {"payload": {"email": "b@e.com", "name": "B", "role": "operator"}}, "role"),
        ("user_creating", DRAFT, {"payload": {"email": 7, "name": "B"}}, "email"),
        ("user_creating", DRAFT, {"payload": {"email": "b@e.com", "name": "B", "attributes": {"n": 2**70}}}, "64 bits"),
        ("user_creating", DRAFT, {"payload": []}, "payload"),
        ("user_creating", DRAFT, {"reject": {"reason": ""}}, "reject.reason"),
        ("user_creating", DRAFT, {"reject": "no"}, "reject"),
        ("user_creating", DRAFT, {"allow": True}, "allow"),
        ("user_creating", DRAFT, None, "reply"),
        ("user_creating", DRAFT, 0, "reply"),
        ("access_deciding", ASKED, {"answer": {"allow": "perhaps", "reason": "x"}}, "allow"),
        ("access_deciding", ASKED, {"answer": True}, "answer"),
        ("event_received", EVENT, {"done": False}, "done"),
        ("event_received", EVENT, {"payload": {}}, "payload"),
    ],
)
async def test_a_reply_that_does_not_fit_is_a_failure_that_names_the_place(hook, payload, reply, told):
    _, guests, call = setup(reply, hook)
    seen = []
    guests.watch(lambda c, r: seen.append(r))
    with pytest.raises(PluginFailed) as caught:
        await call(payload, Context("acme"))
    assert told in caught.value.detail
    assert (caught.value.plugin, caught.value.hook, caught.value.tenant) == ("acme/hello", hook, "acme")
    assert [type(s) for s in seen] == [PluginFailed]
    assert guests.active("acme/hello", "1.0.0") == 0


@pytest.mark.parametrize("text", ["", "not json", "{", "NaN", '{"payload": {"email": "a@b.c", "name": "\\ud800"}}'])
async def test_an_output_that_is_not_json_is_a_failure(text):
    runtime, _, call = setup({})
    runtime.answer = text
    with pytest.raises(PluginFailed, match="does not fit"):
        await call(DRAFT, Context("acme"))


async def test_watchers_see_each_call_with_its_use_or_its_failure():
    runtime, guests, call = setup({})
    seen = []
    guests.watch(lambda c, r: seen.append((c.hook, r.detail if isinstance(r, KeelstoneError) else r.usage.wall_us)))
    await call(DRAFT, Context("acme"))
    runtime.answer = KeelstoneError("trapped")
    with pytest.raises(KeelstoneError):
        await call(DRAFT, Context("acme"))
    assert seen == [("user_creating", 10), ("user_creating", "trapped")]


async def test_calls_under_way_are_counted_and_end_in_the_release_they_began_with():
    runtime, guests, call = setup({})
    runtime.gate = asyncio.Event()
    task = asyncio.create_task(call(DRAFT, Context("acme")))
    await asyncio.sleep(0)
    assert guests.active("acme/hello", "1.0.0") == 1
    guests.remove("acme/hello", "1.0.0")
    assert not guests.has("acme/hello", "1.0.0")
    runtime.gate.set()
    assert (await task).value is None
    assert guests.active("acme/hello", "1.0.0") == 0


def test_a_release_that_is_not_here_cannot_be_bound():
    assert Guests(FakeRuntime()).bind("acme/hello", "1.0.0", HOOKS["user_creating"], frozenset(), {}) is None


def platform(guests: Guests) -> Dispatcher:
    activations = Activations()
    hooks = Dispatcher(activations, guests)
    activations.load([ActivationRecord("acme", "acme/hello", "1.0.0")])
    return hooks


async def test_a_guests_refusal_reaches_the_caller_as_its_own():
    _, guests, _ = setup({"reject": {"reason": "Not from that domain."}})
    with pytest.raises(Rejected, match="Not from that domain") as caught:
        await platform(guests).filter("user_creating", DRAFT, Context("acme"))
    assert caught.value.plugin == "acme/hello"


async def test_a_guest_that_cannot_be_loaded_rejects_and_is_not_skipped():
    _, guests, _ = setup({})
    release = GuestRelease(MANIFEST, "d" * 64)
    guests.add_broken(release, PluginUnavailable("The component is not stored here.", fix="Install it again."))
    hooks = platform(guests)
    with pytest.raises(PluginUnavailable, match="not stored here") as caught:
        await hooks.filter("user_creating", DRAFT, Context("acme"))
    assert caught.value.fix.endswith("Install it again.")
    assert (await hooks.filter("user_creating", DRAFT, Context("globex"))).payload is DRAFT
    guests.add(release)
    hooks = platform(guests)
    assert (await hooks.filter("user_creating", DRAFT, Context("acme"))).payload is DRAFT


async def test_a_gate_refuses_before_the_guest_runs_and_nobody_is_told_of_a_call():
    runtime, guests, call = setup({})
    told = []
    guests.watch(lambda request, result: told.append(result))

    def gate(request: GuestCall) -> None:
        if request.context.tenant == "acme":
            raise BudgetSpent("It is spent.", plugin=request.plugin)

    guests.gate(gate)
    with pytest.raises(BudgetSpent):
        await call(DRAFT, Context("acme"))
    assert (runtime.calls, told) == ([], [])
    await call(DRAFT, Context("globex"))
    assert len(told) == 1


async def test_an_answer_that_does_not_fit_tells_what_it_used():
    _, guests, call = setup({"payload": []})
    told: list[object] = []
    guests.watch(lambda request, result: told.append(result))
    with pytest.raises(PluginFailed):
        await call(DRAFT, Context("acme"))
    [failed] = told
    assert isinstance(failed, PluginFailed)
    assert failed.usage == GuestUsage(10, 20, 0, 0)
    assert failed.output == '{"payload": []}'


async def test_a_spent_budget_and_a_withdrawal_leave_the_breaker_alone():
    runtime = FakeRuntime(BudgetSpent("spent"))
    guests, activations = Guests(runtime), Activations()
    guests.add(GuestRelease(MANIFEST, "d" * 64))
    activations.load([ActivationRecord("acme", "acme/hello", "1.0.0")])
    hooks = Dispatcher(activations, guests)
    for _ in range(9):
        with pytest.raises(PluginUnavailable) as caught:
            await hooks.filter("user_creating", DRAFT, Context("acme"))
        assert caught.value.extra["cause"] == "budget-spent"
    assert hooks.breakers.states() == []
    guests.add_broken(GuestRelease(MANIFEST, "d" * 64, "odd"), PluginQuarantined("It was withdrawn."))
    activations.refresh()
    for _ in range(9):
        with pytest.raises(PluginUnavailable) as caught:
            await hooks.filter("user_creating", DRAFT, Context("acme"))
        assert caught.value.extra["cause"] == "quarantined"
    assert hooks.breakers.states() == []


@pytest.mark.parametrize(("own_ms", "waited"), [(20, 1.02 + 1.5), (1_000, 3.5), (5_000, 1.0)])
def test_a_call_is_waited_for_as_long_as_the_machine_may_owe_it_time(own_ms, waited):
    manifest = make_manifest(hooks={"user_creating": {}}, limits={"time_ms": own_ms})
    guests, activations = Guests(FakeRuntime()), Activations()
    guests.add(GuestRelease(manifest, "d" * 64))
    activations.load([ActivationRecord("acme", "acme/hello", "1.0.0")])
    hooks = Dispatcher(activations, guests)
    [found] = hooks.ready("acme", "user_creating")
    assert found.seconds == pytest.approx(waited)
