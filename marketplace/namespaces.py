"""A namespace's keys: a versioned threshold document, signed by the keys it names.

The signature over the document by its own keys proves possession when the namespace is registered.
The document is a TUF target (``namespaces/<publisher>.json``), so a client learns a publisher's
keys through the same chain as everything else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kernel.errors import KeelstoneError, ValidationFailed
from marketplace.errors import SignatureInvalid
from marketplace.keys import SigningKey, check_publisher, public_key
from marketplace.signing import canonical_json, open_payload, peek_payload, sign_payload

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

KEY_SET_PAYLOAD = "application/vnd.keelstone.key-set+json"
MAX_KEYS = 16


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one namespace; ``threshold`` of them must sign. ``document`` is the signed original."""

    publisher: str
    version: int
    threshold: int
    keys: Mapping[str, SSlibKey]
    document: bytes = field(repr=False)


def target_path(publisher: str) -> str:
    """Where the key set of a namespace is among the TUF targets."""
    return f"namespaces/{publisher}.json"


def make_key_set(publisher: str, keys: Sequence[SigningKey], *, threshold: int = 1, version: int = 1) -> KeySet:
    """The signed key set that binds ``publisher`` to ``keys``."""
    body = {
        "publisher": check_publisher(publisher),
        "version": version,
        "threshold": threshold,
        "keys": [key.public.to_dict() for key in keys],
    }
    return read_key_set(sign_payload(canonical_json(body), KEY_SET_PAYLOAD, keys))


def read_key_set(document: bytes) -> KeySet:
    """The key set in a signed document, after checking its shape and that its own keys signed it.

    Raises ValidationFailed, SignatureMissing, SignerUnknown or SignatureInvalid.
    """
    publisher, version, threshold, keys = _shape(peek_payload(document))
    # Every key must have signed, not just a threshold: nobody binds a key that they do not hold.
    try:
        open_payload(document, KEY_SET_PAYLOAD, keys, len(keys))
    except SignatureInvalid as error:
        raise SignatureInvalid(
            "The key set is not signed by every key that it names.",
            expected=f"{len(keys)} valid signatures",
            found=error.found,
            fix="Sign it with each of the keys.",
        ) from error
    # Canonical, so that the same key set is the same document however it was sent.
    return KeySet(publisher, version, threshold, keys, canonical_json(json.loads(document)))


def _shape(body: Any) -> tuple[str, int, int, dict[str, SSlibKey]]:
    try:
        if set(body) != {"publisher", "version", "threshold", "keys"}:
            raise ValueError(f"members {', '.join(map(str, body))}")
        listed = [public_key(key) for key in body["keys"]]
        keys = {key.keyid: key for key in listed}
        version, threshold = body["version"], body["threshold"]
        if len(keys) != len(listed) or not 1 <= len(keys) <= MAX_KEYS:
            raise ValueError(f"{len(listed)} keys, of which {len(keys)} are different")
        if type(version) is not int or version < 1:
            raise ValueError(f"version {version!r}")
        if type(threshold) is not int or not 1 <= threshold <= len(keys):
            raise ValueError(f"threshold {threshold!r} of {len(keys)} keys")
        return check_publisher(body["publisher"]), version, threshold, keys
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, KeelstoneError):
            raise
        raise ValidationFailed(
            f"The key set is malformed: {error}.",
            expected=f"publisher, version (from 1), threshold and 1 to {MAX_KEYS} different keys",
        ) from error
