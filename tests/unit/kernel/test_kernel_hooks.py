"""Dispatch: the four kinds, order, refusals, failure policies, and what is kept of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from kernel.activation import Activations
from kernel.context import Context
from kernel.errors import (
    BreakerOpen,
    BulkheadFull,
    ConcurrencyConflict,
    Conflict,
    DeadlineExceeded,
    NotFound,
    PluginFailed,
    PluginUnavailable,
    Rejected,
    UnknownHook,
)
from kernel.events import NewEvent
from kernel.explain import describe
from kernel.hooks import Dispatcher
from kernel.hookspecs import HOOKS, hook_spec, hookimpl
from kernel.implementations import Implementation
from kernel.outcomes import GuestAnswer, save_effects
from kernel.payloads import AccessDecision, AccessRequest, EventView, Reject, UserDraft
from kernel.ports import ActivationRecord, Effects
from kernel.resilience import Breaker
from plugin_sdk.testing import FakeKv, FakeTransaction
from sandbox.errors import GuestInputTooLarge
from tests.support.manifests import make_manifest

DRAFT = UserDraft(email="ada@example.com", name="Ada")
ASKED = AccessRequest(principal="u1", action="users:read")
EVENT = EventView(
    id="e1", type="user.created", tenant="acme", stream="user:1", version=1, position=1, time="2026-01-01T00:00:00Z"
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A dispatcher and the means to put plugins into it."""

    def __init__(self, guests=None, specs=HOOKS) -> None:
        self.clock = Clock()
        self.kv = FakeKv()
        self.activations = Activations()
        self.traces = []
        self.hooks = Dispatcher(
            self.activations,
            guests,
            kv=self.kv,
            on_trace=self.traces.append,
            breaker=lambda: Breaker(threshold=2, rest=1.0, clock=self.clock),
            specs=specs,
        )

    def plugin(self, id: str, hook: str = "user_creating", kind: str = "builtin", use=None, **manifest):
        """Register the decorated function as ``id``'s implementation of ``hook``."""

        def register(function):
            namespace = type(id, (), {hook: staticmethod(hookimpl(function))})
            hooks = {hook: use or {}} if not hook.startswith("contribute") else {}
            self.hooks.register(namespace(), make_manifest(id, kind=kind, hooks=hooks, **manifest))
            return function

        return register

    def filter(self, payload=DRAFT, tenant="acme", hook="user_creating", context=None):
        return self.hooks.filter(hook, payload, context or Context(tenant, correlation_id="work-0001"))

    def told(self):
        return [describe(t) for t in self.hooks.traces.find("work-0001")]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def renamed(payload: UserDraft, name: str) -> UserDraft:
    return payload.model_copy(update={"name": name})


# ---------------------------------------------------------------------------- filter


async def test_filters_run_in_declared_order_and_each_sees_what_the_one_before_left(bench: Bench):
    @bench.plugin("acme/aa", use={"after": ["acme/zz"]})
    async def aa(payload, context):
        await asyncio.sleep(0)
        return renamed(payload, payload.name + " aa")

    @bench.plugin("acme/mm")
    def mm(payload, context):
        return None

    @bench.plugin("acme/zz")
    def zz(payload, context):
        return renamed(payload, payload.name + " zz")

    outcome = await bench.filter()
    assert outcome.payload.name == "Ada zz aa"
    assert [i.plugin for i in bench.hooks.ready("acme", "user_creating")] == ["acme/mm", "acme/zz", "acme/aa"]


async def test_without_implementations_the_payload_comes_back_as_it_was(bench: Bench):
    outcome = await bench.filter()
    assert outcome.payload is DRAFT
    assert bench.told() == []


@pytest.mark.parametrize("attributes", [{}, {"count": 0, "flag": False, "text": "", "none": None}])
async def test_empty_and_falsy_values_are_never_dropped(bench: Bench, attributes):
    @bench.plugin("acme/aa")
    def aa(payload, context):
        return payload.model_copy(update={"attributes": attributes})

    given = DRAFT.model_copy(update={"attributes": {"before": 1}})
    assert (await bench.filter(given)).payload.attributes == attributes


