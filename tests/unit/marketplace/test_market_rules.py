"""The rules that a release must pass: each broken on purpose, each kept by what comes close."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import ConfigurationError
from kernel.manifest import PluginManifest, parse_manifest
from marketplace.package import Package
from marketplace.rules import RULES, Submission
from marketplace.rules.growth import Level, base_of, narrowed, step
from marketplace.rules.names import alike
from marketplace.testing import EMPTY_COMPONENT, make_signed, write_plugin
from marketplace.validator import Finding, Validator

HTTP = '[capabilities.http]\nwhy = "asks the directory"\nhosts = [{}]\nmethods = ["GET"]\n'


def package(folder: Path, *, component: bytes = EMPTY_COMPONENT, **text: Any) -> Package:
    return make_signed(write_plugin(folder, **text), component=component).package


def manifest(folder: Path, version: str, **text: Any) -> PluginManifest:
    return parse_manifest((write_plugin(folder / version, version=version, **text) / "plugin.toml").read_bytes())


def findings(package: Package) -> list[Finding]:
    return Validator().validate(Submission(package)).findings


def broken(submission: Submission | Package, **policy: Any) -> dict[str, bool]:
    """Rules broken, each with whether it is enforced."""
    asked = submission if isinstance(submission, Submission) else Submission(submission)
    return {each.rule: each.enforced for each in Validator(policy=policy).validate(asked).findings}


def test_every_rule_has_an_id_of_its_own_and_says_what_it_is_for():
    states = Validator().rules()
    assert len({each.id for each in states}) == len(states) == len(RULES)
    assert all(each.summary.endswith(".") for each in states)


# ------------------------------------------------------------------------------ policy


def test_an_operator_decides_what_is_enforced(tmp_path):
    bare = package(tmp_path, extra="")
    silent = Package(**{**_fields(bare), "changelog": "nothing yet"})
    assert broken(silent) == {"changelog": False}
    assert broken(silent, changelog="enforced") == {"changelog": True}


@pytest.mark.parametrize("policy", [{"kind": "monitored"}, {"taste": "enforced"}])
def test_a_policy_that_cannot_hold_is_refused(policy):
    with pytest.raises(ConfigurationError, match=next(iter(policy))):
        Validator(policy=policy)


def _fields(found: Package) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Package.__dataclass_fields__}


# ------------------------------------------------------------------------------ about


@pytest.mark.parametrize(
    ("license", "kept"),
    [
        ("Apache-2.0", True),
        ("MIT OR Apache-2.0", True),
        ("LicenseRef-Acme", True),
        ("GPL-3.0-only WITH Classpath-exception-2.0", True),
        ("free for all", False),
        ("Apache 2", False),
    ],
)
def test_a_license_is_an_spdx_expression(tmp_path, license, kept):
    found = package(tmp_path)
    changed = Package(**{**_fields(found), "manifest": found.manifest.model_copy(update={"license": license})})
    assert (broken(changed) == {}) is kept


@pytest.mark.parametrize(
    ("version", "text", "kept"),
    [
        ("1.2.0", "## 1.2.0\n", True),
        ("1.2.0", "# [1.2.0] - 2026-01-01\n", True),
        ("1.2.0", "## v1.2.0-rc.1\n## 11.2.0\n## 1.2.0.1\n", False),
        ("1.2.0", "1.2.0 is out\n", False),
    ],
)
def test_the_changelog_speaks_of_the_version(tmp_path, version, text, kept):
    found = package(tmp_path, version=version)
    assert (broken(Package(**{**_fields(found), "changelog": text})) == {}) is kept


# ------------------------------------------------------------------------------ content

# Put together here, so that no scanner takes this file for the leak it looks for.
LEAKS = {
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----\n" + "A" * 64,
    "an AWS access key": "AKIA" + "Q7" * 8,
    "a GitHub token": "ghp_" + "a1" * 18,
    "a GitLab token": "glpat-" + "a1" * 10,
    "a Slack token": "xoxb-" + "1" * 11 + "-" + "a" * 20,
    "a Google API key": "AIza" + "b" * 35,
    "a Stripe live key": "sk_live_" + "c" * 24,
    "an npm token": "npm_" + "d" * 36,
    "an OpenAI key": "sk-proj-" + "e" * 48,
    "an Anthropic key": "sk-ant-api03-" + "f" * 48,
}


@pytest.mark.parametrize("what", LEAKS)
def test_a_secret_left_inside_is_found_in_texts_and_in_code(tmp_path, what):
    text = package(tmp_path / "a", readme=f"# Guard\n\nUse {LEAKS[what]} here.\n")
    code = package(tmp_path / "b", component=EMPTY_COMPONENT + b"\x00\x02.x" + LEAKS[what].encode() + b"\x00")
    wide = package(tmp_path / "c", component=EMPTY_COMPONENT + b"\x00\x02.x" + LEAKS[what].encode("utf-16-le"))
    for found in (text, code, wide):
        (finding,) = findings(found)
        assert finding.rule == "secrets"
        assert what in finding.problem


def test_what_only_looks_like_a_secret_is_let_be(tmp_path):
    header = b"-----BEGIN " + b"PRIVATE KEY-----\0"
    near = b" ".join((b"AKIAIOSFODNN7EXAMPLE", b"ghp_short", b"xoxb-", header, b"task-proj-x"))
    assert broken(package(tmp_path, component=EMPTY_COMPONENT + near)) == {}


def test_hosts_that_nobody_was_told_of_are_named(tmp_path):
    code = EMPTY_COMPONENT + b"https://api.acme.io/v1 http://evil.test/x https://www.w3.org/2000/svg"
    asks = HTTP.format('"api.acme.io", "*.acme.io:8443", "setting:hook_url"')
    (finding,) = findings(package(tmp_path, component=code, more=asks))
    assert (finding.rule, finding.enforced) == ("hosts", False)
    assert "evil.test (in component.wasm)" in finding.problem
    assert "acme.io" not in finding.problem
    assert "w3.org" not in finding.problem


def test_hosts_in_the_settings_are_looked_at_too(tmp_path):
    folder = write_plugin(tmp_path, more=HTTP.format('"api.acme.io"'))
    schema = {"type": "object", "properties": {"base": {"type": "string", "default": "https://collect.evil.test/"}}}
    (folder / "settings.schema.json").write_text(json.dumps(schema))
    (finding,) = findings(make_signed(folder).package)
    assert "collect.evil.test (in settings.schema.json)" in finding.problem


def test_addresses_in_code_that_can_reach_nothing_do_not_matter(tmp_path):
    assert broken(package(tmp_path, component=EMPTY_COMPONENT + b"http://evil.test/x")) == {}


# ------------------------------------------------------------------------------ growth


def grown(tmp_path: Path, old: tuple[str, str], new: tuple[str, str]) -> dict[str, bool]:
    before = manifest(tmp_path / "old", old[0], more=old[1])
    after = package(tmp_path / "new", version=new[0], more=new[1])
    return broken(Submission(after, [before]))


LOG = '[capabilities.log]\nwhy = "says what it did"\n'
TOKEN = '[capabilities.secrets]\nwhy = "signs in there"\n[capabilities.secrets.names.token]\nwhy = "signs in there"\n'
SAID = '[[events.declares]]\ntype = "door.opened"\nsummary = "The door was opened"\n'


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        (("1.0.0", ""), ("1.0.1", ""), True),
        (("1.0.0", ""), ("1.0.1", LOG), False),  # a capability smuggled in with a fix
        (("1.0.0", ""), ("1.1.0", LOG), True),
        (("1.0.0", LOG), ("1.0.1", ""), True),  # asking for less needs nobody's consent
        (("1.0.0", HTTP.format('"a.io"')), ("1.0.1", HTTP.format('"a.io", "b.io"')), False),
        (("1.0.0", HTTP.format('"a.io"')), ("1.0.1", HTTP.format('"a.io"').replace('"GET"', '"GET", "POST"')), False),
        (
            ("1.0.0", HTTP.format('"a.io"') + TOKEN + 'hosts = ["a.io"]\n'),
            ("1.0.1", HTTP.format('"a.io"') + TOKEN + 'hosts = ["a.io"]\nplaces = ["header", "body"]\n'),
            False,
        ),
        (("1.0.0", SAID), ("1.1.0", ""), False),
        (("1.0.0", SAID), ("2.0.0", ""), True),
        (("1.0.0", ""), ("1.1.0", "[requires.plugins]\n'acme/base' = '^1'\n"), False),
        (("1.0.0", ""), ("1.0.1", "[hooks.user_updating]\n"), False),
        (("1.0.0", "[hooks.user_updating]\n"), ("1.1.0", ""), False),
        (("0.3.0", ""), ("0.3.1", LOG), False),
        (("0.3.0", SAID), ("0.4.0", ""), True),
        (("1.0.0", ""), ("1.0.1-rc.1", LOG), False),
    ],
)
def test_what_is_promised_changes_only_with_the_number_that_says_so(tmp_path, old, new, kept):
    assert grown(tmp_path, old, new) == ({} if kept else {"version-growth": True})


def test_a_version_is_compared_with_the_stable_one_below_it(tmp_path):
    history = [manifest(tmp_path, each) for each in ("1.0.0", "1.2.0-rc.1", "2.0.0")]
    assert base_of(manifest(tmp_path, "1.2.0"), history).version == "1.0.0"
    assert base_of(manifest(tmp_path, "0.9.0"), history) is None


@pytest.mark.parametrize(
    ("old", "new", "level"),
    [("1.2.3", "1.2.9", Level.PATCH), ("1.2.3", "1.3.0", Level.MINOR), ("1.2.3", "2.0.0", Level.MAJOR),
     ("0.2.3", "0.3.0", Level.MAJOR), ("0.2.3", "0.2.4", Level.PATCH)],
)  # fmt: skip
def test_the_numbers_alone_say_how_much_has_changed(tmp_path, old, new, level):
    assert step(manifest(tmp_path, old).semver, manifest(tmp_path, new).semver) is level


def schema(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (schema(a={"type": "string"}), schema(a={"type": "string"}, b={}), []),
        (schema(a={"type": "string"}), schema(), ["no longer have 'a'"]),
        (schema(a={}), schema("a", a={}), ["now must have 'a'"]),
        (schema("a", a={}), schema(a={}), []),
        (schema(a={"type": "string"}), schema(a={"type": "integer"}), ["have another type for 'a'"]),
        (schema(a={"type": "integer"}), schema(a={"type": "number"}), []),
        (schema(a={"type": "number"}), schema(a={"type": "integer"}), ["have another type for 'a'"]),
        (schema(a={}), schema(a={"type": "string"}), ["have another type for 'a'"]),
        (schema(a={"type": "string"}), schema(a={"type": ["string", "null"]}), []),
        (schema(a={"enum": [1, 2]}), schema(a={"enum": [1, 2, 3]}), []),
        (schema(a={"enum": [1, 2]}), schema(a={"enum": [1]}), ["take less for 'a'"]),
        (schema(a={}), schema(a={"enum": [1]}), ["take less for 'a'"]),
        ({}, {"properties": [], "required": "a"}, ["now must have 'a'"]),
    ],
)
def test_settings_that_held_go_on_to_hold(before, after, told):
    assert list(narrowed(before, after)) == told


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [("1.0.0", "1.1.0", True), ("1.0.0", "2.0.0", False), ("0.1.0", "0.1.1", True), ("0.1.0", "0.2.0", False)],
)
def test_settings_change_for_the_worse_with_a_major_version_only(tmp_path, old, new, found):
    asked = Submission(
        package(tmp_path / "new", version=new),
        [manifest(tmp_path / "old", old)],
        schema_of=lambda version: schema(gone={}, strict={"type": "boolean"}) if version == old else None,
    )
    assert ("settings-growth" in broken(asked)) is found


def test_an_old_minor_version_takes_fixes_and_nothing_below_its_newest(tmp_path):
    history = [manifest(tmp_path, each) for each in ("1.0.0", "1.0.5", "2.1.0")]
    # What an old line gets, a person looks at first.
    assert broken(Submission(package(tmp_path / "new", version="1.0.6"), history)) == {"old-line": False}
    assert broken(Submission(package(tmp_path / "new", version="1.0.4"), history)) == {
        "version-order": True,
        "old-line": False,
    }
    assert broken(Submission(package(tmp_path / "new", version="2.1.1"), history)) == {}


def test_a_rule_that_is_off_is_not_asked_until_an_operator_wants_it(tmp_path):
    asked = Submission(package(tmp_path / "new", version="1.1.0", more=LOG), [manifest(tmp_path / "old", "1.0.0")])
    assert broken(asked) == {}
    (finding,) = Validator(policy={"reach-grown": "review"}).validate(asked).findings
    assert (finding.rule, finding.enforced, finding.review) == ("reach-grown", False, True)
    (first,) = Validator(policy={"first-release": "review"}).validate(replace(asked, history=[])).findings
    assert first.rule == "first-release"


def test_without_a_history_its_rules_are_said_to_be_unseen(tmp_path):
    unseen = Validator().validate(Submission(package(tmp_path))).unseen
    history = {"version-order", "version-growth", "settings-growth", "old-line"}
    parts = {"parts-malicious", "parts-weak", "parts-weak-minor"}
    profile = {"profile-class", "profile-room", "profile-growth"}
    assert {*history, *parts, *profile, "similar-name", "contract", "component-imports"} == set(unseen)


# ------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("one", "other"),
    [("email-guard", "emall-guard"), ("email-guard", "emailguard"), ("email-guard", "emial-guard"),
     ("email-guard", "email-guards"), ("slack-n0tify", "slack-notify"), ("modern-ui", "modem-ui"),
     ("payments", "payment"), ("payments", "paymemts")],
)  # fmt: skip
def test_names_that_one_slip_turns_into_each_other_are_alike(one, other):
    assert alike(one, other)
    assert alike(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [("email-guard", "email-guard"), ("email-guard", "email-audit"), ("crm", "crn"), ("report-1", "report-2"),
     ("payments", "shipments"), ("webhook-relay", "webhook-delay-x"), ("a-bcd", "abcd")],
)  # fmt: skip
def test_other_names_are_not(one, other):
    assert not alike(one, other)


@given(st.text("abc1-", min_size=3, max_size=7), st.text("abc1-", min_size=3, max_size=7))
def test_being_alike_is_mutual(one, other):
    assert alike(one, other) == alike(other, one)


def similar(tmp_path: Path, plugin: str, *others: str, history: tuple[PluginManifest, ...] = ()) -> bool:
    found = package(tmp_path / "new", plugin=plugin)
    return "similar-name" in broken(Submission(found, history, lambda: others))


def test_a_look_alike_is_refused_and_a_namesake_under_another_publisher_is_not(tmp_path):
    assert similar(tmp_path, "evil/emall-guard", "acme/email-guard")
    assert similar(tmp_path, "acme-lnc/other", "acme-inc/email-guard")
    assert not similar(tmp_path, "globex/email-guard", "acme/email-guard")
    assert not similar(tmp_path, "acme/email-guards", "acme/email-guard")


def test_a_plugin_that_is_there_already_keeps_its_name(tmp_path):
    before = manifest(tmp_path, "0.9.0", plugin="evil/emall-guard")
    assert not similar(tmp_path, "evil/emall-guard", "acme/email-guard", history=(before,))
