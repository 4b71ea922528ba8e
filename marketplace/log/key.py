"""The marketplace's own keys, as TUF vouches for them: the log's, and the one that signs receipts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from kernel.errors import KeelstoneError
from marketplace.errors import VerificationFailed
from marketplace.keys import SigningKey, public_key
from marketplace.log.note import LOG, VerifierKey
from marketplace.signing import RECEIPT, canonical_json, open_statement

KEYS_TARGET = "registry/keys.json"
"""The TUF target that names the keys which sign receipts and checkpoints."""


def log_origin(first_root: bytes) -> str:
    """A log's name, after the first root of its marketplace: no two marketplaces have the same."""
    return f"keelstone-marketplace/{hashlib.sha256(first_root).hexdigest()[:16]}"


def log_member(origin: str, key: SigningKey) -> dict[str, Any]:
    """What the target says of the log."""
    return {"origin": origin, "key": key.public.to_dict()}


def read_log_key(document: bytes) -> VerifierKey:
    """The log's key from the target document. Raises VerificationFailed if it names none."""
    try:
        said = json.loads(document)["log"]
        key = public_key(said["key"])
        return VerifierKey(str(said["origin"]), LOG, bytes.fromhex(key.keyval["public"]))
    except (ValueError, KeyError, TypeError, KeelstoneError) as error:
        raise VerificationFailed(
            "log",
            "the marketplace names no key of a transparency log.",
            file=KEYS_TARGET,
            fix="Its operator must start it once with a version that keeps a log.",
        ) from error


def open_receipt(receipt: Mapping[str, Any], document: bytes, digest: str) -> Mapping[str, Any]:
    """What a receipt says of the package with ``digest``, if a key in the target ``document`` signed it.

    What stands beside the signed statement in the receipt does not count. Raises VerificationFailed.
    """
    try:
        keys = {key.keyid: key for key in map(public_key, json.loads(document)["receipts"])}
        statement = open_statement(canonical_json(receipt["signed"]), RECEIPT, keys)
    except (ValueError, KeyError, TypeError, KeelstoneError) as error:
        raise VerificationFailed("receipt", f"it is not signed by the marketplace: {error}") from error
    if set(statement.subjects.values()) != {digest}:
        raise VerificationFailed(
            "receipt",
            "it is about another package.",
            expected=f"sha256 {digest}",
            found=", ".join(f"{name} sha256 {found}" for name, found in statement.subjects.items()),
            fix="Somebody answered with an old receipt. Publish again, over another network.",
        )
    return statement.predicate
