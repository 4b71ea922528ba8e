"""Platforms that told this marketplace something, known by their keys: registered when they first do, and bounded.

What a key proves is that the same platform speaks again, not who it is, nor that what it says is true. So each may
say only so much, only so many new ones come in each day, and the operator can stop listening to one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from kernel.errors import KeelstoneError, ValidationFailed
from marketplace.errors import SignatureInvalid, TooManyReports
from marketplace.registry.tables import schema
from plugin_sdk.receipts import read_statement
from plugin_sdk.reporting import platform_name

NEW_A_DAY = 1_000
MOST_KEYS = 8

platforms = sa.Table(
    "platforms",
    schema,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("keys", sa.JSON, nullable=False),
    sa.Column("since", sa.Text, nullable=False, index=True),
    sa.Column("ignored", sa.Text, nullable=True),
)


@dataclass(frozen=True, slots=True)
class Told:
    """A statement of a platform as it is handed in: a JWS, and the public keys (JWKS) that check it."""

    statement: str
    keys: dict[str, Any]


def read_told(told: Told, kind: str) -> tuple[str, dict[str, Any]]:
    """Who says it, and what, once the signature is found good. Raises SignatureInvalid."""
    listed = told.keys.get("keys")
    known = isinstance(listed, list) and 0 < len(listed) <= MOST_KEYS
    if not known or not all(isinstance(k, Mapping) and k.get("kty") == "OKP" and "d" not in k for k in listed or ()):
        raise SignatureInvalid(
            "These are not a platform's public keys.", expected=f"a JSON Web Key Set of 1 to {MOST_KEYS} Ed25519 keys"
        )
    try:
        return platform_name(told.keys), read_statement(told.statement, told.keys, kind)
    except KeelstoneError as error:
        raise SignatureInvalid(
            "The statement was not signed by these keys, or was changed since.", expected=kind, found=error.found
        ) from error


def welcome(
    connection: sa.Connection, name: str, keys: Mapping[str, Any], now: str, new_a_day: int = NEW_A_DAY
) -> None:
    """Know the platform from now on. Raises TooManyReports, or ValidationFailed if the operator ignores it."""
    row = connection.execute(sa.select(platforms).where(platforms.c.name == name)).one_or_none()
    if row is not None:
        if row.ignored is not None:
            raise ValidationFailed(f"This marketplace no longer listens to {name}.", found=row.ignored)
        return
    today = platforms.c.since >= now[:10]
    if connection.execute(sa.select(sa.func.count()).where(today)).scalar_one() >= new_a_day:
        raise TooManyReports("Too many platforms are new today.", expected=f"{new_a_day} a day", fix="Try tomorrow.")
    connection.execute(sa.insert(platforms).values(name=name, keys=dict(keys), since=now))
