"""A hash bin of the TUF repository as plain data: how a batch amends hundreds of them at little cost.

python-tuf's classes check and copy every target of a bin each time it is read and written. A bin that this registry
signed itself needs neither: it is read as JSON, its targets are put in, and it is signed over the same canonical form.
Whoever fetches it checks it with python-tuf.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from marketplace.errors import RegistryDamaged

if TYPE_CHECKING:
    from marketplace.keys import SigningKey


def amend_bin(
    name: str, body: bytes | None, changed: Mapping[str, bytes], version: int, expires: datetime, key: SigningKey
) -> bytes:
    """The bin in ``body`` with the documents ``changed`` (by path), as ``version``, signed by ``key``.

    ``name`` is its file's, for the error: raises RegistryDamaged if ``body`` is no bin.
    """
    try:
        signed: dict[str, Any] = orjson.loads(body or b"")["signed"]
        targets: dict[str, Any] = signed["targets"]
        if signed["_type"] != "targets":
            raise ValueError(signed["_type"])
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryDamaged(
            f"The registry's metadata {name} is {'missing' if body is None else 'of another kind'}.",
            file=name,
            fix="Restore the marketplace folder from a backup.",
        ) from error
    for path, document in changed.items():
        targets[path] = {"hashes": {"sha256": hashlib.sha256(document).hexdigest()}, "length": len(document)}
    signed["version"] = version
    signed["expires"] = expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    signature = key.signer.sign(canonical(signed)).to_dict()
    return orjson.dumps({"signatures": [signature], "signed": signed})


def canonical(signed: Mapping[str, Any]) -> bytes:
    """OLPC's canonical JSON of a bin. It escapes only quotes and backslashes, and orjson control characters, too, so
    raises ValueError if a path has one: no plugin's or publisher's name does."""
    if any(not path.isprintable() for path in signed["targets"]):
        raise ValueError("a target's path has a control character")
    return orjson.dumps(signed, option=orjson.OPT_SORT_KEYS)