@pytest.mark.parametrize("refuse", ["answer", "raise"])
async def test_a_refusal_ends_the_dispatch_with_the_plugins_reason(bench: Bench, refuse):
    ran = []

    @bench.plugin("acme/aa")
    def aa(payload, context):
        if refuse == "raise":
            raise Rejected("No.")
        return Reject(reason="No.")

    @bench.plugin("acme/bb")
    def bb(payload, context):
        ran.append(payload)

    for _ in range(5):
        with pytest.raises(Rejected) as caught:
            await bench.filter()
    assert (caught.value.detail, caught.value.plugin, caught.value.hook) == ("No.", "acme/aa", "user_creating")
    assert caught.value.tenant == "acme"
    assert ran == []
    assert bench.hooks.ready("acme", "user_creating")[0].breaker is None, "a refusal is an answer, not a failure"
    assert bench.told()[0]["implementations"][0]["outcome"] == "rejected"


@pytest.mark.parametrize(
    "failure",
    [ValueError("broken"), SystemExit(1), StopIteration("lost"), TimeoutError(), NotFound("nothing"), RecursionError()],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.parametrize("suspends", [False, True])
async def test_whatever_an_implementation_raises_a_fail_closed_hook_rejects(bench: Bench, failure, suspends):
    if suspends:

        @bench.plugin("acme/aa")
        async def aa(payload, context):
            await asyncio.sleep(0)
            raise failure

    else:

        @bench.plugin("acme/aa")
        def aa(payload, context):
            raise failure

    with pytest.raises(PluginUnavailable) as caught:
        await bench.filter()
    assert caught.value.plugin == "acme/aa"
    assert caught.value.hook == "user_creating"
    assert caught.value.tenant == "acme"
    assert caught.value.fix


async def test_a_fail_open_hook_skips_the_failed_and_records_it():
    bench = Bench(specs={**HOOKS, "user_creating": replace(HOOKS["user_creating"], on_failure="fail_open")})

    @bench.plugin("acme/aa")
    def aa(payload, context):
        raise ValueError("broken")

    @bench.plugin("acme/bb")
    def bb(payload, context):
        return renamed(payload, "bb")

    assert (await bench.filter()).payload.name == "bb"
    first, second = bench.told()[0]["implementations"]
    assert (first["outcome"], second["outcome"]) == ("failed", "changed")
    assert "ValueError: broken" in first["error"]


async def test_an_answer_of_the_wrong_type_is_a_failure(bench: Bench):
    @bench.plugin("acme/aa")
    def aa(payload, context):
        return {"email": "x@example.com"}

    with pytest.raises(PluginUnavailable) as caught:
        await bench.filter()
    assert caught.value.found == "dict"
    assert "UserDraft" in str(caught.value.expected)


async def test_cancelling_the_caller_passes_through_and_is_nobodys_failure(bench: Bench):
    began = asyncio.Event()

    @bench.plugin("acme/aa")
    async def aa(payload, context):
        began.set()
        await asyncio.sleep(3600)

    task = asyncio.create_task(bench.filter())
    await began.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    impl = bench.hooks.ready("acme", "user_creating")[0]
    assert impl.active == 0
    assert impl.breaker is None


async def test_implementations_may_take_fewer_arguments(bench: Bench):
    seen = []

    @bench.plugin("acme/aa")
    def aa():
        seen.append("none")

    @bench.plugin("acme/bb")
    def bb(context):
        seen.append(context.tenant)

    @bench.plugin("acme/cc")
    async def cc(payload):
        seen.append(payload.name)

    @bench.plugin("acme/dd")
    def dd(context, payload):
        seen.append((context.tenant, payload.name))

    await bench.filter()
    assert seen == ["none", "acme", "Ada", ("acme", "Ada")]


async def test_unknown_hooks_are_refused_with_the_names_there_are(bench: Bench):
    for call in (bench.hooks.filter, bench.hooks.decide):
        with pytest.raises(UnknownHook) as caught:
            await call("user_exploding", DRAFT, Context("acme"))
        assert "user_creating" in str(caught.value.expected)
    with pytest.raises(UnknownHook):
        bench.hooks.ready("acme", "user_exploding")


# ---------------------------------------------------------------------------- decide


async def test_the_first_answer_wins_and_the_rest_are_not_asked(bench: Bench):
    asked = []

    @bench.plugin("acme/aa", "access_deciding")
    def aa(payload, context):
        asked.append("aa")

    @bench.plugin("acme/bb", "access_deciding")
    async def bb(payload, context):
        await asyncio.sleep(0)
        return AccessDecision(allow=False, reason="closed on Sundays")

    @bench.plugin("acme/cc", "access_deciding")
    def cc(payload, context):
        asked.append("cc")

    outcome = await bench.hooks.decide("access_deciding", ASKED, Context("acme", correlation_id="work-0001"))
    assert outcome.payload.reason == "closed on Sundays"
    assert asked == ["aa"]
    assert [i["outcome"] for i in bench.told()[0]["implementations"]] == ["no opinion", "answered"]


async def test_nobody_with_an_opinion_gives_none(bench: Bench):
    assert (await bench.hooks.decide("access_deciding", ASKED, Context("acme"))).payload is None


@pytest.mark.parametrize("answer", [{"allow": True, "reason": "x"}, True, 0, ""])
async def test_a_decision_of_the_wrong_type_rejects(bench: Bench, answer):
    @bench.plugin("acme/aa", "access_deciding")
    def aa(payload, context):
        return answer

    with pytest.raises(PluginUnavailable):
        await bench.hooks.decide("access_deciding", ASKED, Context("acme"))


# ---------------------------------------------------------------------------- observe


async def test_an_observers_failure_is_told_to_the_runner_and_harms_no_other(bench: Bench):
    seen = []

    @bench.plugin("acme/aa", "event_received")
    def aa(payload, context):
        raise ValueError("broken")

    @bench.plugin("acme/bb", "event_received")
    async def bb(payload, context):
        await asyncio.sleep(0)
        seen.append(payload.id)

    first, second = bench.hooks.observers("acme")
    context = Context("acme", correlation_id="work-0001")
    with pytest.raises(PluginFailed, match="ValueError: broken"):
        await bench.hooks.deliver(first, EVENT, context)
    assert await bench.hooks.deliver(second, EVENT, context) == Effects()
    assert seen == ["e1"]
    assert [t["implementations"][0]["outcome"] for t in bench.told()] == ["failed", "observed"]


# ---------------------------------------------------------------------------- contribute


def test_contributions_come_in_order_with_their_manifest_and_lists_are_unrolled(bench: Bench):
    @bench.plugin("acme/bb", "contribute_routes")
    def bb():
        return ["b1", "b2"]

    @bench.plugin("acme/aa", "contribute_routes")
    def aa():
        return 0

    @bench.plugin("acme/cc", "contribute_routes")
    def cc():
        return None

    found = [(m.id, item) for m, item in bench.hooks.contribute("contribute_routes")]
    assert found == [("acme/aa", 0), ("acme/bb", "b1"), ("acme/bb", "b2")]


def test_a_plugin_that_cannot_contribute_stops_the_boot_by_name(bench: Bench):
    @bench.plugin("acme/aa", "contribute_routes")
    def aa():
        raise ValueError("broken")

    with pytest.raises(PluginFailed, match="acme/aa could not contribute: ValueError: broken") as caught:
        bench.hooks.contribute("contribute_routes")
    assert caught.value.hook == "contribute_routes"


@pytest.mark.parametrize(("name", "arguments"), [("user_exploding", "payload"), ("user_creating", "payload, colour")])
def test_an_implementation_that_does_not_fit_is_refused_when_registered(bench: Bench, name, arguments):
    namespace: dict = {}
    exec(f"def {name}({arguments}): pass", namespace)
    plugin = type("plugin", (), {name: staticmethod(hookimpl(namespace[name]))})()
    with pytest.raises(PluginFailed, match="does not fit") as caught:
        bench.hooks.register(plugin, make_manifest("acme/aa", kind="builtin"))
    assert caught.value.plugin == "acme/aa"


def test_two_plugins_with_one_id_are_refused(bench: Bench):
    bench.hooks.register(object(), make_manifest("acme/aa", kind="builtin"))
    with pytest.raises(PluginFailed):
        bench.hooks.register(object(), make_manifest("acme/aa", kind="builtin"))


# ---------------------------------------------------------------------------- deadline, bulkhead, breaker


def hurried(bench: Bench, seconds: float) -> Implementation:
    impl = bench.hooks.ready("acme", "user_creating")[0]
    impl.seconds = seconds
    return impl


async def test_an_implementation_that_suspends_too_long_is_ended_and_counts_as_failed(bench: Bench):
    @bench.plugin("acme/slow")
    async def slow(payload, context):
        await asyncio.sleep(3600)

    impl = hurried(bench, 0.01)
    with pytest.raises(PluginUnavailable, match="did not end within 10 ms"):
        await bench.filter()
    assert impl.breaker is not None
    assert impl.breaker.failures == 1
    assert impl.active == 0


async def test_the_callers_own_deadline_does_not_blame_the_plugin(bench: Bench):
    @bench.plugin("acme/slow")
    async def slow(payload, context):
        await asyncio.sleep(3600)

    with pytest.raises(PluginUnavailable) as caught:
        await bench.filter(context=Context("acme").within(0.01))
    assert isinstance(caught.value.__cause__, DeadlineExceeded)
    assert bench.hooks.ready("acme", "user_creating")[0].breaker is None


async def test_a_breaker_rests_a_failing_plugin_of_one_tenant_and_tries_it_with_one_probe(bench: Bench):
    calls, gate = [], asyncio.Event()
    broken = True

    @bench.plugin("acme/aa")
    async def aa(payload, context):
        calls.append(context.tenant)
        if broken:
            raise ValueError("broken")
        await gate.wait()

    for _ in range(4):
        with pytest.raises(PluginUnavailable) as caught:
            await bench.filter()
    assert calls == ["acme", "acme"]
    assert isinstance(caught.value.__cause__, BreakerOpen)
    assert bench.told()[-1]["implementations"][0]["breaker"] == "open"

    broken = False
    gate.set()
    await bench.filter(tenant="globex")
    assert calls[-1] == "globex", "another tenant's calls are not rested"

    gate.clear()
    bench.clock.now += 1.0
    probes = [asyncio.create_task(bench.filter()) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert calls.count("acme") == 3, "exactly one probe"
    gate.set()
    results = await asyncio.gather(*probes, return_exceptions=True)
    assert sum(isinstance(r, PluginUnavailable) for r in results) == 4
    await bench.filter()
    assert calls.count("acme") == 4


async def test_a_breaker_outlives_the_snapshot(bench: Bench):
    @bench.plugin("acme/aa")
    def aa(payload, context):
        raise ValueError("broken")

    for _ in range(2):
        with pytest.raises(PluginUnavailable):
            await bench.filter()
    bench.activations.load([ActivationRecord("globex", "acme/other", "1.0.0")])
    with pytest.raises(PluginUnavailable) as caught:
        await bench.filter()
    assert isinstance(caught.value.__cause__, BreakerOpen)


async def test_a_full_bulkhead_refuses_at_once_and_blames_nobody(bench: Bench):
    gate = asyncio.Event()

    @bench.plugin("acme/aa")
    async def aa(payload, context):
        await gate.wait()

    impl = bench.hooks.ready("acme", "user_creating")[0]
    impl.limit = 2
    busy = [asyncio.create_task(bench.filter()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(PluginUnavailable) as caught:
        await bench.filter()
    assert isinstance(caught.value.__cause__, BulkheadFull)
    gate.set()
    await asyncio.gather(*busy)
    await bench.filter()
    assert impl.active == 0
    assert impl.breaker is None


# ---------------------------------------------------------------------------- tenants, generations


class FakeGuests:
    """Guests that run Python functions instead of components."""

    def __init__(self) -> None:
        self.found = {}

    def add(self, id, call, version="1.0.0", hook="user_creating", **manifest):
        self.found[id, version] = (make_manifest(id, version, hooks={hook: {}}, **manifest), call)

    def has(self, plugin, version):
        return (plugin, version) in self.found

    def bind(self, plugin, version, spec, grants, settings, shadow=None):
        if (plugin, version) not in self.found:
            return None
        manifest, call = self.found[plugin, version]

        async def bound(payload, context):
            return await call(payload, context, grants, settings)

        return manifest, bound


def answering(name: str, effects: Effects | None = None):
    async def call(payload, context, grants, settings):
        return GuestAnswer(renamed(payload, payload.name + name), effects or Effects())

    return call


@pytest.fixture
def guests() -> FakeGuests:
    return FakeGuests()


@pytest.fixture
def hosted(guests) -> Bench:
    return Bench(guests)


async def test_a_guest_runs_only_for_the_tenant_that_has_it_on(hosted: Bench, guests: FakeGuests):
    guests.add("acme/guard", answering(" guarded"))
    hosted.activations.load([ActivationRecord("acme", "acme/guard", "1.0.0")])
    assert (await hosted.filter()).payload.name == "Ada guarded"
    assert (await hosted.filter(tenant="globex")).payload.name == "Ada"


async def test_an_extension_runs_only_for_the_tenant_that_has_it_on(bench: Bench):
    @bench.plugin("acme/ext", kind="extension")
    def ext(payload):
        return renamed(payload, "extended")

    assert (await bench.filter()).payload.name == "Ada"
    bench.activations.load([ActivationRecord("globex", "acme/ext", "1.0.0")])
    assert (await bench.filter()).payload.name == "Ada"
    assert (await bench.filter(tenant="globex")).payload.name == "extended"


async def test_a_guest_gets_its_tenants_grants_and_settings(hosted: Bench, guests: FakeGuests):
    seen = []

    async def call(payload, context, grants, settings):
        seen.append((context.tenant, grants, settings))
        return GuestAnswer(None, Effects())

    guests.add("acme/guard", call)
    hosted.activations.load(
        [
            ActivationRecord("acme", "acme/guard", "1.0.0", frozenset({"kv"}), {"limit": 0}),
            ActivationRecord("globex", "acme/guard", "1.0.0"),
        ]
    )
    await hosted.filter()
    await hosted.filter(tenant="globex")
    assert seen == [("acme", frozenset({"kv"}), {"limit": 0}), ("globex", frozenset(), {})]


async def test_a_call_in_flight_keeps_the_version_and_generation_it_began_with(hosted: Bench, guests: FakeGuests):
    gate, began = asyncio.Event(), asyncio.Event()

    async def slow(payload, context, grants, settings):
        began.set()
        await gate.wait()
        return GuestAnswer(renamed(payload, "old"), Effects())

    guests.add("acme/aa", slow, "1.0.0")
    guests.add("acme/aa", answering(" new"), "2.0.0")
    guests.add("acme/bb", answering(" bb1"), "1.0.0")
    guests.add("acme/bb", answering(" bb2"), "2.0.0")
    both = ("acme/aa", "acme/bb")
    before = hosted.activations.load([ActivationRecord("acme", p, "1.0.0") for p in both])
    call = asyncio.create_task(hosted.filter())
    await began.wait()
    after = hosted.activations.load([ActivationRecord("acme", p, "2.0.0") for p in both])
    assert (await hosted.filter()).payload.name == "Ada new bb2"
    gate.set()
    assert (await call).payload.name == "old bb1"
    assert [t.generation for t in hosted.traces] == [after.generation, before.generation]


async def test_guests_and_built_ins_are_ordered_together_by_what_they_declare(hosted: Bench, guests: FakeGuests):
    @hosted.plugin("keelstone/zz", use={"before": ["acme/guard"]})
    def zz(payload):
        return renamed(payload, payload.name + " zz")

    guests.add("acme/guard", answering(" guard"))
    hosted.activations.load([ActivationRecord("acme", "acme/guard", "1.0.0")])
    assert (await hosted.filter()).payload.name == "Ada zz guard"


async def test_a_contradictory_order_is_told_and_touches_no_other_tenant(hosted: Bench, guests: FakeGuests):
    for one, other in (("acme/aa", "acme/bb"), ("acme/bb", "acme/aa")):
        guests.found[one, "1.0.0"] = (
            make_manifest(one, hooks={"user_creating": {"before": [other]}}),
            answering(" x"),
        )
    hosted.activations.load([ActivationRecord("acme", p, "1.0.0") for p in ("acme/aa", "acme/bb")])
    with pytest.raises(Conflict, match="acme/aa, acme/bb"):
        await hosted.filter()
    assert (await hosted.filter(tenant="globex")).payload is DRAFT


async def test_a_guest_under_the_id_of_a_built_in_is_never_asked(hosted: Bench, guests: FakeGuests):
    hosted.hooks.register(object(), make_manifest("keelstone/users", kind="builtin"))
    guests.add("keelstone/users", answering(" impostor"))
    hosted.activations.load([ActivationRecord("acme", "keelstone/users", "1.0.0")])
    assert (await hosted.filter()).payload is DRAFT


async def test_ready_tuples_are_made_once_per_snapshot(hosted: Bench, guests: FakeGuests):
    guests.add("acme/guard", answering(""))
    hosted.activations.load([ActivationRecord("acme", "acme/guard", "1.0.0")])
    first = hosted.hooks.ready("acme", "user_creating")
    hosted.activations.replace("globex", [ActivationRecord("globex", "acme/guard", "1.0.0")])
    assert hosted.hooks.ready("acme", "user_creating") is first, "another tenant's change leaves it as it is"
    hosted.activations.replace("acme", [ActivationRecord("acme", "acme/guard", "1.0.0", frozenset({"kv"}))])
    assert hosted.hooks.ready("acme", "user_creating") is not first


# ---------------------------------------------------------------------------- effects and explain


async def test_effects_are_kept_only_by_the_callers_transaction(hosted: Bench, guests: FakeGuests):
    effects = Effects(kv_writes={"count": "0"}, events=[NewEvent("lead.scored", {"score": 0})])
    guests.add("acme/guard", answering(" x", effects))
    hosted.activations.load([ActivationRecord("acme", "acme/guard", "1.0.0")])
    outcome = await hosted.filter()
    assert hosted.kv.snapshot("acme", "acme/guard") == {}
    transaction = FakeTransaction("acme")
    await outcome.save(transaction)
    assert hosted.kv.snapshot("acme", "acme/guard") == {"count": "0"}
    assert [(stream, e.type) for stream, e in transaction.emitted] == [("plugin:acme/guard", "lead.scored")]


async def test_state_that_moved_meanwhile_is_a_conflict_to_try_again(hosted: Bench, guests: FakeGuests):
    effects = Effects(kv_writes={"count": "2"}, kv_reads={"count": 1})
    guests.add("acme/guard", answering(" x", effects))
    hosted.activations.load([ActivationRecord("acme", "acme/guard", "1.0.0")])
    outcome = await hosted.filter()
    with pytest.raises(ConcurrencyConflict) as caught:
        await outcome.save(FakeTransaction("acme"))
    assert caught.value.plugin == "acme/guard"
    assert caught.value.fix == "Try again."


async def test_effects_of_an_observer_are_the_runners_to_save(hosted: Bench, guests: FakeGuests):
    async def call(payload, context, grants, settings):
        return GuestAnswer(None, Effects(kv_writes={"seen": ""}))

    guests.add("acme/watch", call, hook="event_received", events={"subscribes": ["user.*"]})
    hosted.activations.load([ActivationRecord("acme", "acme/watch", "1.0.0")])
    (impl,) = hosted.hooks.observers("acme")
    effects = await hosted.hooks.deliver(impl, EVENT, Context("acme"))
    await save_effects(FakeTransaction("acme"), hosted.kv, "acme", impl.plugin, effects)
    assert hosted.kv.snapshot("acme", "acme/watch") == {"seen": ""}


async def test_explain_tells_who_ran_in_which_order_and_what_each_changed(bench: Bench):
    @bench.plugin("acme/aa")
    def aa(payload):
        return payload.model_copy(update={"name": "A", "email": "a@example.com"})

    @bench.plugin("acme/bb")
    def bb(payload):
        return payload.model_copy()

    await bench.filter()
    (told,) = bench.told()
    assert told["generation"] == bench.activations.current.generation
    assert [(i["order"], i["plugin"], i["changed"]) for i in told["implementations"]] == [
        (1, "acme/aa", ["email", "name"]),
        (2, "acme/bb", []),
    ]
    assert bench.traces[0].correlation_id == "work-0001"


def test_every_hook_has_a_sentence_and_guests_may_implement_all_but_contributions():
    for name, spec in HOOKS.items():
        assert spec.name == name
        assert spec.summary.endswith(".")
        assert spec.for_guests == (spec.kind != "contribute")
        assert hook_spec(name) is spec
        if spec.for_guests:
            assert spec.payload is not None


async def test_too_large_a_payload_is_the_callers_to_mend_and_rests_nobody(bench: Bench):
    @bench.plugin("acme/aa")
    def aa(payload):
        raise GuestInputTooLarge("The payload is too large.")

    for _ in range(5):
        with pytest.raises(GuestInputTooLarge) as caught:
            await bench.filter()
        assert (caught.value.plugin, caught.value.hook, caught.value.tenant) == ("acme/aa", "user_creating", "acme")
    assert bench.hooks.ready("acme", "user_creating")[0].breaker is None


def test_an_order_is_checked_before_a_plugin_is_switched_on(bench: Bench):
    bench.hooks.register(object(), make_manifest("acme/ext", kind="extension", hooks={"user_creating": {}}))
    bench.hooks.register(
        object(), make_manifest("keelstone/zz", kind="builtin", hooks={"user_creating": {"before": ["acme/guest"]}})
    )
    fits = make_manifest("acme/guest", hooks={"user_creating": {"before": ["acme/ext"]}})
    contradicts = make_manifest("acme/guest", hooks={"user_creating": {"before": ["keelstone/zz"]}})
    bench.hooks.check_order([fits])
    with pytest.raises(Conflict, match="acme/guest, keelstone/zz"):
        bench.hooks.check_order([contradicts])
