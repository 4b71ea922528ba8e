"""Signed notes, checkpoints, entries and proof files: their forms, and what does not pass for one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import ConfigurationError
from marketplace.errors import SignatureInvalid, SignerUnknown, VerificationFailed
from marketplace.keys import SigningKey, generate_key
from marketplace.log.checkpoint import (
    Checkpoint,
    open_checkpoint,
    read_checkpoint,
    require_witnesses,
    sign_checkpoint,
)
from marketplace.log.entry import (
    Entry,
    deprecation_entry,
    entry_from_dict,
    keys_entry,
    read_entry,
    release_entry,
    yank_entry,
)
from marketplace.log.key import LogKeys, log_member, log_origin, read_log_keys
from marketplace.log.note import LOG, WITNESS, cosign_note, read_note, read_vkey, sign_note, verifier_key
from marketplace.log.proof import LogProof, read_proof
from marketplace.log.tree import node_hash
from marketplace.log.witness import cosign, read_cosigned, witness_vkey
from marketplace.signing import canonical_json

ORIGIN = "keelstone-marketplace/0123456789abcdef"
D = "ab" * 32


@pytest.fixture
def checkpoint(key: SigningKey) -> Checkpoint:
    return sign_checkpoint(ORIGIN, 7, bytes(range(32)), key)


# ------------------------------------------------------------------------------ notes and keys


def test_a_checkpoint_is_a_note_of_three_lines_and_a_signature(checkpoint: Checkpoint, key: SigningKey) -> None:
    text = checkpoint.to_bytes().decode()
    body, _, signatures = text.partition("\n\n")
    assert body.split("\n") == [ORIGIN, "7", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="]
    assert signatures.startswith(f"— {ORIGIN} ")
    assert open_checkpoint(text.encode(), verifier_key(ORIGIN, key, LOG)) == checkpoint


def test_the_example_of_the_standard_is_read() -> None:
    # From C2SP tlog-cosignature: a log's own signature, and a witness' with its time.
    example = (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "— example.com/behind-the-sofa "
        "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
        "— witness.example.com/w1 "
        "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
    ).encode()
    read = read_checkpoint(example)
    assert (read.origin, read.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert [each.name for each in read.note.signatures] == ["example.com/behind-the-sofa", "witness.example.com/w1"]
    assert read.note.signatures[1].time() == 1_679_315_147
    assert read.to_bytes() == example


def test_a_key_id_is_made_from_name_algorithm_and_key(key: SigningKey) -> None:
    import hashlib

    raw = bytes.fromhex(key.public.keyval["public"])
    for algorithm in (LOG, WITNESS):
        expected = hashlib.sha256(b"acme.example/log\n" + bytes([algorithm]) + raw).digest()[:4]
        assert verifier_key("acme.example/log", key, algorithm).id == expected


def test_a_vkey_comes_back(key: SigningKey) -> None:
    for algorithm in (LOG, WITNESS):
        written = verifier_key("acme.example/log", key, algorithm)
        assert read_vkey(str(written)) == written


@pytest.mark.parametrize("text", ["", "acme", "acme+00000000+AAAA", "acme+zz+!!", "a b+00000000+AAAA", "acme++"])
def test_what_is_no_vkey_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="does not name a key"):
        read_vkey(text)


def test_a_vkey_under_another_name_is_refused(key: SigningKey) -> None:
    text = str(verifier_key("acme", key, WITNESS)).replace("acme+", "globex+", 1)
    with pytest.raises(ConfigurationError, match="its id is"):
        read_vkey(text)


def test_only_the_named_key_and_algorithm_signs(key: SigningKey) -> None:
    note = sign_note("hello\n", "acme", key)
    assert note.signed_by(verifier_key("acme", key, LOG))
    assert note.signed_by(verifier_key("globex", key, LOG)) is None
    assert note.signed_by(verifier_key("acme", key, WITNESS)) is None
    assert note.signed_by(verifier_key("acme", generate_key(), LOG)) is None
    assert replace(note, text="hallo\n").signed_by(verifier_key("acme", key, LOG)) is None


def test_a_cosignature_is_bound_to_its_time(key: SigningKey) -> None:
    line = cosign_note("hello\n", "w", key, 1_000)
    witness = verifier_key("w", key, WITNESS)
    note = sign_note("hello\n", "acme", generate_key()).with_signatures([line, line])
    assert len(note.signatures) == 2
    assert note.signed_by(witness) == line
    later = replace(line, value=(1_001).to_bytes(8, "big") + line.value[8:])
    assert replace(note, signatures=(later,)).signed_by(witness) is None
    assert replace(note, signatures=(replace(line, value=line.value[:10]),)).signed_by(witness) is None


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"\n", b"text\n", b"text\n\n", b"text\n\nno dash AAAA\n", b"\xff\n\n\xff", b"x" * 70_000),
        *("t\n\n— a AAAA\n".encode(), "t\n\n— a !!!!\n".encode(), "t\n\n— a AAAAAAAAAAAA".encode()),
        "t\x01\n\n— a AAAAAAAAAAAA\n".encode(),
    ],
)
def test_what_is_no_note_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_note(body)


@given(st.binary(max_size=200) | st.text(alphabet="\n— a+AB=/5", max_size=60).map(str.encode))
def test_whatever_comes_is_a_note_that_goes_back_the_same_or_refused(body: bytes) -> None:
    try:
        note = read_note(body)
    except ValueError:
        return
    again = read_note(note.to_bytes())
    assert again == note


@pytest.mark.parametrize("line", ["07", "-1", "1e3", "", "9" * 19, "٣"])
def test_a_checkpoint_with_an_odd_size_is_refused(key: SigningKey, line: str) -> None:
    note = sign_note(f"{ORIGIN}\n{line}\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n", ORIGIN, key)
    with pytest.raises(VerificationFailed, match="cannot be read"):
        open_checkpoint(note.to_bytes(), verifier_key(ORIGIN, key, LOG))


def test_a_checkpoint_by_another_key_or_of_another_log_is_refused(checkpoint: Checkpoint, key: SigningKey) -> None:
    with pytest.raises(VerificationFailed, match="not signed by the log's key") as caught:
        open_checkpoint(checkpoint.to_bytes(), verifier_key(ORIGIN, generate_key(), LOG))
    assert caught.value.link == "log"
    with pytest.raises(VerificationFailed, match="another log's"):
        open_checkpoint(checkpoint.to_bytes(), verifier_key("globex", key, LOG))


# ------------------------------------------------------------------------------ witnesses


def test_each_witness_key_counts_once(checkpoint: Checkpoint) -> None:
    one, two = generate_key(), generate_key()
    twice = cosign(cosign(checkpoint, one, "w/1", 5), one, "w/2", 6)
    trusted = [verifier_key("w/1", one, WITNESS), verifier_key("w/2", one, WITNESS), verifier_key("w/3", two, WITNESS)]
    assert len(twice.witnesses(trusted)) == 1
    with pytest.raises(VerificationFailed, match="too few witnesses"):
        require_witnesses(twice, trusted, 2)
    require_witnesses(cosign(twice, two, "w/3", 7), trusted, 2)


def test_the_logs_own_key_is_no_witness(checkpoint: Checkpoint, key: SigningKey) -> None:
    assert checkpoint.witnesses([verifier_key(ORIGIN, key, LOG)]) == {}


def test_only_named_witnesses_hand_in_signatures(checkpoint: Checkpoint) -> None:
    witness = generate_key()
    named, signed = witness_vkey(witness), cosign(checkpoint, witness, witness_vkey(witness).name, 100)
    found, signatures = read_cosigned(signed.to_bytes(), [named], 100)
    assert (found, list(signatures)) == (signed, [named])
    for strangers in ([], [witness_vkey(generate_key())], [witness_vkey(witness, "else")]):
        with pytest.raises(SignerUnknown):
            read_cosigned(signed.to_bytes(), strangers, 100)
    with pytest.raises(SignatureInvalid, match="moment that has not come"):
        read_cosigned(signed.to_bytes(), [named], -1_000)
    with pytest.raises(SignatureInvalid, match="not a signed checkpoint"):
        read_cosigned(b"hello", [named], 100)


# ------------------------------------------------------------------------------ the log's key


def test_the_target_names_the_logs_key(key: SigningKey) -> None:
    document = canonical_json({"format": 1, "receipts": [], "log": log_member(ORIGIN, key)})
    assert read_log_keys(document) == LogKeys(verifier_key(ORIGIN, key, LOG))
    for nothing in (b"", b"{}", b"[]", b'{"log": {"origin": "x", "key": {}}}'):
        with pytest.raises(VerificationFailed, match="names no key") as caught:
            read_log_keys(nothing)
        assert caught.value.link == "log"


def test_two_marketplaces_have_logs_of_different_names() -> None:
    assert log_origin(b"one") != log_origin(b"two")


# ------------------------------------------------------------------------------ entries


ENTRIES = [
    release_entry("acme/guard", "1.0.0", D, D, "2026-01-01T00:00:00Z"),
    yank_entry("acme/guard", "1.0.0", D, None, "2026-01-01T00:00:00Z"),
    deprecation_entry("acme/guard", D, "2026-01-01T00:00:00Z"),
    keys_entry("acme", 1, b"{}", "2026-01-01T00:00:00Z"),
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.kind)
def test_an_entry_comes_back_and_says_no_more_than_it_must(entry: Entry) -> None:
    body = entry.to_bytes()
    assert read_entry(body) == entry
    assert set(json.loads(body)) <= {
        *("format", "kind", "publisher", "plugin", "version", "digest", "statement", "at"),
    }
    assert len(body) < 400


@pytest.mark.parametrize(
    "change",
    [{"kind": "party"}, {"kind": []}, {"digest": "ab"}, {"digest": 7}, {"statement": "x"}, {"plugin": "globex/guard"},
     {"at": ""}, {"at": 5}, {"more": 1}, {"format": 2}, {"publisher": ""}, {"plugin": 3}],
    ids=str,
)  # fmt: skip
def test_what_is_no_entry_is_refused(change: dict[str, Any]) -> None:
    said = {**ENTRIES[0].to_dict(), **change}
    with pytest.raises(ValueError, match=r".+"):
        entry_from_dict(said)
    with pytest.raises(ValueError, match=r".+"):
        read_entry(canonical_json(said))


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[" * 2_000, b" " * 5_000, b"null", json.dumps(ENTRIES[0].to_dict()).encode()]
)
def test_an_entry_has_one_form(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_entry(body)


# ------------------------------------------------------------------------------ proof files


@pytest.fixture
def proof(key: SigningKey) -> LogProof:
    other = bytes(32)
    signed = sign_checkpoint(ORIGIN, 2, node_hash(other, ENTRIES[0].leaf), key)
    return LogProof(1, ENTRIES[0], (other,), signed.to_bytes())


def test_a_proof_file_comes_back_and_proves(proof: LogProof, key: SigningKey) -> None:
    again = read_proof(proof.to_bytes())
    assert again == proof
    assert again.verify(verifier_key(ORIGIN, key, LOG)).size == 2


def test_a_proof_that_was_changed_proves_nothing(proof: LogProof, key: SigningKey) -> None:
    log = verifier_key(ORIGIN, key, LOG)
    forged = [
        replace(proof, index=0),
        replace(proof, index=2),
        replace(proof, entry=ENTRIES[1]),
        replace(proof, hashes=()),
        replace(proof, hashes=(b"\1" * 32,)),
        replace(proof, checkpoint=proof.checkpoint.replace(b"\n2\n", b"\n3\n")),
        replace(proof, statement={"payload": "something else"}),
    ]
    for each in forged:
        with pytest.raises(VerificationFailed) as caught:
            read_proof(each.to_bytes()).verify(log)
        assert caught.value.link == "log"
    with pytest.raises(VerificationFailed):
        proof.verify(verifier_key(ORIGIN, generate_key(), LOG))


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"format": 2}', b"[" * 5_000, b"x" * 300_000, b"\xff"])
def test_what_is_no_proof_file_is_refused(body: bytes) -> None:
    with pytest.raises(VerificationFailed, match="not the proof of an entry"):
        read_proof(body)
    members: dict[str, Any] = {"format": 1, "index": 0, "entry": ENTRIES[0].to_dict(), "hashes": [], "checkpoint": ""}
    changes: list[dict[str, Any]] = [{"index": "0"}, {"index": True}, {"hashes": ["AAAA"]}, {"hashes": 5}]
    changes += [{"statement": []}, {"entry": 1}]
    for change in changes:
        with pytest.raises(VerificationFailed):
            read_proof(json.dumps({**members, **change}).encode())
