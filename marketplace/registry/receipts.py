"""Receipts: the registry's signed answers, which a lost connection can ask for again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from marketplace.keys import SigningKey
from marketplace.log.key import KEYS_TARGET as KEYS_TARGET
from marketplace.log.key import log_member
from marketplace.signing import RECEIPT, canonical_json, sign_statement

State = Literal["received", "scanning", "quarantined", "live", "rejected", "refused", "yanked"]
"""Where a release is on its way: taken in, being looked at, held for a person's verdict, installable, turned down by
that verdict, turned away by a rule, withdrawn by its publisher."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one release. ``snapshot`` is the version of the TUF snapshot that shows it; 0: none does.

    ``published`` is since when it is live, or (where it is not) since when it is in its state. ``log_index`` is where
    the transparency log has it (None: it says nothing of this, or the receipt is older than the log). ``signed`` is the
    same as a DSSE envelope by the registry's receipt key.
    """

    plugin: str
    version: str
    digest: str
    size: int
    state: State
    published: str
    snapshot: int
    signed: Mapping[str, Any]
    log_index: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-ready."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class NamespaceRecord:
    """A registered namespace: its key ids and how many of them must sign the next key set, and ``releases``.

    ``owner`` names who holds it, if that has changed.
    """

    publisher: str
    version: int
    threshold: int
    keys: tuple[str, ...]
    registered: str
    releases: int = 1
    owner: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-ready."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DeprecationRecord:
    """What a publisher last said of choosing a plugin; ``reason`` None: nothing against it (any more)."""

    plugin: str
    reason: str | None
    successor: str | None
    at: str


def sign_receipt(key: SigningKey, values: Mapping[str, Any]) -> Receipt:
    """The receipt of ``values`` (all fields but ``signed``)."""
    predicate = {k: v for k, v in values.items() if k != "digest"}
    name = f"{values['plugin']}@{values['version']}"
    envelope = sign_statement(RECEIPT, {name: values["digest"]}, predicate, key)
    return Receipt(**values, signed=json.loads(envelope))


def keys_document(receipts: SigningKey, log: SigningKey, origin: str) -> bytes:
    """The target that tells clients which keys sign receipts and the checkpoints of the log named ``origin``."""
    return canonical_json({"format": 1, "receipts": [receipts.public.to_dict()], "log": log_member(origin, log)})
