"""Metering without a database: what is counted, budgets, masking, advice."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import BackendUnavailable, BudgetSpent, GuestFailure, PluginFailed, ValidationFailed
from kernel.ports import Effects, GuestCall, GuestResult, GuestUsage, HostExchange, Replay
from plugin_sdk import Context, NewEvent
from plugin_sdk.recordings import RecordedExchange, RecordedOutcome, Recording, parse_recording, personal_fields, record
from plugin_sdk.reporting import FIGURES
from plugins.builtin.metering.advising import Observed, advise
from plugins.builtin.metering.domain import (
    CALLS,
    COUNTERS,
    FAILURES,
    MEMORY,
    OWN,
    REFUSED,
    WALL,
    Budget,
    Meter,
    UsageKey,
    check_budget,
    period_start,
    tell,
)
from plugins.builtin.metering.figures import Figures
from plugins.builtin.metering.ledger import MAX_USES, UsageLedger
from plugins.builtin.metering.redaction import Redactor, shaped
from plugins.builtin.metering.rest import bucket_in
from tests.support.manifests import WHY, make_manifest

KEY = UsageKey("acme", "acme/hello", "1.0.0", "user_creating")


def call(tenant="acme", hook="user_creating", payload="{}", **more) -> GuestCall:
    return GuestCall("acme/hello", "1.0.0", "d" * 64, make_manifest(), hook, payload, Context(tenant), **more)


def result(wall=1_000, memory=1 << 20, **more) -> GuestResult:
    return GuestResult("{}", Effects(), GuestUsage(wall, memory, 2, 30, **more))


# ---------------------------------------------------------------------------- the ledger


def test_calls_are_summed_by_tenant_plugin_version_and_hook():
    ledger = UsageLedger()
    ledger.note(call(), result())
    ledger.note(call(), result(wall=3_000))
    ledger.note(call("globex"), result())
    ledger.note(call(hook="event_received"), result())
    taken = ledger.take()
    sums = dict(zip(COUNTERS, taken.sums[KEY], strict=False))
    assert sums == {
        "calls": 2,
        "failures": 0,
        "refused": 0,
        "wall_us": 4_000,
        "cpu_us": 0,
        "memory_kib_ms": 4 * 1_024,
        "host_calls": 4,
        "http_bytes": 60,
        "kv_bytes": 0,
        "ai_tokens": 0,
    }
    assert {(k.tenant, k.hook) for k in taken.sums} == {
        ("acme", "user_creating"),
        ("globex", "user_creating"),
        ("acme", "event_received"),
    }
    assert ledger.take().sums == {}


def test_a_failed_call_counts_what_it_used_until_then():
    ledger = UsageLedger()
    failed = GuestFailure("trapped")
    failed.usage = GuestUsage(500, 1 << 20, 1, 0)
    ledger.note(call(), failed)
    odd = PluginFailed("nonsense")
    odd.usage = GuestUsage(700, 1 << 20, 0, 0)
    ledger.note(call(), odd)
    ledger.note(call(), GuestFailure("never ran"))
    sums = ledger.take().sums[KEY]
    assert (sums[CALLS], sums[FAILURES], sums[WALL]) == (3, 3, 1_200)
    assert sums[MEMORY] == 1_024 * 500 // 1_000 + 1_024 * 700 // 1_000


def test_a_replay_is_nobodys_usage():
    ledger = UsageLedger()
    ledger.note(call(replay=Replay(())), result())
    assert ledger.take().sums == {}


def test_calls_for_our_own_event_are_counted_apart():
    ledger = UsageLedger()
    ledger.note(call(hook="event_received", payload='{"id":"e","type":"plugin.executed"}'), result())
    ledger.note(call(hook="event_received", payload='{"id":"e","type":"user.created"}'), result())
    sums = ledger.take().sums[replace(KEY, hook="event_received")]
    assert (sums[CALLS], sums[OWN]) == (2, 1)


def test_what_cannot_be_stored_is_given_back_and_nothing_counts_twice():
    ledger = UsageLedger()
    ledger.note(call(), result(uses={"kv.get": 2}))
    taken = ledger.take()
    ledger.note(call(), result(wall=9_000, uses={"kv.get": 1}))
    ledger.give_back(taken)
    again = ledger.take()
    assert (again.sums[KEY][CALLS], again.sums[KEY][WALL]) == (2, 10_000)
    profile = again.profiles["acme", "acme/hello", "1.0.0"]
    assert (profile.calls, profile.peaks[0], profile.uses) == (2, 9_000, {"kv.get": 3})


def test_names_that_a_guest_makes_up_for_ever_are_summed_together():
    ledger = UsageLedger()
    for number in range(MAX_USES + 500):
        ledger.note(call(), result(uses={f"http.send GET h{number}.example.com": 1}))
    uses = ledger.take().profiles["acme", "acme/hello", "1.0.0"].uses
    assert len(uses) == MAX_USES + 1
    assert uses["http.send (others)"] == 500


def test_peaks_are_the_most_of_any_one_call():
    ledger = UsageLedger()
    ledger.note(call(payload="x" * 90), result(memory=5 << 20))
    effects = Effects(events=[NewEvent("a.b", {}), NewEvent("a.b", {})])
    ledger.note(call(), GuestResult("yes", effects, GuestUsage(10, 1 << 20, 7, 0, ai_tokens=4)))
    profile = ledger.take().profiles["acme", "acme/hello", "1.0.0"]
    assert profile.peaks == [1_000, 5 << 20, 7, 30, 0, 90, 3, 2, 0, 4]


# ---------------------------------------------------------------------------- budgets


def held(**bounds) -> tuple[Meter, UsageLedger]:
    meter = Meter(Budget("acme", "acme/hello", "day", "admin", **bounds), (0, 0, 0, 0))
    return meter, UsageLedger(lambda tenant, plugin: (meter,) if tenant == "acme" else ())


@pytest.mark.parametrize(
    ("bounds", "passes"),
    [({"calls": 3}, 3), ({"wall_ms": 2}, 2), ({"ai_tokens": 25}, 3), ({"http_bytes": 31}, 2), ({"calls": 0}, 0)],
)
def test_calls_pass_until_a_bound_is_reached_and_the_refusal_says_used_and_allowed(bounds, passes):
    _, ledger = held(**bounds)
    for _ in range(passes):
        ledger.admit(call())
        ledger.note(call(), result(ai_tokens=10))
    with pytest.raises(BudgetSpent) as caught:
        ledger.admit(call())
    [(name, bound)] = bounds.items()
    assert caught.value.extra["budget"] == name
    assert caught.value.extra["allowed"] == bound
    assert caught.value.extra["used"] >= bound
    assert ledger.take().sums[KEY][REFUSED] == 1
    ledger.admit(call("globex"))


def test_news_is_told_once_at_four_fifths_and_once_when_spent():
    meter, ledger = held(calls=10)
    told = []
    for _ in range(12):
        ledger.note(call(), result())
        news = meter.news("2026-11-22T00")
        told += [(kind, used) for kind, _, used, _ in news]
        meter.budget = tell(meter.budget, "2026-11-22T00", news)
    assert told == [("warned", 8), ("spent", 10)]
    assert [kind for kind, *_ in meter.news("2026-11-23T00")] == ["spent"], "another day is told anew"


def test_a_budget_without_a_bound_is_refused():
    with pytest.raises(ValidationFailed):
        check_budget(Budget("acme", "*", "month", "admin"))


@given(st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2090, 1, 1)))
def test_a_period_begins_no_later_than_now_and_in_the_same_month(moment):
    now = moment.replace(tzinfo=UTC)
    day, month = period_start("day", now), period_start("month", now)
    assert month <= day <= now.strftime("%Y-%m-%dT%H")
    assert day.endswith("T00")
    assert month.endswith("-01T00")
    assert month[:7] == day[:7] == now.strftime("%Y-%m")


@pytest.mark.parametrize(
    ("text", "bucket"),
    [
        ("2026", "2026"),
        ("2026-11-22T23", "2026-11-22T23"),
        ("2026-11-22T23:30:00+02:00", "2026-11-22T21"),
        (None, None),
    ],
)
def test_a_time_is_taken_as_people_write_it(text, bucket):
    assert bucket_in(text) == bucket


@pytest.mark.parametrize("text", ["yesterday", "2026-1", "2026-11-22T23:30:00", "", "~"])
def test_a_time_that_is_none_is_refused(text):
    with pytest.raises(ValidationFailed):
        bucket_in(text)


# ---------------------------------------------------------------------------- recordings

RECORDING = Recording(
    plugin="acme/hello",
    version="1.0.0",
    digest="d" * 64,
    hook="user_creating",
    payload='{"email":"ada@example.com","name":"Zoë O\'Neil","attributes":{"plan":"gold","age":42,"x":null,"on":true}}',
    settings={"api_key": "sk-123456789", "limit": 3},
    exchanges=(
        RecordedExchange(
            function="kv.get", arguments=("user:ada@example.com",), answer='{"n":1,"name":"Zo\\u00eb O\'Neil"}'
        ),
        RecordedExchange(
            function="http.send",
            arguments=(
                {"headers": [{"name": "authorization", "value": "Bearer abcdefgh12345"}], "body": "sk-123456789"},
            ),
            answer={"status": 200, "body": "tenant acme-inc said bob@corp.example"},
        ),
    ),
    outcome=RecordedOutcome(code="guest-trap", detail="Zoë O'Neil", trap="wasm trap: unreachable"),
)


def masked(recording: Recording = RECORDING, key: bytes = b"k" * 32) -> Recording:
    return Redactor(["e_mail", "Name"]).redact(
        recording, key, marked=personal_fields(recording.hook), tenant="acme-inc"
    )


def test_nothing_personal_and_no_secret_is_left_anywhere():
    text = masked().text()
    for value in (
        "ada@",
        "example.com",
        "Zoë",
        "Zo\\\\u00eb",
        "Neil",
        "gold",
        "sk-123",
        "abcdefgh",
        "bob@",
        "acme-inc",
    ):
        assert value not in text, value
    assert "wasm trap: unreachable" in text
    assert '"limit": 3' in text


def test_a_value_is_replaced_alike_wherever_it_stands_so_that_a_replay_takes_the_same_path():
    found = masked()
    payload = json.loads(found.payload)
    assert found.exchanges[0].arguments[0] == f"user:{payload['email']}"
    assert json.loads(found.exchanges[0].answer)["name"] == payload["name"]
    assert found.exchanges[1].arguments[0]["body"] == found.settings["api_key"]
    assert found.outcome.detail == payload["name"]


def test_the_shape_stays():
    before, after = json.loads(RECORDING.payload), json.loads(masked().payload)
    assert list(after) == list(before)
    assert re.fullmatch(r"[a-z]{3}@[a-z]{7}\.[a-z]{3}", after["email"])
    assert len(after["name"].encode()) == len(before["name"].encode())
    assert after["attributes"]["x"] is None
    assert after["attributes"]["on"] is True
    assert 10 <= after["attributes"]["age"] <= 99
    assert len(masked().payload.encode()) == len(RECORDING.payload.encode())


def test_masked_places_are_named_and_two_recordings_share_no_replacement():
    assert "payload.email" in masked().masked
    assert "settings.api_key" in masked().masked
    assert masked(key=os.urandom(32)).payload != masked(key=os.urandom(32)).payload


@given(st.text(max_size=60), st.binary(min_size=16, max_size=32))
def test_any_text_keeps_its_length_in_characters_and_bytes(text, key):
    other = shaped(text, key)
    assert len(other) == len(text)
    assert len(other.encode("utf-8", "surrogatepass")) == len(text.encode("utf-8", "surrogatepass"))
    assert shaped(text, key) == other


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_any_payload_can_be_masked_and_keeps_its_kind(value):
    recording = replace_payload(json.dumps({"email": value, "other": value}))
    found = json.loads(masked(recording).payload)
    assert same_kind(found["email"], value)


def replace_payload(text: str) -> Recording:
    return RECORDING.model_copy(update={"payload": text})


def same_kind(one, other) -> bool:
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return one is other
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_kind, one, other))
    if isinstance(one, dict):
        return len(one) <= len(other)
    return isinstance(one, str) == isinstance(other, str)


def test_a_recording_survives_its_file():
    failed = GuestFailure("trapped", extra={"trap": "unreachable"})
    failed.recording = (HostExchange("kv.get", ("k",), {"code": "limit"}, True),)
    made = record(call(payload='{"a":1}', grants=frozenset({"kv", "http"})), failed)
    assert parse_recording(made.text()) == made
    assert made.replay().exchanges == failed.recording
    assert made.grants == ("http", "kv")
    assert made.outcome.trap == "unreachable"
    with pytest.raises(ValidationFailed, match="not a recording"):
        parse_recording('{"format": 2}')


# ---------------------------------------------------------------------------- advice


def asking(**capabilities):
    return make_manifest(capabilities={n: {"why": WHY, **more} for n, more in capabilities.items()})


def test_what_is_never_used_is_to_be_denied():
    manifest = asking(kv={}, log={})
    advice = advise(manifest, Observed("acme/hello", "1.0.0", 10, {}, {"kv.get": 3}), grants=frozenset({"kv", "log"}))
    assert advice.deny == ("log",)
    assert "[capabilities.log]" not in advice.manifest
    assert "[capabilities.kv]" in advice.manifest


def test_hosts_methods_and_wildcards_become_what_was_called():
    hosts = ["api.example.com", "*.cdn.example.com", "old.example.com", "setting:webhook_url"]
    manifest = asking(http={"hosts": hosts, "methods": ["GET", "POST", "DELETE"]})
    uses = {
        "http.send": 9,
        "http.send GET api.example.com": 4,
        "http.send POST a.cdn.example.com": 1,
        "http.send POST hooks.customer.example": 2,
    }
    advice = advise(manifest, Observed("acme/hello", "1.0.0", 9, {}, uses))
    proposed = {f.what: f.proposed for f in advice.findings}
    assert proposed["capabilities.http.hosts"] == ["api.example.com", "a.cdn.example.com", "setting:webhook_url"]
    assert proposed["capabilities.http.methods"] == ["GET", "POST"]


def test_limits_get_headroom_and_a_limit_that_was_hit_is_to_be_raised():
    manifest = make_manifest(capabilities={"kv": {"why": WHY}})
    peaks = {"wall_us": 12_000, "memory_bytes": 3 << 20, "input_bytes": 700, "host_calls": 4}
    uses = {"kv.set": 9, "limit-kv-bytes": 2}
    advice = advise(manifest, Observed("acme/hello", "1.0.0", 5_000, peaks, uses))
    found = {f.what: f for f in advice.findings}
    assert found["limits.time_ms"].proposed == 24
    assert found["limits.memory_mb"].proposed == 6
    assert found["limits.input_kb"].proposed == 2
    assert found["limits.host_calls"].proposed == 8
    assert found["limits.kv_kb"].direction == "more"
    assert found["limits.kv_kb"].proposed > manifest.limits.kv_kb
    assert advice.enough


@given(st.integers(1, 10**9), st.integers(0, 10**9))
def test_a_proposed_limit_is_never_below_the_peak_nor_above_the_present_one(wall, memory):
    manifest = make_manifest()
    advice = advise(manifest, Observed("acme/hello", "1.0.0", 1, {"wall_us": wall, "memory_bytes": memory}, {}))
    for finding in advice.findings:
        assert finding.used <= finding.proposed < finding.asked


# ---------------------------------------------------------------------------- figures for the marketplace


class Signer:
    """Says who signed, as what; the marketplace's tests check real signatures."""

    def sign(self, kind, statement):
        return json.dumps([kind, statement])

    def public_keys(self):
        return {"keys": ["mine"]}


