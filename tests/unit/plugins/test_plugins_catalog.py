"""The catalog: rules of consent, activation and versions, without a database."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_sdk import (
    ActivationState,
    Conflict,
    ConsentRequired,
    LifecycleError,
    ValidationFailed,
)
from plugin_sdk.configuration import settle
from plugins.builtin.catalog import domain
from plugins.builtin.catalog.domain import Activation
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
