"""Upgrades without a platform: windows, channels, figures, the verdict, what is compared, the mirror."""

from __future__ import annotations

import asyncio
import math
import random
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import DeadlineExceeded
from kernel.events import NewEvent
from kernel.ports import Effects, HostExchange
from kernel.shares import in_share
from plugin_sdk import PLATFORM_TENANT, ActivationState, Context, LifecycleError, ValidationFailed
from plugin_sdk.services import BreakerRecord, GuestCall, GuestResult, GuestUsage
from plugins.builtin.catalog import domain
from plugins.builtin.catalog.domain import Activation
from plugins.builtin.catalog.upgrades.comparison import Report, compare
from plugins.builtin.catalog.upgrades.domain import Upgrade, UpgradeState, first_share
from plugins.builtin.catalog.upgrades.figures import Arm, Thresholds, at_least, at_most, bound, bucket, verdict
from plugins.builtin.catalog.upgrades.mirror import Mirror
from plugins.builtin.catalog.upgrades.monitor import Monitor
from plugins.builtin.catalog.upgrades.reporting import NEW, OLD, SHADOW, report
from plugins.builtin.catalog.upgrades.trial import CHANNELS, Trial, check_channel, follows
from plugins.builtin.catalog.upgrades.windows import parse_window
from sandbox.errors import GuestInputTooLarge
from tests.support.manifests import WHY, make_manifest

# ---------------------------------------------------------------------------- shares

words = st.text(st.characters(codec="utf-8"), max_size=12)
percents = st.floats(0, 100)


@given(words, words, percents, percents)
def test_a_larger_share_only_adds(salt, key, one, other):
    small, large = sorted((one, other))
    assert in_share(salt, key, large) or not in_share(salt, key, small)


def test_a_shadow_begins_with_all_tenants_and_a_canary_with_few_unless_told():
    assert first_share("shadow", PLATFORM_TENANT, None) == 100
    assert first_share("canary", PLATFORM_TENANT, None) == 10
    assert first_share("shadow", PLATFORM_TENANT, 30) == first_share("canary", PLATFORM_TENANT, 30) == 30
    assert first_share("canary", "acme", None) == 100


def test_a_share_is_about_as_large_as_it_says_and_another_upgrade_falls_elsewhere():
    taken = {t for t in range(10_000) if in_share("first", str(t), 10)}
    others = {t for t in range(10_000) if in_share("second", str(t), 10)}
    assert 900 < len(taken) < 1_100
    assert 900 < len(others) < 1_100
    assert len(taken & others) < 200
    assert not any(in_share("x", str(t), 0) for t in range(1_000))
    assert all(in_share("x", str(t), 100) for t in range(1_000))


# ---------------------------------------------------------------------------- windows


@pytest.mark.parametrize(
    ("days", "hours", "zone", "moment", "open_then"),
    [
        ("mon-fri", "09:00-17:00", "UTC", "2026-11-20T09:00+00:00", True),
        ("mon-fri", "09:00-17:00", "UTC", "2026-11-20T17:00+00:00", False),
        ("mon-fri", "09:00-17:00", "UTC", "2026-11-21T12:00+00:00", False),
        ("fri", "22:00-04:00", "UTC", "2026-11-20T23:00+00:00", True),
        ("fri", "22:00-04:00", "UTC", "2026-11-21T03:59+00:00", True),
        ("fri", "22:00-04:00", "UTC", "2026-11-20T03:00+00:00", False),
        ("fri", "22:00-04:00", "UTC", "2026-11-21T22:30+00:00", False),
        ("mon-sun", "02:00-03:00", "Europe/Berlin", "2026-07-01T00:30+00:00", True),
        ("mon-sun", "02:00-03:00", "Europe/Berlin", "2026-12-01T00:30+00:00", False),
        ("sat-mon", "00:00-00:00", "UTC", "2026-11-23T12:00+00:00", True),
        ("sat-mon", "00:00-00:00", "UTC", "2026-11-24T12:00+00:00", False),
    ],
)
def test_a_window_is_open_on_its_days_in_its_hours_in_its_zone(days, hours, zone, moment, open_then):
    assert parse_window(days, hours, zone).contains(datetime.fromisoformat(moment)) is open_then


