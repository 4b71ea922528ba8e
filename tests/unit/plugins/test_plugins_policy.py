"""Policies without a platform: licences, hosts, cool-down, limits, what an approval lifts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from plugin_sdk.services import ReleaseOrigin
from plugins.builtin.catalog.policy.domain import (
    Approval,
    Candidate,
    Finding,
    Policy,
    PolicyBlocked,
    Standing,
    added,
    overlap,
    reachable,
)
from plugins.builtin.catalog.policy.gate import candidate_of
from plugins.builtin.catalog.policy.licenses import allows
from tests.support.manifests import WHY, make_manifest

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)

# ---------------------------------------------------------------------------- licences


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ("MIT", True),
        ("mit", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("MIT or GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT AND Apache-2.0", True),
        ("MIT OR Apache-2.0 AND GPL-3.0-only", True),
        ("(MIT OR Apache-2.0) AND GPL-3.0-only", False),
        ("(GPL-3.0-only OR (MIT AND Apache-2.0))", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", True),
        ("GPL-2.0-only", False),
        ("GPL-2.0-only WITH Other-exception", False),
        ("MIT AND", False),
        ("MIT MIT", False),
        ("(MIT", False),
        ("OR MIT", False),
        ("MIT OR AND", False),
        ("MIT WITH", False),
        ("", False),
        ("()", False),
        ("Our own licence", True),
        ("(" * 5_000 + "MIT", False),
    ],
)
def test_a_licence_is_allowed_if_its_expression_can_be_met(expression, fits):
    allowed = ["MIT", "Apache-2.0", "GPL-2.0-only WITH Classpath-exception-2.0", "our  own licence"]
    assert allows(allowed, expression) is fits


names = st.sampled_from(["A-1.0", "B-2.0", "C-3.0"])
expressions = st.recursive(
    names,
    lambda inner: st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
    max_leaves=8,
)


@given(expressions, st.sets(names))
def test_an_expression_means_what_pythons_own_and_and_or_mean(expression, allowed):
    meant = expression.replace("AND", "and").replace("OR", "or")
    for name in ("A-1.0", "B-2.0", "C-3.0"):
        meant = meant.replace(name, str(name in allowed))
    assert allows(allowed, expression) is eval(meant)


# ---------------------------------------------------------------------------- hosts


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("evil.example", "evil.example", True),
        ("evil.example", "good.example", False),
        ("*.evil.example", "api.evil.example", True),
        ("*.evil.example", "evil.example", False),
        ("*.evil.example", "notevil.example", False),
        ("api.evil.example", "*.evil.example", True),
        ("*.evil.example", "*.api.evil.example", True),
        ("*.api.evil.example", "*.evil.example", True),
        ("*.evil.example", "*.good.example", False),
    ],
)
def test_a_pattern_stands_against_every_host_that_it_shares_with_what_is_asked_for(one, other, shared):
    assert overlap(one, other) is overlap(other, one) is shared


@pytest.mark.parametrize(
    ("host", "settings", "name"),
    [
        ("api.x.com:8443", {}, "api.x.com"),
        ("*.x.com", {}, "*.x.com"),
        ("setting:url", {"url": "https://Hook.X.com.:9/in?x=1"}, "hook.x.com"),
        ("setting:url", {}, ""),
        ("setting:url", {"url": 5}, ""),
        ("setting:url", {"url": "https://[::"}, ""),
    ],
)
def test_what_is_reached_is_a_host_without_its_port_whether_written_or_set(host, settings, name):
    assert reachable(host, settings) == name


# ---------------------------------------------------------------------------- rules


def asking(**changes):
    http = {"why": WHY, "hosts": ["api.x.com", "setting:hook"]}
    return make_manifest(capabilities={"http": http, "kv": {"why": WHY}, "log": {"why": WHY}}, **changes)


def of_release(policy: dict, candidate: Candidate) -> list[Finding]:
    return Standing(Policy.model_validate(policy)).of_release(candidate, NOW)


def rules(found) -> list[tuple[str, str]]:
    return [(f.rule, f.subject) for f in found]


def test_an_empty_policy_stands_against_nothing():
    assert of_release({}, Candidate(asking())) == []
    assert Standing(Policy()).of_grants(Candidate(asking()), {"http", "kv"}, {"hook": "https://x.y"}, NOW) == []
    assert Standing().of_release(Candidate(asking()), NOW) == []


def test_several_rules_are_told_at_once_with_what_is_expected_and_found():
    policy = {
        "publishers": {"allowed": ["others"]},
        "licenses": ["MIT"],
        "cool_down_hours": 24,
        "limits": {"memory_mb": 8, "time_ms": 60_000},
    }
    candidate = Candidate(asking(), "d1", NOW - timedelta(hours=2))
    found = of_release(policy, candidate)
    assert rules(found) == [
        ("publishers", "acme"),
        ("licenses", "Apache-2.0"),
        ("cool_down_hours", ""),
        ("limits", "memory_mb"),
    ]
    with pytest.raises(PolicyBlocked) as caught:
        Standing().check(candidate, found, "globex")
    error = caught.value
    assert "published 2.0 hours ago and may come in from 2026-05-02 10:00 UTC" in error.detail
    assert "licenses: MIT" in str(error.expected)
    assert "memory_mb = 16" in str(error.found)
    assert error.fix is not None
    assert "keelstone tenant requests ask globex acme/hello 1.0.0" in error.fix
    assert "an operator of the platform" in error.fix
    assert [f["rule"] for f in error.extra["findings"]] == [f.rule for f in found]
    Standing().check(candidate, [], "globex")


def test_blocked_stands_above_allowed_and_an_empty_list_is_nobody():
    assert rules(of_release({"publishers": {"allowed": ["acme"]}}, Candidate(asking()))) == []
    both = {"publishers": {"allowed": ["acme"], "blocked": ["acme"]}}
    assert rules(of_release(both, Candidate(asking()))) == [("publishers", "acme")]
    assert rules(of_release({"publishers": {"allowed": []}}, Candidate(asking()))) == [("publishers", "acme")]


@given(st.floats(0.1, 1_000), st.floats(0, 2_000))
def test_a_release_comes_in_once_it_has_been_published_long_enough(hours, age):
    candidate = Candidate(asking(), since=NOW - timedelta(hours=age))
    blocked = bool(of_release({"cool_down_hours": hours}, candidate))
    assert blocked is (candidate.since + timedelta(hours=hours) > NOW)


def test_a_release_of_unknown_age_is_as_good_as_new_and_what_is_in_the_process_is_old():
    (found,) = of_release({"cool_down_hours": 1}, Candidate(asking()))
    assert found.found == "not known"

    class Shipped:
        manifest = make_manifest(kind="extension")
        digest = ""
        published_at = installed_at = origin = None

    assert of_release({"cool_down_hours": 1, "verification": "domain"}, candidate_of(Shipped())) == []


def test_a_publisher_must_have_a_verified_domain_where_a_policy_says_so():
    class Installed:
        manifest = asking()
        digest = "d1"
        published_at = installed_at = NOW
        origin = ReleaseOrigin(domain="acme.example")

    class Unverified(Installed):
        origin = ReleaseOrigin()

    class Unknown(Installed):
        origin = None

    for release, found in (
        (Installed, []),
        (Unverified, [("verification", "acme")]),
        (Unknown, [("verification", "acme")]),
    ):
        assert rules(of_release({"verification": "domain"}, candidate_of(release()))) == found
        assert of_release({"verification": "none"}, candidate_of(release())) == []


def test_a_policys_verification_is_the_least_that_must_vouch():
    class Installed:
        manifest = asking()
        digest = "d1"
        published_at = installed_at = NOW
        origin = ReleaseOrigin(repository="github.com/acme/guard")

    class Known(Installed):
        origin = ReleaseOrigin(domain="acme.example")

    class Unverified(Installed):
        origin = ReleaseOrigin()

    missing = [("verification", "acme")]
    for least, by_repository, by_nothing in (
        ("none", [], []),
        ("repository", [], missing),
        ("domain", missing, missing),
    ):
        policy = {"verification": least}
        assert rules(of_release(policy, candidate_of(Installed()))) == by_repository
        assert rules(of_release(policy, candidate_of(Unverified()))) == by_nothing
        assert of_release(policy, candidate_of(Known())) == []


def test_grants_are_held_to_capabilities_and_hosts_and_only_if_granted():
    policy = Policy(capabilities_never=("kv",), hosts_never=("*.x.com", "*.bad.example"))
    standing, candidate = Standing(policy), Candidate(asking())
    hook = {"hook": "https://in.bad.example/x"}
    found = standing.of_grants(candidate, {"http", "kv", "log"}, hook, NOW)
    assert rules(found) == [
        ("capabilities_never", "kv"),
        ("hosts_never", "api.x.com"),
        ("hosts_never", "in.bad.example"),
    ]
    assert standing.of_grants(candidate, {"log"}, hook, NOW) == []
    before = standing.of_grants(candidate, {"http"}, {}, NOW)
    assert rules(added(found, before)) == [("capabilities_never", "kv"), ("hosts_never", "in.bad.example")]


policies = st.builds(
    Policy,
    publishers=st.builds(
        dict, blocked=st.sampled_from([(), ("acme",)]), allowed=st.sampled_from(["everybody", ("acme",), ("others",)])
    ),
    licenses=st.sampled_from(["any", ("MIT",), ("Apache-2.0",)]),
    cool_down_hours=st.sampled_from([0.0, 1.0, 72.0]),
    limits=st.sampled_from([{}, {"memory_mb": 8}]),
    capabilities_never=st.sampled_from([(), ("kv",), ("http", "log")]),
    hosts_never=st.sampled_from([(), ("api.x.com",)]),
)


@given(policies, policies)
def test_a_tenants_policy_only_adds_to_the_operators(operators, own):
    candidate = Candidate(asking(), since=NOW - timedelta(hours=2))
    both = Standing(operators, own)
    for alone in (Standing(operators), Standing(None, own)):
        assert set(alone.of_release(candidate, NOW)) <= set(both.of_release(candidate, NOW))
        granted = {"http", "kv"}
        assert set(alone.of_grants(candidate, granted, {}, NOW)) <= set(both.of_grants(candidate, granted, {}, NOW))


def approval(**changes) -> Approval:
    made = Approval(
        id="r1",
        tenant="globex",
        level="operator",
        plugin="acme/hello",
        version="1.0.0",
        digest="d1",
        reason="It is needed.",
        rules=(("licenses", "Apache-2.0"),),
        findings=(),
        asked_by="u1",
        asked_at=NOW,
        state="approved",
    )
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("changes", "digest", "lifted"),
    [
        ({}, "d1", True),
        ({}, "", True),
        ({"expires_at": NOW + timedelta(hours=1)}, "d1", True),
        ({"expires_at": NOW}, "d1", False),
        ({}, "d2", False),
        ({"version": "1.0.1"}, "d1", False),
        ({"plugin": "acme/other"}, "d1", False),
        ({"level": "tenant"}, "d1", False),
        ({"rules": (("limits", "memory_mb"),)}, "d1", False),
        *[({"state": state}, "d1", False) for state in ("open", "declined", "revoked")],
    ],
)
def test_an_approval_lifts_exactly_what_it_was_asked_for(changes, digest, lifted):
    standing = Standing(Policy(licenses=("MIT",)), None, [approval(**changes)])
    found = standing.of_release(Candidate(asking(), digest), NOW)
    assert bool(found) is not lifted


# ---------------------------------------------------------------------------- the document


@pytest.mark.parametrize(
    "document",
    [
        {"publisher": {}},
        {"publishers": {"only": ["acme"]}},
        {"publishers": {"allowed": "nobody"}},
        {"publishers": {"blocked": ["Acme"]}},
        {"capabilities_never": ["telepathy"]},
        {"hosts_never": ["https://evil.example"]},
        {"hosts_never": ["evil.example:443"]},
        {"hosts_never": ["*"]},
        {"licenses": "MIT"},
        {"cool_down_hours": -1},
        {"cool_down_hours": "soon"},
        {"limits": {"memory": 8}},
        {"limits": {"memory_mb": -1}},
        {"limits": {"memory_mb": "much"}},
        [],
    ],
)
def test_a_policy_that_says_something_else_is_refused(document):
    with pytest.raises(ValidationError):
        Policy.model_validate(document)


@given(policies)
def test_a_policy_is_the_same_after_it_was_kept(policy):
    assert Policy.model_validate(policy.model_dump(mode="json", exclude_defaults=True)) == policy
