"""Statements that the platform signs, and consent receipts: checked by anybody, offline, with its public keys.

A statement is a JWS in compact form (RFC 7515) by an Ed25519 key (RFC 8037); ``typ`` in its header says what it is.
Each receipt names the SHA-256 of the one before it in its tenant, so none can be taken out or put in unseen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kernel.errors import KeelstoneError

ALGORITHM = "Ed25519"
CONSENT = "keelstone-consent+jws"
"""``typ`` of a consent receipt."""
FORMAT = 1


class ReceiptsDamaged(KeelstoneError):
    """A file of receipts is not what the platform signed, or not all of it."""

    code, status, title = "receipts-damaged", 422, "Receipts do not verify"


def digest_of(receipt: str) -> str:
    """What the next receipt names: SHA-256 in hex of the compact form."""
    return hashlib.sha256(receipt.encode()).hexdigest()


def read_statement(statement: str, keys: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What a statement says, once its signature is found good under a JSON Web Key Set. Raises ReceiptsDamaged."""
    from joserfc import jws
    from joserfc.errors import JoseError
    from joserfc.jwk import KeySet

    try:
        known: Any = dict(keys)
        found = jws.deserialize_compact(statement, KeySet.import_key_set(known), algorithms=[ALGORITHM])
        if found.headers().get("typ") != kind:
            raise ValueError(f"its type is {found.headers().get('typ')!r}")
        body = json.loads(found.payload)
        if not isinstance(body, dict):
            raise ValueError("it is no object")
    except (JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReceiptsDamaged(
            "A receipt was not signed with these keys, or was changed since.",
            expected=f"a {kind} by a key of the platform",
            found=str(error) or type(error).__name__,
            fix="Compare the keys with the platform's own: GET /api/v1/auth/jwks.json.",
        ) from error
    return body


def check_receipts(document: object, keys: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """What the receipts in an export say, oldest first, once each signature and each link is found good.

    ``keys`` are the platform's, from where you trust them; without, those in the file itself, which shows only that it
    is whole. That the newest are missing shows only beside a later export. Raises ReceiptsDamaged.
    """
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise ReceiptsDamaged("This is no export of consent receipts.", expected=f"format {FORMAT}")
    receipts, tenant, known = document.get("receipts"), document.get("tenant"), keys or document.get("keys")
    if not isinstance(receipts, Sequence) or isinstance(receipts, str) or not isinstance(known, Mapping):
        raise ReceiptsDamaged("The export lacks its receipts or its keys.", expected="receipts and keys")
    found: list[dict[str, Any]] = []
    previous: str | None = None
    for number, receipt in enumerate(receipts, 1):
        said = read_statement(str(receipt), known, CONSENT)
        expected = {"tenant": tenant, "number": number, "previous": previous}
        wrong = [name for name, value in expected.items() if said.get(name) != value]
        if wrong:
            raise ReceiptsDamaged(
                f"Receipt {number} is not the one that follows: one was taken out, put in or moved.",
                tenant=str(tenant),
                expected=", ".join(f"{name} {expected[name]}" for name in wrong),
                found=", ".join(f"{name} {said.get(name)}" for name in wrong),
            )
        found.append(said)
        previous = digest_of(str(receipt))
    return found
