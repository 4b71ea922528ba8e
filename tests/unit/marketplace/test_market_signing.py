"""Keys, key sets and signatures: who signed what, and what happens if somebody else did."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from kernel.errors import Conflict, KeelstoneError, ValidationFailed
from marketplace.errors import (
    KeyMissing,
    KeyUnusable,
    ReleaseRefused,
    SignatureInvalid,
    SignatureMissing,
    SignerUnknown,
)
from marketplace.keys import KeyFolder, check_publisher, generate_key, public_key
from marketplace.namespaces import KEY_SET_PAYLOAD, make_key_set, read_key_set
from marketplace.package import Package, read_package
from marketplace.publishing import sign_folder
from marketplace.rules import Submission
from marketplace.signing import (
    RELEASE,
    YANK,
    canonical_json,
    open_statement,
    sign_payload,
    sign_release,
    sign_yank,
    verify_release,
)
from marketplace.testing import EMPTY_COMPONENT, make_signed, write_plugin
from marketplace.validator import Validator


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return make_signed(write_plugin(tmp_path / "plugin")).package


def envelope_json(envelope: bytes) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(envelope)
    return body


# ------------------------------------------------------------------------------ keys


def test_a_key_is_kept_private_and_comes_back_the_same(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "keys")
    made = folder.create("acme")
    assert folder.path("acme").stat().st_mode & 0o777 == 0o600
    assert folder.load("acme").id == made.id
    assert folder.names() == ["acme"]
    assert "PRIVATE" not in repr(made)


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    made = folder.create("acme")
    with pytest.raises(Conflict, match="already"):
        folder.create("acme")
    assert folder.load_or_create("acme").id == made.id
    assert not list(tmp_path.glob(".*.new"))


def test_a_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(KeyMissing, match="keygen acme"):
        KeyFolder(tmp_path).load("acme")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path)
    folder.create("acme")
    folder.path("acme").chmod(0o644)
    with pytest.raises(KeyUnusable, match="0644"):
        folder.load("acme")


def test_a_file_that_is_no_ed25519_key_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    other = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for content in (b"nonsense", other):
        (tmp_path / "acme.pem").write_bytes(content)
        (tmp_path / "acme.pem").chmod(0o600)
        with pytest.raises(KeyUnusable):
            KeyFolder(tmp_path).load("acme")


@pytest.mark.parametrize("name", ["", "A", "a", "../evil", "acme/x", "-acme", "ac--me", "a" * 41, "acme.pem"])
def test_only_a_publisher_name_names_a_key(name: str) -> None:
    with pytest.raises(ValidationFailed):
        check_publisher(name)


@pytest.mark.parametrize("document", [None, [], {}, {"keytype": "rsa", "scheme": "rsa", "keyval": {"public": "00"}}])
def test_a_malformed_public_key_is_refused(document: object) -> None:
    with pytest.raises(ValidationFailed):
        public_key(document)


# ------------------------------------------------------------------------------ releases


def test_a_signature_by_the_publisher_verifies(package: Package) -> None:
    key = generate_key()
    statement = verify_release(package, sign_release(package, key), {key.id: key.public})
    assert statement.signers == (key.id,)
    assert statement.predicate["plugin"] == "acme/guard"


def test_signing_again_gives_the_same_bytes(package: Package) -> None:
    key = generate_key()
    assert sign_release(package, key) == sign_release(package, key)


def test_a_missing_signature_is_told_from_a_wrong_one(package: Package) -> None:
    key = generate_key()
    unsigned = envelope_json(sign_release(package, key)) | {"signatures": []}
    for nothing in (None, b"", canonical_json(unsigned)):
        with pytest.raises(SignatureMissing) as caught:
            verify_release(package, nothing, {key.id: key.public})
        assert caught.value.plugin == "acme/guard"


def test_another_keys_signature_is_foreign(package: Package) -> None:
    key, stranger = generate_key(), generate_key()
    with pytest.raises(SignerUnknown) as caught:
        verify_release(package, sign_release(package, stranger), {key.id: key.public})
    assert stranger.id[:16] in str(caught.value.found)


def test_a_stranger_who_claims_the_key_id_does_not_pass(package: Package) -> None:
    key, stranger = generate_key(), generate_key()
    envelope = envelope_json(sign_release(package, stranger))
    envelope["signatures"][0]["keyid"] = key.id
    with pytest.raises(SignatureInvalid, match="does not fit"):
        verify_release(package, canonical_json(envelope), {key.id: key.public})


def test_a_changed_statement_does_not_verify(package: Package) -> None:
    key = generate_key()
    envelope = envelope_json(sign_release(package, key))
    statement = json.loads(base64.b64decode(envelope["payload"]))
    statement["predicate"]["version"] = "9.9.9"
    envelope["payload"] = base64.b64encode(canonical_json(statement)).decode()
    with pytest.raises(SignatureInvalid, match="does not fit"):
        verify_release(package, canonical_json(envelope), {key.id: key.public})


def test_a_signature_for_other_bytes_is_told_apart(package: Package, tmp_path: Path) -> None:
    key = generate_key()
    other = make_signed(write_plugin(tmp_path / "other", readme="# Other\n"), key)
    with pytest.raises(SignatureInvalid, match="other bytes"):
        verify_release(package, other.envelope, {key.id: key.public})


def test_one_kind_of_statement_does_not_pass_for_another(package: Package) -> None:
    key = generate_key()
    yank = sign_yank("acme/guard", "1.0.0", package.digest, "broken", key)
    assert open_statement(yank, YANK, {key.id: key.public}).predicate["reason"] == "broken"
    with pytest.raises(SignatureInvalid, match="another kind"):
        verify_release(package, yank, {key.id: key.public})
    other_payload = sign_payload(b"{}", "text/plain", [key])
    with pytest.raises(SignatureInvalid, match="something else"):
        open_statement(other_payload, RELEASE, {key.id: key.public})


def test_one_key_does_not_meet_a_threshold_of_two(package: Package) -> None:
    first, second = generate_key(), generate_key()
    keys = {first.id: first.public, second.id: second.public}
    with pytest.raises(SignatureInvalid) as caught:
        verify_release(package, sign_release(package, first), keys, 2)
    assert caught.value.found == "1"
    twice = envelope_json(sign_release(package, first))
    twice["signatures"] *= 2
    with pytest.raises(SignatureInvalid, match="not a DSSE envelope"):
        verify_release(package, canonical_json(twice), keys, 2)


@pytest.mark.parametrize(
    "envelope",
    [
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff",
        b'{"payload": "e30=", "payloadType": "x"}',
        b'{"payload": "e30=", "payloadType": 7, "signatures": [{"keyid": "a", "sig": "AA=="}]}',
        b'{"payload": "e30=", "payloadType": "x", "signatures": [{"keyid": "a", "sig": 5}]}',
        b'{"payload": "e30=", "payloadType": "x", "signatures": [{"keyid": "a", "sig": "AA==", "more": 1}]}',
        b"[" * 60_000,
    ],
)
def test_a_malformed_envelope_is_one_clear_error(package: Package, envelope: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        verify_release(package, envelope, {})


def test_an_endless_envelope_is_refused(package: Package) -> None:
    with pytest.raises(KeelstoneError) as caught:
        verify_release(package, b" " * 70_000, {})
    assert caught.value.code == "package-too-large"


# ------------------------------------------------------------------------------ key sets


def test_a_key_set_proves_that_its_keys_are_held() -> None:
    keys = [generate_key(), generate_key()]
    made = make_key_set("acme", keys, threshold=2)
    assert read_key_set(made.document) == made
    assert set(made.keys) == {key.id for key in keys}


def test_nobody_can_bind_a_key_that_they_do_not_hold() -> None:
    mine, theirs = generate_key(), generate_key()
    body = json.loads(base64.b64decode(envelope_json(make_key_set("acme", [mine, theirs]).document)["payload"]))
    with pytest.raises(SignatureInvalid, match="not signed by every key"):
        read_key_set(sign_payload(canonical_json(body), KEY_SET_PAYLOAD, [mine]))


def key_set_body(**changes: Any) -> dict[str, Any]:
    return {"publisher": "acme", "version": 1, "threshold": 1, "keys": [generate_key().public.to_dict()], **changes}


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        key_set_body(publisher="../x"),
        key_set_body(version=0),
        key_set_body(version=True),
        key_set_body(threshold=2),
        key_set_body(threshold=0),
        key_set_body(keys=[]),
        key_set_body(extra=1),
    ],
)
def test_a_malformed_key_set_is_refused(body: Any) -> None:
    with pytest.raises(ValidationFailed):
        read_key_set(sign_payload(canonical_json(body), KEY_SET_PAYLOAD, [generate_key()]))


def test_one_key_named_twice_does_not_make_a_threshold_of_two() -> None:
    key = generate_key()
    body = key_set_body(keys=[key.public.to_dict()] * 2, threshold=2)
    with pytest.raises(ValidationFailed, match="1 are different"):
        read_key_set(sign_payload(canonical_json(body), KEY_SET_PAYLOAD, [key]))


# ------------------------------------------------------------------------------ rules


def rules_broken(package: Package, **options: Any) -> list[str]:
    return [finding.rule for finding in Validator(**options).validate(Submission(package)).findings]


def test_a_good_package_breaks_no_rule(package: Package) -> None:
    assert rules_broken(package) == []
    Validator().check(Submission(package))


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"hook": "user_vanishing"}, "hooks"),
        ({"hook": "contribute_routes"}, "hooks"),
        ({"extra": 'kind = "extension"'}, "kind"),
        ({"version": "1.0.0+build.7"}, "version-build"),
        ({"readme": " \n"}, "readme"),
        ({"readme": "-----BEGIN PRIVATE KEY-----"}, "secrets"),
    ],
)
def test_a_broken_rule_is_named_with_its_fix(tmp_path: Path, changes: dict[str, str], rule: str) -> None:
    package = make_signed(write_plugin(tmp_path / "p", **changes)).package  # type: ignore[arg-type]
    with pytest.raises(ReleaseRefused) as caught:
        Validator().check(Submission(package))
    assert [finding["rule"] for finding in caught.value.extra["findings"]] == [rule]
    assert caught.value.fix


def test_the_inspector_of_components_is_asked(package: Package) -> None:
    seen: list[bytes] = []

    def inspect(component: bytes, manifest: object) -> list[str]:
        seen.append(component)
        return ["it imports http, which the manifest does not ask for"]

    assert rules_broken(package, inspect_component=inspect) == ["component-imports"]
    assert seen == [EMPTY_COMPONENT]


def test_the_author_meets_the_same_rules_before_signing(tmp_path: Path) -> None:
    folder = write_plugin(tmp_path / "p", hook="nothing")
    (tmp_path / "c.wasm").write_bytes(EMPTY_COMPONENT)
    with pytest.raises(ReleaseRefused):
        sign_folder(folder, tmp_path / "c.wasm", generate_key())
    with pytest.raises(KeelstoneError, match="keelstone plugin build"):
        sign_folder(folder, tmp_path / "missing.wasm", generate_key())


def test_a_package_signed_twice_reads_the_same(package: Package) -> None:
    assert read_package(package.data) == package
