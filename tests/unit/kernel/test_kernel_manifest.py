"""The manifest: every rule, and messages that name the key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import ManifestError
from kernel.manifest import Limits, load_manifest, manifest_from_dict, manifest_schema, parse_manifest
from tests.support.manifests import WHY, make_manifest, manifest_data

GOOD = """
manifest = 1
id = "acme/email-guard"
version = "1.2.0"
name = "E-mail guard"
summary = "Refuses throw-away e-mail addresses."
license = "Apache-2.0"

[hooks.user_creating]
after = ["acme/other"]

[capabilities.http]
why = "Asks the service about each domain."
hosts = ["api.example.com", "*.example.org:8443", "setting:service_url"]
methods = ["POST"]

[limits]
time_ms = 100
"""


def test_a_good_manifest_is_read_with_its_defaults():
    manifest = parse_manifest(GOOD)
    assert (manifest.publisher, manifest.short_name, str(manifest.semver)) == ("acme", "email-guard", "1.2.0")
    assert manifest.kind == "guest"
    assert manifest.hooks["user_creating"].after == ("acme/other",)
    assert manifest.limits == Limits(time_ms=100)
    assert list(manifest.capabilities.asked()) == ["http"]
    assert manifest.requires.kernel == "^1.0"


def test_a_manifest_survives_its_own_json():
    manifest = parse_manifest(GOOD)
    stored = manifest.model_dump(mode="json", exclude_defaults=True) | {"manifest": 1}
    assert manifest_from_dict(stored) == manifest


def capability(**members):
    return {"capabilities": members}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"colour": "red"}, "unknown key colour"),
        ({"limits": {"time": 5}}, "unknown key limits.time"),
        ({"hooks": {"user_creating": {"befor": []}}}, "unknown key hooks.user_creating.befor"),
        (capability(kv={"why": WHY, "keys": 3}), "unknown key capabilities.kv.keys"),
        (capability(sockets={"why": WHY}), "unknown key capabilities.sockets"),
        ({"requires": {"python": ">=3"}}, "unknown key requires.python"),
        ({"manifest": 2}, "manifest:"),
        ({"id": "Acme/hello"}, "id:"),
        ({"id": "hello"}, "id:"),
        ({"id": "acme/hello/more"}, "id:"),
        ({"id": "acme/../hello"}, "id:"),
        ({"id": "acme/he--llo"}, "id:"),
        ({"id": "acme/hello\n"}, "id:"),
        ({"id": "acme/héllo"}, "id:"),
        ({"version": "1.0"}, "version:"),
        ({"version": "latest"}, "version:"),
        ({"name": "x"}, "name:"),
        ({"summary": "short"}, "summary:"),
        ({"kind": "magic"}, "kind:"),
        ({"requires": {"kernel": "newest"}}, "requires.kernel:"),
        ({"requires": {"plugins": {"acme/base": "~>1"}}}, "requires.plugins"),
        ({"requires": {"plugins": {"base": "^1"}}}, "requires.plugins"),
        ({"limits": {"time_ms": 0}}, "limits.time_ms:"),
        ({"limits": {"memory_mb": 4096}}, "limits.memory_mb:"),
        ({"limits": {"time_ms": "fast"}}, "limits.time_ms:"),
        (capability(kv={}), "capabilities.kv.why is missing"),
        (capability(kv={"why": "short"}), "capabilities.kv.why:"),
        (capability(http={"why": WHY, "hosts": []}), "capabilities.http.hosts:"),
        (capability(http={"why": WHY, "hosts": ["http://x"]}), "capabilities.http.hosts"),
        (capability(http={"why": WHY, "hosts": ["*"]}), "capabilities.http.hosts"),
        (capability(http={"why": WHY, "hosts": ["x.example\n"]}), "capabilities.http.hosts"),
        (capability(http={"why": WHY, "hosts": ["setting:Bad Name"]}), "capabilities.http.hosts"),
        (capability(http={"why": WHY, "hosts": ["x.example"], "methods": ["TRACE"]}), "capabilities.http.methods"),
        (capability(events={"why": WHY, "emits": ["lead.scored"]}), "lead.scored"),
        ({"events": {"declares": [{"type": "Lead Scored", "summary": "A lead."}]}}, "events.declares"),
        ({"events": {"subscribes": ["user.*"]}}, "needs the hook event_received"),
        ({"events": {"subscribes": ["user*"]}, "hooks": {"event_received": {}}}, "events.subscribes"),
        ({"permissions": {"leads": {"summary": "See leads."}}}, "permissions"),
        ({"permissions": {"leads:read": {"summary": "See leads.", "roles": ["operator"]}}}, "permissions"),
        ({"settings": "../secrets.json"}, "relative path"),
        ({"settings": "/etc/passwd"}, "relative path"),
        ({"settings": "a\\b.json"}, "relative path"),
        ({"required": True}, "only built-in plugins can be required"),
        ({"build": {"language": "cobol", "source": "x"}}, "build.language"),
        ({"keywords": [f"k{n}" for n in range(21)]}, "keywords:"),
        ({"isolation": "none"}, "isolation:"),
    ],
)
def test_a_wrong_manifest_is_refused_and_the_key_named(changes, key):
    with pytest.raises(ManifestError) as caught:
        manifest_from_dict(manifest_data(**changes))
    assert key in caught.value.detail
    assert caught.value.file == "plugin.toml"
    assert caught.value.fix


@pytest.mark.parametrize("missing", ["manifest", "id", "version", "name", "summary", "license"])
def test_a_missing_key_is_named(missing):
    raw = manifest_data()
    del raw[missing]
    with pytest.raises(ManifestError, match=f"{missing} is missing"):
        manifest_from_dict(raw)


def test_every_problem_is_told_at_once_with_the_plugins_id():
    with pytest.raises(ManifestError) as caught:
        manifest_from_dict(manifest_data(version="x", name="", colour="red"))
    assert len(caught.value.extra["problems"]) == 3
    assert caught.value.plugin == "acme/hello"


@pytest.mark.parametrize("text", ["id = ", "[[[", b"\xff\xfe", "a = 1\na = 2"])
def test_what_is_not_toml_is_refused(text):
    with pytest.raises(ManifestError, match="is not TOML"):
        parse_manifest(text, file="there/plugin.toml")


@pytest.mark.parametrize("raw", [None, [], "text", 7])
def test_what_is_not_a_table_is_refused(raw):
    with pytest.raises(ManifestError):
        manifest_from_dict(raw)


def test_a_folder_without_a_manifest_is_told_what_to_do(tmp_path):
    with pytest.raises(ManifestError) as caught:
        load_manifest(tmp_path)
    assert "keelstone plugin new" in str(caught.value)
    (tmp_path / "plugin.toml").write_text(GOOD)
    assert load_manifest(tmp_path).id == "acme/email-guard"


def test_a_guest_emits_only_what_it_declares():
    declared = {"declares": [{"type": "lead.scored", "summary": "A lead was scored."}]}
    manifest = make_manifest(events=declared, capabilities={"events": {"why": WHY, "emits": ["lead.scored"]}})
    assert manifest.capabilities.events is not None
    assert manifest.capabilities.events.emits == ("lead.scored",)


def test_the_schema_for_editors_refuses_unknown_keys_too():
    schema = manifest_schema()
    assert schema["additionalProperties"] is False
    assert all(part.get("additionalProperties") is False for part in schema["$defs"].values())


@given(st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=8), max_size=5))
def test_whatever_is_given_the_answer_is_a_manifest_or_a_manifest_error(raw):
    with pytest.raises(ManifestError):
        manifest_from_dict(raw)
