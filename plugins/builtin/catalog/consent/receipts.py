"""Consent receipts: each decision on what a plugin may do, signed by the platform, each naming the one before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Integer, String, Text, insert, select, update

from plugin_sdk import Context
from plugin_sdk.data import UtcDateTime, tenant_table
from plugin_sdk.differences import differences
from plugin_sdk.receipts import CONSENT, FORMAT, digest_of
from plugin_sdk.services import Database, StatementSigner, Transaction
from plugins.builtin.catalog.application import utc_now
from plugins.builtin.catalog.domain import Activation, Release, requests
from plugins.builtin.catalog.infrastructure import metadata

table = tenant_table(
    metadata,
    "catalog_consents",
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("plugin", String(110), nullable=False),
    Column("version", String(80), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("by", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("statement", Text, nullable=False),
)
heads = tenant_table(
    metadata,
    "catalog_consent_heads",
    Column("kind", String(20), primary_key=True),
    Column("number", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
)
MOST_LISTED = 200
_KIND = "consents"


@dataclass(frozen=True, slots=True)
class Receipt:
    """One decision. ``number`` counts the tenant's receipts from 1; ``digest`` is the SHA-256 of ``statement``, a JWS
    whose payload has everything else."""

    number: int
    plugin: str
    version: str
    at: datetime
    by: str
    digest: str
    statement: str


class Receipts:
    """Writes receipts in the transaction of the decision, and hands them out."""

    def __init__(
        self,
        database: Database,
        signer: Callable[[], StatementSigner],
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._signer = signer
        self._now = now

    async def note(
        self,
        transaction: Transaction,
        context: Context,
        release: Release,
        decided: Activation,
        before: Release | None = None,
    ) -> str:
        """Sign and store what was decided on ``release``, in the open transaction of the tenant; the digest.
        ``before`` is the version that it takes the place of."""
        (number, previous), at = await self._next(transaction), self._now()
        statement = self._signer().sign(
            CONSENT,
            {
                "tenant": context.tenant,
                "number": number,
                "previous": previous,
                "at": at.isoformat(),
                "by": context.principal.id,
                **_said(release, decided, before),
            },
        )
        row = {"number": number, "plugin": release.manifest.id, "version": release.manifest.version, "at": at}
        digest = digest_of(statement)
        values = {**row, "by": context.principal.id, "digest": digest, "statement": statement}
        await transaction.execute(insert(table).values(**values))
        await transaction.execute(update(heads).where(heads.c.kind == _KIND).values(digest=digest))
        return digest

    async def _next(self, transaction: Transaction) -> tuple[int, str | None]:
        """The next number, and the digest of the receipt before. Whoever decides at the same time waits here."""
        mine = heads.c.kind == _KIND
        if not (await transaction.execute(update(heads).where(mine).values(number=heads.c.number + 1))).rowcount:
            await transaction.execute(insert(heads).values(kind=_KIND, number=1, digest=""))
        head = (await transaction.execute(select(heads.c.number, heads.c.digest).where(mine))).one()
        return head.number, head.digest or None

    async def list(self, tenant: str, plugin: str | None = None, before: int | None = None) -> list[Receipt]:
        """At most MOST_LISTED, newest first; ``before`` a number, for the ones that are older."""
        query = select(table).order_by(table.c.number.desc()).limit(MOST_LISTED)
        if plugin is not None:
            query = query.where(table.c.plugin == plugin)
        if before is not None:
            query = query.where(table.c.number < before)
        async with self._database.read(tenant) as transaction:
            return [_receipt(row) for row in await transaction.execute(query)]

    async def export(self, tenant: str) -> dict[str, Any]:
        """Every receipt of the tenant, oldest first, with the public keys that check them. JSON-ready."""
        async with self._database.read(tenant) as transaction:
            rows = await transaction.execute(select(table.c.statement).order_by(table.c.number))
            statements = list(rows.scalars())
        return {
            "format": FORMAT,
            "tenant": tenant,
            "exported_at": self._now().isoformat(),
            "receipts": statements,
            "keys": dict(self._signer().public_keys()),
        }


def _said(release: Release, decided: Activation, before: Release | None) -> Mapping[str, Any]:
    manifest = release.manifest
    shown = [
        {"capability": r.name, "what": r.what, "why": r.why, "worst": r.worst} for r in requests(manifest, decided)
    ]
    changed = [] if before is None else [c.words for c in differences(before.manifest, manifest)]
    return {
        "plugin": manifest.id,
        "version": manifest.version,
        "digest": release.digest,
        "granted": sorted(decided.grants),
        "denied": sorted(decided.denied),
        "shown": shown,
        "replaces": None if before is None else before.manifest.version,
        "changes": changed,
    }


def _receipt(row: Any) -> Receipt:
    return Receipt(row.number, row.plugin, row.version, row.at, row.by, row.digest, row.statement)
