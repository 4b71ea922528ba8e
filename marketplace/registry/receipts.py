"""Receipts: the registry's signed answers, which a lost connection can ask for again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from marketplace.keys import SigningKey
from marketplace.signing import RECEIPT, canonical_json, sign_statement

KEYS_TARGET = "registry/keys.json"
"""The TUF target that names the key which signs receipts."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one release. ``snapshot`` is the version of the TUF snapshot that shows it.

    ``signed`` is the same as a DSSE envelope by the registry's receipt key.
    """

    plugin: str
    version: str
    digest: str
    size: int
    state: Literal["live", "yanked"]
    published: str
    snapshot: int
    signed: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-ready."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class NamespaceRecord:
    """A registered namespace: its key ids and how many of them must sign."""

    publisher: str
    version: int
    threshold: int
    keys: tuple[str, ...]
    registered: str

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


def keys_document(key: SigningKey) -> bytes:
    """The target that tells clients which key signs receipts."""
    return canonical_json({"format": 1, "receipts": [key.public.to_dict()]})
