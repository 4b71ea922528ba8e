"""Differences between versions, in the words that people consent to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.capabilities import Capabilities
from plugin_sdk.differences import _DOES, differences, powers, sentence, widened
from tests.support.manifests import WHY, make_manifest


def http(*hosts: str, **more):
    return {"http": {"why": WHY, "hosts": [*hosts], **more}}


def version(number: str = "1.0.0", *, limits=None, **capabilities):
    return make_manifest(version=number, capabilities=capabilities, limits=limits or {})


def words(old, new, **imports) -> list[str]:
    return [change.words for change in differences(old, new, **imports)]


KV = {"why": WHY}


def test_the_same_manifest_differs_in_nothing():
    same = version(**http("api.x.com"), kv=KV)
    assert differences(same, same) == []
    assert widened(same, same) == {}


def test_what_comes_and_goes_is_told_as_what_it_does():
    secrets = {"why": WHY, "names": {"token": {"why": WHY, "hosts": ["api.x.com"]}}}
    old = version(**http("api.x.com"), secrets=secrets, kv=KV)
    new = version("2.0.0", **http("api.x.com", "setting:hook", methods=["GET", "POST"]), kv=KV, limits={"kv_kb": 5_120})
    assert words(old, new) == [
        "no longer has secrets that you enter sent for it",
        "now sends POST requests",
        "now reaches the host in your setting hook",
        "may now keep up to 5 MB (before: 64 kB)",
    ]
    back = words(new, old)
    assert "no longer reaches the host in your setting hook" in back
    assert "may now only keep up to 64 kB (before: 5 MB)" in back
    assert "now has the secret token sent to api.x.com in the header" in back
    assert sentence(differences(old, new)).endswith("no longer has secrets that you enter sent for it")


def test_hooks_events_requirements_and_isolation_are_told():
    old = make_manifest(hooks={"user_creating": {}, "event_received": {}}, events={"subscribes": ["user.created"]})
    new = make_manifest(
        version="2.0.0",
        hooks={"user_updating": {}, "event_received": {}},
        events={"subscribes": ["user.*"]},
        requires={"plugins": {"acme/base": "^1"}},
        isolation="tenant",
    )
    assert words(old, new) == [
        "now takes part in user_updating",
        "no longer takes part in user_creating",
        "now learns of user.*",
        "no longer learns of user.created",
        "now needs acme/base ^1",
        "now remembers between calls, within your tenant",
    ]
    newer = make_manifest(version="3.0.0", requires={"plugins": {"acme/base": "^2"}})
    assert "now needs acme/base ^2 (before: ^1)" in words(new, newer)
    assert "no longer needs acme/base" in words(newer, old)


def test_the_code_tells_more_than_the_manifest():
    old, new = version(kv=KV, log=KV), version("2.0.0", kv=KV, log=KV, random=KV)
    told = words(old, new, old_imports=["log"], new_imports=["kv"])
    assert told == [
        "now draws random numbers (its code does not use that yet)",
        "its code now really keeps small values of its own for your tenant; until now it only asked to",
        "its code no longer writes lines to its log, but still asks to",
    ]
    assert words(old, new) == ["now draws random numbers"]


@pytest.mark.parametrize(
    ("old", "new", "more"),
    [
        (http("a.com"), http("a.com", "b.com"), {"http": ["http to b.com"]}),
        (http("*.a.com"), http("api.a.com"), {}),
        (http("api.a.com"), http("*.a.com"), {"http": ["http to *.a.com"]}),
        (http("*.a.com"), http("*.api.a.com"), {}),
        (http("a.com"), http("a.com", headers=["x-one"]), {}),
        (http("a.com", headers=["x-one"]), http("a.com"), {"http": ["http with any header"]}),
        (http("a.com"), {**http("a.com"), "kv": KV}, {}),
        ({"ai": {"why": WHY, "models": ["m1"]}}, {"ai": {"why": WHY, "models": ["m1", "m2"]}}, {"ai": ["ai m2"]}),
    ],
)
def test_a_capability_is_widened_by_what_nothing_before_allowed(old, new, more):
    assert widened(version(**old), version("2.0.0", **new)) == more


hosts = st.sets(st.sampled_from(["a.com", "b.com", "*.a.com", "api.a.com"]), min_size=1)


@given(hosts, hosts)
def test_what_widens_is_told_and_what_is_told_of_a_host_is_true(before, after):
    old, new = version(**http(*sorted(before))), version("2.0.0", **http(*sorted(after)))
    grown = widened(old, new).get("http", [])
    assert all(f"now reaches {power.removeprefix('http to ')}" in words(old, new) for power in grown)
    assert {p.removeprefix("http to ") for p in grown} <= after - before
    assert powers(new) - powers(old) >= set(grown)


def test_every_capability_has_its_words():
    assert set(_DOES) == set(Capabilities.model_fields)
