"""A namespace's keys: versioned threshold documents, each signed by the one before and by the keys it names.

The signature over a document by its own keys proves possession. From version 2 on a document names the digest of the
one before it, and a threshold of that one's keys must have signed it too: nobody who holds fewer gets in. All of them
are one TUF target (``namespaces/<publisher>.json``), so a client learns a publisher's keys, and how they came to be,
through the same chain as everything else; ``succession.py`` says which of them count for a release.

Source of the two thresholds: TUF specification 1.0.34, section 5.3.4 (root rotation).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from kernel.errors import KeelstoneError, ValidationFailed
from marketplace.errors import SignatureInvalid, SignatureMissing, SignerUnknown
from marketplace.keys import SigningKey, check_publisher, public_key
from marketplace.signing import add_signatures, canonical_json, open_payload, peek_payload, sign_payload

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

KEY_SET_PAYLOAD = "application/vnd.keelstone.key-set+json"
MAX_KEYS = 16
_ALWAYS, _MAY = {"publisher", "version", "threshold", "keys"}, {"releases", "previous", "stolen", "owner"}


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one namespace; ``threshold`` of them must sign the next key set. ``document`` is the signed original.

    ``releases`` of them must sign a release (and a withdrawal, or advice); without it, ``threshold``. ``previous`` is
    the digest of what the version before says. ``stolen`` has keys of earlier versions and the moment (ISO 8601, UTC)
    from which they do not count. ``owner`` names who holds the namespace from this version on, if that has changed.
    """

    publisher: str
    version: int
    threshold: int
    keys: Mapping[str, SSlibKey]
    document: bytes = field(repr=False)
    releases: int | None = None
    previous: str | None = None
    stolen: Mapping[str, str] = field(default_factory=dict)
    owner: str | None = None

    @property
    def release_threshold(self) -> int:
        """How many of the keys must sign a release."""
        return self.threshold if self.releases is None else self.releases

    @property
    def digest(self) -> str:
        """SHA-256 of what the document says, whoever signed it: what the next version names."""
        return body_digest(self.document)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A key set that is being signed: who has signed, and who of both versions is still missing."""

    body: Mapping[str, Any]
    signed: tuple[str, ...]
    missing_new: tuple[str, ...]
    missing_old: int
    could_sign: tuple[str, ...]
    """Keys of the version before that have not signed; ``missing_old`` of them are needed."""

    @property
    def complete(self) -> bool:
        """Whether nobody's signature is missing."""
        return not self.missing_new and not self.missing_old


def target_path(publisher: str) -> str:
    """Where the key sets of a namespace are among the TUF targets."""
    return f"namespaces/{publisher}.json"


def body_digest(document: bytes) -> str:
    """SHA-256 of what a signed document says, in hex."""
    return sha256(canonical_json(peek_payload(document))).hexdigest()


def make_key_set(
    publisher: str, keys: Sequence[SigningKey], *, threshold: int = 1, version: int = 1, releases: int | None = None
) -> KeySet:
    """The signed key set that binds ``publisher`` to ``keys``."""
    body: dict[str, Any] = {
        "publisher": check_publisher(publisher),
        "version": version,
        "threshold": threshold,
        "keys": [key.public.to_dict() for key in keys],
    }
    if releases is not None:
        body["releases"] = releases
    return read_key_set(sign_payload(canonical_json(body), KEY_SET_PAYLOAD, keys))


def propose(
    before: KeySet | None,
    keys: Sequence[SSlibKey],
    *,
    threshold: int,
    publisher: str = "",
    releases: int | None = None,
    stolen: Mapping[str, str] | None = None,
    owner: str | None = None,
) -> bytes:
    """What the key set after ``before`` would say, for its signers: a document without signatures.

    Without ``before`` it is the first one of ``publisher``. Raises ValidationFailed.
    """
    body: dict[str, Any] = {
        "publisher": before.publisher if before else publisher,
        "version": before.version + 1 if before else 1,
        "threshold": threshold,
        "keys": [key.to_dict() for key in keys],
    }
    body |= {"previous": before.digest} if before else {}
    body |= {} if releases is None else {"releases": releases}
    body |= {"stolen": dict(stolen)} if stolen else {}
    body |= {} if owner is None else {"owner": owner}
    _shape(body, b"")
    return sign_payload(canonical_json(body), KEY_SET_PAYLOAD, [])


def sign_proposal(document: bytes, keys: Sequence[SigningKey]) -> bytes:
    """The document with the signatures of ``keys`` added. Raises SignatureInvalid if it is no key set."""
    _shape(peek_payload(document), b"")
    return add_signatures(document, KEY_SET_PAYLOAD, keys)


