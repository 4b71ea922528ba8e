"""Signatures: DSSE envelopes, and in-toto statements inside them.

A publisher signs a *release statement* over the package's digest; the signature travels in a file
of its own beside the package (``<package>.sig.json``) and again inside the registry's index, so
either copy is enough to verify offline. Statements carry no time: signing the same package again
gives the same bytes.

Sources: DSSE 1.0 (secure-systems-lab/dsse), in-toto attestation framework, Statement v1.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from marketplace.errors import PackageTooLarge, SignatureInvalid, SignatureMissing, SignerUnknown
from marketplace.keys import SigningKey

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey

    from marketplace.package import Package

SIGNATURE_SUFFIX = ".sig.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
STATEMENT_PAYLOAD = "application/vnd.in-toto+json"
RELEASE = "urn:keelstone:release:v1"
YANK = "urn:keelstone:yank:v1"
DEPRECATION = "urn:keelstone:deprecation:v1"
ANSWER = "urn:keelstone:answer:v1"
RECEIPT = "urn:keelstone:receipt:v1"
KILL = "urn:keelstone:kill:v1"
OWNER = "urn:keelstone:owner:v1"
VERDICT = "urn:keelstone:verdict:v1"
ADVISORY = "urn:keelstone:advisory:v1"
DOMAIN = "urn:keelstone:domain:v1"
HANDOVER = "urn:keelstone:handover:v1"
JOBS = "urn:keelstone:jobs:v1"
BINDING = "urn:keelstone:binding:v1"
MAX_ENVELOPE_BYTES = 64 * 1024
SIGNED_AHEAD = timedelta(seconds=300)
"""How much a publisher's clock may be ahead."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A verified statement: what it is about, what it says, and who signed it (key ids)."""

    predicate_type: str
    subjects: Mapping[str, str]
    predicate: Mapping[str, Any]
    signers: tuple[str, ...]


def canonical_json(value: Any) -> bytes:
    """``value`` as compact JSON with sorted keys: the same value always gives the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sign_payload(payload: bytes, payload_type: str, keys: Sequence[SigningKey]) -> bytes:
    """A DSSE envelope, as JSON bytes, over ``payload`` with a signature by each of ``keys``."""
    from securesystemslib.dsse import Envelope

    envelope = Envelope(payload, payload_type, {})
    for key in keys:
        envelope.sign(key.signer)
    return canonical_json(envelope.to_dict())


def add_signatures(envelope: bytes, payload_type: str, keys: Sequence[SigningKey]) -> bytes:
    """The envelope with a signature by each of ``keys`` added; a key that had signed signs again, once.

    Raises SignatureInvalid if the envelope is none, or for something else than ``payload_type``.
    """
    parsed = _parse(envelope, unsigned=True)
    _check_type(parsed, payload_type)
    for key in keys:
        parsed.sign(key.signer)
    return canonical_json(parsed.to_dict())


def only_by(envelope: bytes, payload_type: str, keys: Mapping[str, SSlibKey]) -> bytes:
    """The envelope with nothing but the valid signatures of ``keys``, in the order of their ids.

    Raises as :func:`open_payload`.
    """
    parsed = _parse(envelope)
    _check_type(parsed, payload_type)
    good = _verify(parsed, keys, 1)
    parsed.signatures = {key: parsed.signatures[key] for key in sorted(good)}
    return canonical_json(parsed.to_dict())


def signers_named(envelope: bytes) -> tuple[str, ...]:
    """The keys that an envelope names, unverified: to say whose signature is missing."""
    return tuple(_parse(envelope, unsigned=True).signatures)


def open_payload(
    envelope: bytes, payload_type: str, keys: Mapping[str, SSlibKey], threshold: int
) -> tuple[Any, tuple[str, ...]]:
    """The JSON payload of an envelope that ``threshold`` of ``keys`` signed, and who did.

    Raises SignatureMissing, SignerUnknown or SignatureInvalid.
    """
    parsed = _parse(envelope)
    _check_type(parsed, payload_type)
    signers = _verify(parsed, keys, threshold)
    return _json(parsed.payload), signers


def peek_payload(envelope: bytes) -> Any:
    """The JSON payload, unverified: only to learn whose keys to verify it with."""
    return _json(_parse(envelope, unsigned=True).payload)


def sign_statement(
    predicate_type: str, subjects: Mapping[str, str], predicate: Mapping[str, Any], key: SigningKey
) -> bytes:
    """A signed in-toto statement about ``subjects`` (names to SHA-256 hex), as DSSE JSON bytes."""
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(subjects.items())],
        "predicateType": predicate_type,
        "predicate": dict(predicate),
    }
    return sign_payload(canonical_json(statement), STATEMENT_PAYLOAD, [key])


def sign_domain(publisher: str, domain: str, key: SigningKey) -> bytes:
    """A publisher's statement that ``domain`` speaks for its namespace."""
    digest = hashlib.sha256(domain.encode()).hexdigest()
    return sign_statement(DOMAIN, {domain: digest}, {"plugin": publisher, "domain": domain}, key)