@given(st.integers(0, 23), st.integers(0, 23), st.integers(0, 7 * 24 * 4))
def test_a_window_and_the_rest_of_the_day_are_the_whole_day(begins, ends, quarters):
    moment = datetime(2026, 11, 16, tzinfo=UTC) + timedelta(minutes=15 * quarters)
    window = parse_window("mon-sun", f"{begins:02}:00-{ends:02}:00", "UTC")
    rest = parse_window("mon-sun", f"{ends:02}:00-{begins:02}:00", "UTC")
    if begins == ends:
        assert window.contains(moment)
    else:
        assert window.contains(moment) is not rest.contains(moment)


@pytest.mark.parametrize(
    ("days", "hours", "zone"),
    [
        ("someday", "09:00-17:00", "UTC"),
        ("mon", "9-17", "UTC"),
        ("mon", "25:00-26:00", "UTC"),
        ("mon", "09:00-17:00", "x"),
    ],
)
def test_a_window_that_cannot_be_read_is_refused(days, hours, zone):
    with pytest.raises(ValidationFailed):
        parse_window(days, hours, zone)


# ---------------------------------------------------------------------------- channels, trials


def test_each_channel_takes_what_the_calmer_ones_take_and_its_own():
    taken = {
        channel: {v for v in ("2.0.0", "2.0.0-rc.1", "2.0.0-beta.2", "2.0.0-alpha", "2.0.0-nightly.3")
                  if follows(channel, make_manifest(version=v))}
        for channel in CHANNELS
    }  # fmt: skip
    assert [len(taken[c]) for c in CHANNELS] == [1, 2, 3, 4]
    assert taken["stable"] == {"2.0.0"}
    assert taken["rc"] - taken["stable"] == {"2.0.0-rc.1"}
    assert check_channel("beta") == "beta"
    with pytest.raises(ValidationFailed, match="nightly"):
        check_channel("nightly")


TRIAL = Trial("u1", "2.0.0", "canary", 100, datetime(2026, 1, 1, tzinfo=UTC), frozenset({"kv"}), frozenset({"http"}))
ACTIVE = Activation("acme/hello", "1.0.0", ActivationState.ACTIVE, frozenset({"kv", "log"}))


def test_a_trial_begins_from_active_and_ends_in_one_of_two_versions():
    on = domain.start_trial(ACTIVE, TRIAL, "acme")
    assert (on.state, on.version, on.trial) == (ActivationState.UPGRADING, "1.0.0", TRIAL)
    assert on.running
    promoted = domain.promote_trial(on, "acme")
    assert (promoted.state, promoted.version, promoted.previous) == (ActivationState.ACTIVE, "2.0.0", "1.0.0")
    assert (promoted.grants, promoted.denied, promoted.upgrade) == (TRIAL.grants, TRIAL.denied, None)
    assert domain.end_trial(on, "acme") == ACTIVE
    assert domain.switch_off(on, "acme").upgrade is None
    degraded = domain.replace(on, state=ActivationState.DEGRADED)
    assert degraded.trial is None, "what is degraded takes no trials"
    for step in (domain.promote_trial, domain.end_trial):
        with pytest.raises(LifecycleError):
            step(ACTIVE, "acme")
    with pytest.raises(LifecycleError):
        domain.start_trial(on, domain.replace(TRIAL, id="u2"), "acme")


def test_decisions_go_to_the_versions_that_ask():
    old = make_manifest(capabilities={n: {"why": WHY} for n in ("kv", "log")})
    new = make_manifest(version="2.0.0", capabilities={n: {"why": WHY} for n in ("kv", "config")})
    mine, theirs = domain.split_decisions(old, new, {"kv": True, "log": False, "config": True, "http": True})
    assert mine == {"kv": True, "log": False, "http": True}, "what nobody asks for is refused there"
    assert theirs == {"kv": True, "config": True}


# ---------------------------------------------------------------------------- figures


@given(st.integers(1, 10**9))
def test_a_bucket_is_never_below_its_time_and_at_most_4_5_percent_above(micros):
    assert micros <= bound(bucket(micros)) * 1.0000001 <= micros * 1.0451


@given(st.lists(st.tuples(st.integers(0, 10**7), st.booleans()), max_size=60), st.integers(0, 60))
def test_arms_of_several_processes_add_up_and_survive_json(calls, cut):
    whole, one, two = Arm(), Arm(), Arm()
    for index, (micros, failed) in enumerate(calls):
        whole.note(micros, failed)
        (one if index < cut else two).note(micros, failed)
    stored = [Arm.of(orjson.loads(orjson.dumps(arm.plain()))) for arm in (one, two)]
    assert stored[0] + stored[1] == whole
    assert whole - one == two


def arm(calls: int, failures: int = 0, micros: int = 1_000, slow: int = 0, slow_micros: int = 50_000) -> Arm:
    found = Arm()
    for number in range(calls):
        found.note(slow_micros if number < slow else micros, number < failures)
    return found