class Marketplace:
    def __init__(self) -> None:
        self.taken: list[dict] = []
        self.down = False

    async def hand_in(self, what, statement, keys):
        if self.down:
            raise BackendUnavailable("It does not answer.")
        kind, said = json.loads(statement)
        assert (what, kind, keys) == ("figures", FIGURES, {"keys": ["mine"]})
        self.taken.append(said)


async def test_figures_leave_without_a_tenants_name_and_in_coarse_steps():
    market = Marketplace()
    figures = Figures(lambda: market, Signer, now=lambda: 1_800_000_000.0)
    for tenant in ("acme", "globex", "initech"):
        figures.note(call(tenant), result(wall=3_000))
    failed = GuestFailure("It trapped.")
    failed.usage = GuestUsage(70_000, 0, 0, 0)
    figures.note(call(), failed)
    figures.note(call(replay=Replay(())), result())

    figures.take(date(2027, 1, 15))
    assert await figures.hand_in()

    (said,) = market.taken
    (row,) = said["rows"]
    assert (said["day"], row["plugin"], row["version"]) == ("2027-01-15", "acme/hello", "1.0.0")
    assert (row["tenants"], row["calls"], row["errors"]) == (2, 4, 1)
    assert [at for at, number in enumerate(row["latency"]) if number] == [2, 6]
    assert "globex" not in json.dumps(said)


async def test_figures_that_could_not_be_handed_in_are_kept_for_three_days():
    market, now = Marketplace(), [1_800_000_000.0]
    figures = Figures(lambda: market, Signer, now=lambda: now[0])
    market.down = True
    for day in (date(2027, 1, 10), date(2027, 1, 15)):
        figures.note(call(), result())
        figures.take(day)
    assert not await figures.hand_in()
    market.down = False
    assert await figures.hand_in()
    assert [said["day"] for said in market.taken] == ["2027-01-15"]


async def test_a_process_that_ends_hands_in_what_it_has():
    market = Marketplace()
    figures = Figures(lambda: market, Signer, now=lambda: 1_800_000_000.0)
    figures.start()
    figures.note(call(), result())
    await figures.stop()
    await figures.stop()
    assert [said["day"] for said in market.taken] == ["2027-01-15"]
    assert len({said["part"] for said in market.taken}) == 1