def open_statement(envelope: bytes, predicate_type: str, keys: Mapping[str, SSlibKey], threshold: int = 1) -> Statement:
    """The statement in ``envelope``, verified. Raises as :func:`open_payload`, also if it is another kind."""
    body, signers = open_payload(envelope, STATEMENT_PAYLOAD, keys, threshold)
    return _statement(body, predicate_type, signers)


def peek_statement(envelope: bytes, predicate_type: str) -> Statement:
    """The statement, unverified: only to learn which namespace's keys to verify it with."""
    return _statement(peek_payload(envelope), predicate_type, ())


def _statement(body: Any, predicate_type: str, signers: tuple[str, ...]) -> Statement:
    try:
        if body["_type"] != STATEMENT_TYPE or body["predicateType"] != predicate_type:
            raise SignatureInvalid(
                "The signed statement is of another kind.",
                expected=predicate_type,
                found=str(body["predicateType"])[:200],
            )
        subjects = {str(s["name"]): str(s["digest"]["sha256"]) for s in body["subject"]}
        return Statement(predicate_type, subjects, dict(body["predicate"]), signers)
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureInvalid("The signed payload is not an in-toto statement.") from error


def sign_release(package: Package, key: SigningKey, *others: SigningKey) -> bytes:
    """The publisher's release statement over ``package``, as DSSE JSON bytes, signed by ``key`` and the ``others``."""
    signed = sign_statement(RELEASE, {package.file_name: package.digest}, release_predicate(package), key)
    return add_signatures(signed, STATEMENT_PAYLOAD, others) if others else signed


def join_release(package: Package, present: bytes | None, keys: Sequence[SigningKey]) -> bytes:
    """The release statement over ``package`` signed by ``keys``, beside those who had signed ``present``.

    Signatures over anything else than exactly this package are left behind.
    """
    fresh = sign_release(package, *keys)
    if present is None:
        return fresh
    try:
        if peek_payload(present) == peek_payload(fresh):
            return add_signatures(present, STATEMENT_PAYLOAD, keys)
    except (SignatureInvalid, PackageTooLarge):
        pass
    return fresh


def release_predicate(package: Package) -> dict[str, Any]:
    """What a release statement says about a package besides its digest."""
    return {
        "plugin": package.manifest.id,
        "version": package.manifest.version,
        "size": len(package.data),
        "manifest": {"sha256": package.manifest_digest},
        "component": {"sha256": package.component_digest},
    }


def sign_yank(plugin: str, version: str, digest: str, reason: str, key: SigningKey) -> bytes:
    """The publisher's statement that withdraws a release, as DSSE JSON bytes."""
    predicate = {"plugin": plugin, "version": version, "reason": reason}
    return sign_statement(YANK, {f"{plugin}@{version}": digest}, predicate, key)


def sign_deprecation(plugin: str, reason: str | None, successor: str | None, at: str, key: SigningKey) -> bytes:
    """The publisher's statement that a plugin should no longer be chosen, as DSSE JSON bytes.

    ``reason`` None takes an earlier one back. ``at`` (ISO 8601, UTC) puts statements in order: an older one
    never replaces a newer one. The subject's digest is that of the plugin's id, which is what it is about.
    """
    predicate = {"plugin": plugin, "reason": reason, "successor": successor, "at": at}
    return sign_statement(DEPRECATION, {plugin: hashlib.sha256(plugin.encode()).hexdigest()}, predicate, key)


def sign_answer(plugin: str, rating: str, text: str | None, at: str, key: SigningKey) -> bytes:
    """The publisher's answer to a rating (its id), as DSSE JSON. ``text`` None takes it back; ``at`` is ISO 8601."""
    predicate = {"plugin": plugin, "rating": rating, "text": text, "at": at}
    return sign_statement(ANSWER, {plugin: hashlib.sha256(plugin.encode()).hexdigest()}, predicate, key)