@pytest.mark.parametrize(
    ("canary", "stable", "word"),
    [
        (arm(99, 99), arm(1_000), None),
        (arm(100, 0), arm(1_000), None),
        (arm(100, 100), arm(1_000), "failed"),
        (arm(100, 100), arm(1_000, 1_000), None),
        (arm(100, 2), arm(1_000), None),
        (arm(1_000, 50), arm(1_000, 5), "failed"),
        (arm(200, 20), arm(10), "too few to compare"),
        (arm(1_000, slow=60), arm(1_000), "took longer"),
        (arm(1_000, slow=5), arm(1_000), None),
        (arm(1_000, slow=60), arm(10), None),
        (arm(1_000, micros=5_000), arm(1_000), None),
        (arm(1_000, micros=9_000), arm(1_000), "took longer"),
    ],
)
def test_the_verdict_needs_enough_calls_and_a_difference_beyond_the_margin(canary, stable, word):
    found = verdict(canary, stable, Thresholds())
    assert (found is None) if word is None else (word in found)


def test_equal_versions_are_hardly_ever_sent_back_and_worse_ones_soon():
    chance = random.Random(7)

    def drawn(calls: int, rate: float) -> Arm:
        found = Arm()
        for _ in range(calls):
            found.note(int(chance.lognormvariate(7, 0.8)), chance.random() < rate)
        return found

    stable = drawn(5_000, 0.02)
    no_margin = Thresholds(error_points=0, slower_percent=0, slower_ms=0)
    alarms = sum(verdict(drawn(200, 0.02), stable, no_margin) is not None for _ in range(400))
    assert alarms <= 2, "even without any margin"
    found = sum(verdict(drawn(200, 0.15), stable, Thresholds()) is not None for _ in range(100))
    assert found >= 95


