"""The log's key, as TUF vouches for it: a member of the target that names the marketplace's own keys."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from kernel.errors import KeelstoneError
from marketplace.errors import VerificationFailed
from marketplace.keys import SigningKey, public_key
from marketplace.log.note import LOG, VerifierKey

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