def verify_release(
    package: Package, envelope: bytes | None, keys: Mapping[str, SSlibKey], threshold: int = 1
) -> Statement:
    """Check that ``threshold`` of ``keys`` signed exactly this package.

    Raises SignatureMissing, SignerUnknown or SignatureInvalid, naming the plugin.
    """
    plugin = package.manifest.id
    if not envelope:
        raise SignatureMissing(
            "The package came without its signature.",
            plugin=plugin,
            expected=package.file_name + SIGNATURE_SUFFIX,
            fix="Sign it with `keelstone plugin sign` and send the .sig.json with it.",
        )
    try:
        statement = open_statement(envelope, RELEASE, keys, threshold)
    except (SignatureInvalid, SignerUnknown, SignatureMissing) as error:
        error.plugin = plugin
        raise
    if statement.subjects != {package.file_name: package.digest}:
        raise SignatureInvalid(
            "The signature is for other bytes than this package.",
            plugin=plugin,
            expected=", ".join(f"{n} sha256:{d}" for n, d in statement.subjects.items()),
            found=f"{package.file_name} sha256:{package.digest}",
            fix="The package was changed after it was signed. Sign it again, or download it again.",
        )
    if dict(statement.predicate) != release_predicate(package):
        raise SignatureInvalid(
            "The signed statement does not describe this package.",
            plugin=plugin,
            expected=release_predicate(package),
            found=dict(statement.predicate),
        )
    return statement


def _check_type(parsed: Envelope, payload_type: str) -> None:
    if parsed.payload_type != payload_type:
        raise SignatureInvalid("The signature is for something else.", expected=payload_type, found=parsed.payload_type)


def _parse(envelope: bytes, *, unsigned: bool = False) -> Envelope:
    from securesystemslib.dsse import Envelope

    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise PackageTooLarge(
            "The signature file is too large.",
            expected=f"at most {MAX_ENVELOPE_BYTES:,} bytes",
            found=f"{len(envelope):,} bytes",
        )
    try:
        parsed = Envelope.from_dict(json.loads(envelope))
        strangers = [s.unrecognized_fields for s in parsed.signatures.values()]
        if not isinstance(parsed.payload_type, str) or any(strangers):
            raise ValueError("unknown members")
    except RecursionError as error:
        raise SignatureInvalid("The signature file is nested too deeply.") from error
    except Exception as error:  # the library raises whatever its parsing trips over
        raise SignatureInvalid(
            "The signature file is not a DSSE envelope.",
            expected='{"payload": ..., "payloadType": ..., "signatures": [{"keyid": ..., "sig": ...}]}',
            fix="Sign the package again with `keelstone plugin sign`.",
        ) from error
    if not parsed.signatures and not unsigned:
        raise SignatureMissing("The envelope has no signature.", fix="Sign with `keelstone plugin sign`.")
    return parsed


def _verify(envelope: Envelope, keys: Mapping[str, SSlibKey], threshold: int) -> tuple[str, ...]:
    """The ids of the keys that really signed, at least ``threshold`` different ones."""
    from securesystemslib.exceptions import UnverifiedSignatureError, VerificationError

    known = {i: s for i, s in envelope.signatures.items() if i in keys}
    if not known:
        raise SignerUnknown(
            "The signature is by a key that is not one of the namespace's.",
            expected=", ".join(f"key {i[:16]}" for i in keys),
            found=", ".join(f"key {str(i)[:16]}" for i in envelope.signatures),
            fix="Sign with the key that the namespace is bound to.",
        )
    pae, good = envelope.pae(), []
    for key_id, signature in known.items():
        try:
            keys[key_id].verify_signature(signature, pae)
            good.append(key_id)
        except (UnverifiedSignatureError, VerificationError):
            continue
    if len(good) < threshold:
        short = len(good) == len(known)  # all that is there fits: it is only too little
        left = ", ".join(f"key {i[:16]}" for i in keys if i not in good)
        raise SignatureInvalid(
            "It is signed by too few." if short else "The signature does not fit the content.",
            expected=f"{threshold} valid signature{'s' if threshold > 1 else ''}",
            found=f"{len(good)}",
            fix=f"{threshold - len(good)} more must sign with `keelstone plugin sign`: {left}."
            if short
            else "The content was changed after it was signed. Sign it again, or download it again.",
        )
    return tuple(good)


def _json(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise SignatureInvalid("The signed payload is not JSON.") from error
