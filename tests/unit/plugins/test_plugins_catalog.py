"""The catalog: rules of consent, activation and versions, without a database; and the sums of executions."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import GuestFailure
from plugin_sdk import (
    ActivationState,
    Conflict,
    ConsentRequired,
    Context,
    KeelstoneError,
    LifecycleError,
    ValidationFailed,
)
from plugin_sdk.configuration import settle
from plugin_sdk.services import GuestCall, GuestResult
from plugin_sdk.testing import FakeTransaction
from plugins.builtin.catalog import domain
from plugins.builtin.catalog.domain import Activation
from plugins.builtin.catalog.ledger import ExecutionLedger
from tests.support.manifests import WHY, make_manifest

NAMES = ["config", "kv", "log"]


def asking(*names: str, version: str = "1.0.0"):
    return make_manifest(version=version, capabilities={n: {"why": WHY} for n in names})


def activation(**changes) -> Activation:
    return replace(Activation("acme/hello", "1.0.0", ActivationState.ACTIVE), **changes)


sets = st.frozensets(st.sampled_from(NAMES))
decisions = st.dictionaries(st.sampled_from(NAMES), st.booleans())


@given(sets, sets, sets, decisions)
def test_nothing_is_granted_that_was_not_asked_for_and_decided(asked, granted, denied, decided):
    present = activation(grants=granted - denied, denied=denied)
    try:
        yes, no = domain.decide(asking(*asked), present, decided, "acme")
    except ConsentRequired as error:
        undecided = asked - present.grants - present.denied - decided.keys()
        assert undecided
        assert all(name in str(error.found) for name in undecided)  # noqa: PT017
        return
    except ValidationFailed:
        assert set(decided) - asked
        return
    assert yes | no == asked
    assert not yes & no
    for name in asked:
        wanted = decided.get(name, name in present.grants)
        assert (name in yes) == wanted


@pytest.mark.parametrize("decisions", [["kv"], "kv", 1, {"kv": "yes"}, {"kv": 1}, {"kv": None}])
def test_decisions_are_a_yes_or_no_each(decisions):
    with pytest.raises(ValidationFailed, match="yes or no"):
        domain.decide(asking("kv"), None, decisions, "acme")


@given(sets, sets, sets)
def test_an_update_never_grants_more(asked, granted, denied):
    before = activation(grants=granted - denied, denied=denied)
    after = domain.move(before, asking(*asked, version="2.0.0"))
    assert after.grants <= before.grants
    assert after.grants | after.denied == asked
    assert (after.version, after.previous) == ("2.0.0", "1.0.0")


def test_what_is_asked_for_is_told_in_plain_words_with_what_was_decided():
    manifest = make_manifest(
        capabilities={
            "http": {"why": WHY, "hosts": ["api.example.com", "setting:hook_url"], "methods": ["POST"]},
            "kv": {"why": WHY},
            "log": {"why": WHY},
        },
        limits={"kv_keys": 7},
    )
    http, kv, log = domain.requests(manifest, activation(grants=frozenset({"kv"}), denied=frozenset({"log"})))
    assert http.what == "Hello wants to send requests (POST) to api.example.com, the host in your setting hook_url"
    assert "7 small values" in kv.what
    assert [(r.decision, r.new) for r in (http, kv, log)] == [
        ("undecided", True),
        ("granted", False),
        ("denied", False),
    ]
    assert all(r.worst and r.why == WHY for r in (http, kv, log))


def test_switching_on_goes_through_consent_and_remembers_the_version_before():
    first = domain.switch(None, "acme/hello", "1.0.0", "acme")
    assert (first.state, first.previous) == (ActivationState.ACTIVE, None)
    assert domain.switch(first, "acme/hello", "1.0.0", "acme") is first
    second = domain.switch(first, "acme/hello", "2.0.0", "acme")
    assert (second.version, second.previous) == ("2.0.0", "1.0.0")
    off = replace(second, state=ActivationState.DISABLED)
    again = domain.switch(off, "acme/hello", "2.0.0", "acme")
    assert (again.state, again.previous) == (ActivationState.ACTIVE, "1.0.0")
    with pytest.raises(LifecycleError):
        domain.switch(replace(first, state=ActivationState.DRAINING), "acme/hello", "1.0.0", "acme")


def test_going_back_needs_something_to_go_back_to():
    assert domain.go_back(activation(previous="0.9.0"), "acme") == "0.9.0"
    with pytest.raises(Conflict, match="no earlier version"):
        domain.go_back(activation(), "acme")


def test_what_is_in_use_or_required_is_not_uninstalled():
    domain.check_uninstallable("acme/hello", "1.0.0", {"2.0.0": 3}, [])
    with pytest.raises(Conflict, match="active for 3 tenants"):
        domain.check_uninstallable("acme/hello", "2.0.0", {"2.0.0": 3}, [])
    with pytest.raises(Conflict, match="required by acme/app"):
        domain.check_uninstallable("acme/hello", "1.0.0", {}, ["acme/app"])


# ---------------------------------------------------------------------------- settings

SCHEMA = {
    "type": "object",
    "properties": {"limit": {"type": "integer", "default": 0}, "words": {"type": "array", "default": []}, "x": {}},
}


def test_defaults_are_filled_in_falsy_ones_too_and_not_shared():
    first = settle(SCHEMA, {}, plugin="p/p1", tenant="acme")
    assert first == {"limit": 0, "words": []}
    first["words"].append("x")
    assert settle(SCHEMA, {}, plugin="p/p1", tenant="acme")["words"] == []
    assert settle(SCHEMA, {"limit": 5}, plugin="p/p1", tenant="acme")["limit"] == 5


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"limit": "many"}, "limit"),
        ({"colour": "red"}, "unknown setting colour"),
        ({"x": 2**70}, "64 bits"),
        ({"x": {"deep": float("nan")}}, "x.deep"),
        ({"x": "\ud800"}, "surrogate"),
    ],
)
def test_settings_that_do_not_fit_are_told_by_their_place(given, told):
    with pytest.raises(ValidationFailed) as caught:
        settle(SCHEMA, given, plugin="p/p1", tenant="acme")
    assert told in caught.value.detail


def test_a_plugin_without_settings_takes_none():
    assert settle(None, {}, plugin="p/p1", tenant="acme") == {}
    with pytest.raises(ValidationFailed, match="has no settings"):
        settle(None, {"a": 1}, plugin="p/p1", tenant="acme")


# ---------------------------------------------------------------------------- executions


class FakeDatabase:
    def __init__(self) -> None:
        self.away = False
        self.told: list[tuple[str, dict]] = []

    @asynccontextmanager
    async def write(self, scope, context=None):
        if self.away:
            raise KeelstoneError("away")
        transaction = FakeTransaction(scope)
        yield transaction
        self.told += [(scope, dict(event.data)) for _, event in transaction.emitted]


def call(tenant="acme", hook="user_creating", payload="{}") -> GuestCall:
    return GuestCall("acme/hello", "1.0.0", "d" * 64, make_manifest(), hook, payload, Context(tenant))


def result(micros: int) -> GuestResult:
    from kernel.ports import Effects, GuestUsage

    return GuestResult("{}", Effects(), GuestUsage(micros, 0, 0, 0))


async def test_calls_are_summed_by_tenant_and_hook_and_told_once():
    database = FakeDatabase()
    ledger = ExecutionLedger(database)
    ledger.note(call(), result(10))
    ledger.note(call(), GuestFailure("trapped"))
    ledger.note(call("globex"), result(0))
    await ledger.flush()
    await ledger.flush()
    sums = {tenant: (d["calls"], d["failures"], d["microseconds"]) for tenant, d in database.told}
    assert sums == {"acme": (2, 1, 10), "globex": (1, 0, 0)}
    assert len(database.told) == 2


async def test_what_cannot_be_stored_now_is_told_later_and_nothing_twice(caplog):
    database = FakeDatabase()
    ledger = ExecutionLedger(database)
    ledger.note(call(), result(10))
    database.away = True
    with caplog.at_level("CRITICAL"):
        await ledger.flush()
    ledger.note(call(), result(5))
    database.away = False
    await ledger.flush()
    assert [d["calls"] for _, d in database.told] == [2]


async def test_a_plugin_that_observes_its_own_sums_does_not_keep_itself_busy():
    database = FakeDatabase()
    ledger = ExecutionLedger(database)
    ledger.note(call(hook="event_received", payload='{"id":"e","type":"plugin.executed"}'), result(1))
    ledger.note(call(hook="event_received", payload='{"id":"e","type":"user.created"}'), result(1))
    await ledger.flush()
    assert [d["calls"] for _, d in database.told] == [1]