def look_at(document: bytes, before: KeySet | None) -> Proposal:
    """Who has signed a key set, and who must still. Signatures that do not fit are as good as missing."""
    body = peek_payload(document)
    shaped = _shape(body, document)

    def signers(keys: Mapping[str, SSlibKey]) -> set[str]:
        try:
            return set(open_payload(document, KEY_SET_PAYLOAD, keys, 1)[1])
        except (SignatureInvalid, SignatureMissing, SignerUnknown):
            return set()

    new, old = signers(shaped.keys), signers(before.keys) if before else set()
    needed = max(before.threshold - len(old), 0) if before else 0
    missing = tuple(key for key in shaped.keys if key not in new)
    could = tuple(key for key in before.keys if key not in old) if before else ()
    return Proposal(body, tuple(sorted(new | old)), missing, needed, could)


def read_key_set(document: bytes) -> KeySet:
    """The key set in a signed document, after checking its shape and that its own keys signed it.

    Raises ValidationFailed, SignatureMissing, SignerUnknown or SignatureInvalid.
    """
    shaped = _shape(peek_payload(document), document)
    # Every key must have signed, not just a threshold: nobody binds a key that they do not hold.
    try:
        open_payload(document, KEY_SET_PAYLOAD, shaped.keys, len(shaped.keys))
    except SignatureInvalid as error:
        raise SignatureInvalid(
            "The key set is not signed by every key that it names.",
            expected=f"{len(shaped.keys)} valid signatures",
            found=error.found,
            fix="Sign it with each of the keys.",
        ) from error
    return shaped


def check_successor(before: KeySet, after: KeySet) -> None:
    """Raise SignatureInvalid unless ``after`` follows ``before`` and a threshold of its keys says so.

    A key that is in both counts once for each, and once only.
    """
    if (after.publisher, after.version, after.previous) != (before.publisher, before.version + 1, before.digest):
        raise SignatureInvalid(
            "The key set does not follow the one before it.",
            expected=f"{before.publisher}, version {before.version + 1} after sha256 {before.digest[:16]}",
            found=f"{after.publisher}, version {after.version} after sha256 {str(after.previous)[:16]}",
            fix="Propose a new one with `keelstone plugin keys propose`.",
        )
    try:
        open_payload(after.document, KEY_SET_PAYLOAD, before.keys, before.threshold)
    except (SignatureInvalid, SignerUnknown) as error:
        raise SignatureInvalid(
            f"Key set v{after.version} of {after.publisher} is not signed by a threshold of v{before.version}.",
            expected=f"{before.threshold} of {', '.join(key[:16] for key in before.keys)}",
            found=error.found,
            fix="Have their holders sign it with `keelstone plugin keys sign`.",
        ) from error


def _shape(body: Any, document: bytes) -> KeySet:
    """The key set that ``body`` describes; its document canonical, so that it is the same however it was sent."""
    try:
        if not _ALWAYS <= set(body) <= _ALWAYS | _MAY:
            raise ValueError(f"members {', '.join(map(str, body))}")
        listed = [public_key(key) for key in body["keys"]]
        keys = {key.keyid: key for key in listed}
        version, threshold, releases = body["version"], body["threshold"], body.get("releases")
        if len(keys) != len(listed) or not 1 <= len(keys) <= MAX_KEYS:
            raise ValueError(f"{len(listed)} keys, of which {len(keys)} are different")
        if type(version) is not int or version < 1:
            raise ValueError(f"version {version!r}")
        for said in (threshold, threshold if releases is None else releases):
            if type(said) is not int or not 1 <= said <= len(keys):
                raise ValueError(f"threshold {said!r} of {len(keys)} keys")
        previous, stolen, owner = body.get("previous"), dict(body.get("stolen", {})), body.get("owner")
        if (version == 1) != (previous is None) or (version == 1 and (stolen or owner is not None)):
            raise ValueError("version 1 follows nothing, and every other one names what it follows")
        if previous is not None and (not isinstance(previous, str) or len(previous) != 64):
            raise ValueError(f"previous {str(previous)[:80]!r}")
        if set(stolen) & set(keys):
            raise ValueError("a stolen key is among the keys")
        if not all(datetime.fromisoformat(moment).tzinfo for moment in stolen.values()):
            raise ValueError("the moment of a theft has no time zone")
        if owner is not None and (not isinstance(owner, str) or not 1 <= len(owner.strip()) <= 200):
            raise ValueError("the new owner has no name")
        canonical = canonical_json(json.loads(document)) if document else b""
        publisher = check_publisher(body["publisher"])
        return KeySet(publisher, version, threshold, keys, canonical, releases, previous, stolen, owner)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, KeelstoneError):
            raise
        raise ValidationFailed(
            f"The key set is malformed: {error}.",
            expected=f"publisher, version (from 1), threshold and 1 to {MAX_KEYS} different keys",
        ) from error