def test_the_least_plausible_rate_is_below_the_seen_one_and_nears_it_with_more_calls():
    rates = [at_least(n // 10, n) for n in (10, 100, 1_000, 100_000)]
    assert rates == sorted(rates)
    assert rates[-1] < 0.1
    assert rates[-1] > 0.095
    assert at_least(0, 0) == 0
    assert at_least(0, 50) == 0
    assert at_most(50, 50) == 1
    assert 0.1 < at_most(100, 1_000) < 0.135


@given(st.integers(1, 400), st.data())
def test_the_interval_holds_the_rate_as_exactly_as_it_says(total, data):
    successes = data.draw(st.integers(1, total))
    low = at_least(successes, total)
    chance = sum(math.comb(total, n) * low**n * (1 - low) ** (total - n) for n in range(successes, total + 1))
    assert chance == pytest.approx(0.001, rel=1e-3)
    assert low < successes / total <= at_most(successes, total)


# ---------------------------------------------------------------------------- comparison

PAYLOAD = {"email": "ada@example.com", "name": "Ada", "attributes": {}}


def call(**changes) -> GuestCall:
    manifest = make_manifest(hooks={"user_creating": {}})
    asked = {"hook": "user_creating", "payload": orjson.dumps(PAYLOAD).decode(), "context": Context("acme"), **changes}
    return GuestCall("acme/hello", "1.0.0", "d" * 64, manifest, **asked)


def result(reply: object, *, kv=None, events=(), uses=(), wall=100, recording=()) -> GuestResult:
    effects = Effects(kv_writes=dict(kv or {}), events=list(events))
    usage = GuestUsage(wall, 0, 0, 0, uses=dict.fromkeys(uses, 1))
    return GuestResult(orjson.dumps(reply).decode(), effects, usage, (), recording)


def named(name: str) -> GuestResult:
    return result({"payload": {**PAYLOAD, "name": name}})


def emitted(number: int) -> GuestResult:
    return result({}, events=[NewEvent("a.b", {"n": number})])


@pytest.mark.parametrize(
    ("old", "new", "fields"),
    [
        (result({}), result({"payload": None}), []),
        (result({}), result({"payload": PAYLOAD}), []),
        (result({}), result({"payload": {**PAYLOAD, "name": "Eve"}}), ["answer.payload"]),
        (named("A"), named("B"), ["answer.payload.name"]),
        (result({}), result({"reject": {"reason": "no"}}), ["answer.reject"]),
        (result({"answer": {"n": 1}}), result({"answer": {"n": True}}), ["answer.answer.n"]),
        (result({}, kv={"a": "1"}), result({}, kv={"a": "2", "b": "1"}), ["kv.a", "kv.b"]),
        (result({}, kv={"ada@example.com": "1"}), result({}), ["kv.a key of 15 characters"]),
        (emitted(1), emitted(2), ["events[0].data.n"]),
        (result({}, events=[NewEvent("a.b", {})]), result({}), ["events"]),
        (result({}), DeadlineExceeded("late"), ["result"]),
        (DeadlineExceeded("late"), DeadlineExceeded("later"), []),
    ],
)  # fmt: skip
def test_versions_differ_in_what_counts_and_the_fields_are_named(old, new, fields):
    found = compare(call(), old, new)
    assert [d.field for d in found.differences] == fields


@given(words, words)
def test_no_value_is_ever_told(one, other):
    reply = {"payload": {**PAYLOAD, "name": f"secret-{one}", "email": f"secret-{other}"}}
    found = compare(call(), result({}, kv={"k": f"secret-{one}"}), result(reply, kv={"k": f"secret-{other}!"}))
    assert found.differences
    assert "secret" not in str(found)


def test_what_only_the_new_version_reaches_for_is_named():
    old = result({}, uses=["http.send GET a.example"])
    new = result({}, uses=["http.send GET a.example", "http.send POST b.example", "kv.get"])
    assert compare(call(), old, new).reached == ("http.send POST b.example",)


def test_reports_of_tenants_and_processes_are_added_up_and_kept_apart():
    one, two = Report(), Report()
    one.note(call(), result({}), result({}))
    two.note(call(), result({}), result({}, kv={"a": "1"}))
    stable, canary = arm(3), arm(2, 1)
    measured = [("acme", SHADOW, orjson.loads(orjson.dumps(r.plain()))) for r in (one, two)]
    measured += [("globex", SHADOW, one.plain()), ("acme", OLD, stable.plain()), ("acme", NEW, canary.plain())]
    shown = report(measured)
    acme = shown["shadow"]["acme"]
    assert (acme["calls"], acme["same"], acme["different"], acme["fields"]) == (2, 1, 1, {"kv.a": 1})
    assert shown["shadow"]["globex"]["calls"] == 1
    assert (shown["canary"]["old"]["calls"], shown["canary"]["new"]["failures"]) == (3, 1)


# ---------------------------------------------------------------------------- the mirror


class Control:
    def __init__(self) -> None:
        self.calls: list[GuestCall] = []
        self.go = asyncio.Event()
        self.go.set()

    async def rehearse(self, twin: GuestCall) -> GuestResult:
        await self.go.wait()
        self.calls.append(twin)
        return result({})


async def test_mirrored_calls_get_the_recording_and_outlive_the_requests_deadline():
    control, told = Control(), []
    mirror = Mirror(control, lambda *found: told.append(found))
    mirror.start()
    exchange = HostExchange("http.send", (), {"status": 200})
    late = call(context=Context("acme", deadline=0.0))
    mirror.offer("u1", late, result({}, recording=(exchange,)), late)
    await mirror.settled()
    await mirror.stop()
    (twin,) = control.calls
    assert twin.replay.exchanges == (exchange,)
    assert not twin.replay.strict
    assert twin.context.remaining() > 1
    assert [(id, c) for id, c, _, _ in told] == [("u1", late)]


async def test_a_full_queue_never_waits_and_counts_what_it_leaves_out():
    control, told = Control(), []
    control.go.clear()
    mirror = Mirror(control, lambda *found: told.append(found), longest=3)
    for _ in range(8):
        mirror.offer("u1", call(), result({}), call())
    assert [new for *_, new in told] == [None] * 5
    control.go.set()
    mirror.start()
    await mirror.settled()
    await mirror.stop()
    assert len(control.calls) == 3


async def test_a_hook_that_the_new_version_lacks_counts_as_no_opinion():
    control, told = Control(), []
    mirror = Mirror(control, lambda *found: told.append(found))
    mirror.start()
    twin = domain.replace(call(), manifest=make_manifest(version="2.0.0"))
    mirror.offer("u1", call(), result({"reject": {"reason": "no"}}), twin)
    await mirror.settled()
    await mirror.stop()
    assert control.calls == []
    ((_, live, old, new),) = told
    assert [d.field for d in compare(live, old, new).differences] == ["answer.reject"]


# ---------------------------------------------------------------------------- the monitor


class Watched:
    """Breakers and upgrades, as far as the monitor sees them."""

    def __init__(self) -> None:
        self.observers = []
        self.open_ones: list[BreakerRecord] = []

    def watch(self, observer) -> None:
        self.observers.append(observer)

    def states(self, tenant=None, plugin=None) -> list[BreakerRecord]:
        return self.open_ones


class Store:
    def __init__(self) -> None:
        self.away = False
        self.put: list[tuple[str, str, str, dict]] = []

    @asynccontextmanager
    async def write(self, scope, context=None):
        if self.away:
            raise DeadlineExceeded("away")
        yield scope

    async def put_figures(self, transaction, upgrade, instance, arm, data) -> None:
        self.put.append((transaction, upgrade, arm, data))


def upgrade(**changes) -> Upgrade:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    members = {"mode": "canary", "tenants": 10, "calls": 100, "thresholds": Thresholds(), "owner": "platform"}
    named = {"id": "u1", "plugin": "acme/hello", "version": "2.0.0", "state": UpgradeState.RUNNING}
    return Upgrade(**(named | members | changes), started_at=now, started_by="me")


class Upgrades:
    changed = None


async def test_calls_are_counted_by_version_from_the_moment_an_upgrade_begins():
    store, trials, breakers = Store(), Upgrades(), Watched()
    monitor = Monitor(store, store, trials, breakers)
    monitor.note(call(), result({}))
    trials.changed(upgrade())
    for version, outcome in (("1.0.0", result({})), ("2.0.0", DeadlineExceeded("late")), ("2.0.0", result({}))):
        monitor.note(domain.replace(call(), version=version), outcome)
    monitor.note(domain.replace(call(), version="2.0.0"), GuestInputTooLarge("too large"))
    store.away = True
    await monitor.flush()
    assert store.put == []
    store.away = False
    await monitor.flush()
    await monitor.flush()
    counted = {(tenant, arm): (data["calls"], data["failures"]) for tenant, _, arm, data in store.put}
    assert counted == {("acme", OLD): (1, 0), ("acme", NEW): (2, 1)}
    assert len(store.put) == 2
    trials.changed(upgrade(state=UpgradeState.PROMOTED))
    monitor.note(call(), result({}))
    await monitor.flush()
    assert len(store.put) == 2


async def test_an_upgrade_begun_elsewhere_is_looked_for_as_soon_as_it_is_heard_of():
    trials, looked = Upgrades(), asyncio.Semaphore(0)

    async def open_ones():
        looked.release()
        return [upgrade()] if monitor._next_round else []

    trials.open = open_ones
    trials.end_strays = lambda context, known: asyncio.sleep(0)
    monitor = Monitor(Store(), Store(), trials, Watched(), interval=3_600)
    monitor.start()
    await looked.acquire()
    await asyncio.sleep(0)
    monitor.heard("acme", {"upgrade": "u1"})
    async with asyncio.timeout(10):
        await looked.acquire()
        while not monitor._canaries:  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0)
    await monitor.stop()


async def test_an_upgrade_that_begins_while_the_others_are_read_is_not_forgotten():
    trials = Upgrades()

    async def open_ones():
        trials.changed(upgrade())
        return []

    trials.open = open_ones
    trials.end_strays = lambda context, known: asyncio.sleep(0)
    monitor = Monitor(Store(), Store(), trials, Watched())
    await monitor.tick()
    assert [found.id for found in monitor._canaries["acme/hello"]] == ["u1"]


async def test_an_admins_upgrade_counts_only_the_own_tenants_calls():
    store, trials = Store(), Upgrades()
    monitor = Monitor(store, store, trials, Watched())
    trials.changed(upgrade(owner="globex"))
    monitor.note(call(), result({}))
    monitor.note(call(context=Context("globex")), result({}))
    await monitor.flush()
    assert [tenant for tenant, *_ in store.put] == ["globex"]


@pytest.mark.parametrize(("stable_open", "goes_back"), [(False, True), (True, False)])
async def test_a_breaker_that_opens_is_cause_unless_the_stable_version_fails_too(stable_open, goes_back):
    trials, breakers = Upgrades(), Watched()
    monitor = Monitor(Store(), Store(), trials, breakers)
    trials.changed(upgrade())
    new = BreakerRecord("acme/hello", "2.0.0", "acme", "user_creating", "open", failures=5, error="trapped")
    old = domain.replace(new, version="1.0.0")
    breakers.open_ones = [new, *([old] if stable_open else [])]
    for record in breakers.open_ones:
        breakers.observers[0](record)
    reason = monitor._resting(upgrade())
    assert (reason is not None) is goes_back
    assert monitor._resting(upgrade()) is None, "each opening is judged once"
