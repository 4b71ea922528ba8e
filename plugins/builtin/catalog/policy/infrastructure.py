"""Policies, and requests for approval, in SQL. A policy's row belongs to whom it governs: the platform's
tenant has the operator's. A request's row belongs to the tenant that asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Integer, String, Text, delete, insert, select, update

from plugin_sdk.data import UtcDateTime, json_type, tenant_table
from plugin_sdk.services import Transaction
from plugins.builtin.catalog.infrastructure import metadata
from plugins.builtin.catalog.policy.domain import Approval, Policy

policies = tenant_table(
    metadata,
    "catalog_policies",
    Column("kind", String(20), primary_key=True),
    Column("document", json_type(), nullable=False),
    Column("version", Integer, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
    Column("changed_by", String(64), nullable=False),
)
approvals = tenant_table(
    metadata,
    "catalog_approvals",
    Column("id", String(32), primary_key=True),
    Column("level", String(10), nullable=False),
    Column("plugin", String(110), nullable=False),
    Column("version", String(80), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("rules", json_type(), nullable=False),
    Column("findings", json_type(), nullable=False),
    Column("state", String(10), nullable=False),
    Column("asked_by", String(64), nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("decided_by", String(64), nullable=False),
    Column("decided_at", UtcDateTime),
    Column("answer", Text, nullable=False),
    Column("expires_at", UtcDateTime),
)
_KIND = "plugins"
MOST_LISTED = 500


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A policy as it is kept. ``version`` counts its changes, from 1."""

    policy: Policy
    version: int
    changed_at: datetime
    changed_by: str


class SqlPolicies:
    """Where policies and requests are kept."""

    async def policies(self, transaction: Transaction, tenants: Iterable[str]) -> dict[str, StoredPolicy]:
        """By tenant, of those in the scope."""
        query = select(policies).where(policies.c.kind == _KIND, policies.c.tenant_id.in_(list(tenants)))
        return {row.tenant_id: _policy(row) for row in await transaction.execute(query)}

    async def put_policy(self, transaction: Transaction, stored: StoredPolicy, seen: int) -> bool:
        """Insert (``seen`` 0) or replace the scope's; False if it is not the one that was seen any more."""
        values = {
            "document": stored.policy.model_dump(mode="json", exclude_defaults=True),
            "version": stored.version,
            "changed_at": stored.changed_at,
            "changed_by": stored.changed_by,
        }
        if not seen:
            await transaction.execute(insert(policies).values(kind=_KIND, **values))
            return True
        mine = (policies.c.kind == _KIND, policies.c.version == seen)
        return bool((await transaction.execute(update(policies).where(*mine).values(**values))).rowcount)

    async def delete_policy(self, transaction: Transaction, seen: int) -> bool:
        """Delete the scope's; False if it is not the one that was seen any more."""
        gone = delete(policies).where(policies.c.kind == _KIND, policies.c.version == seen)
        return bool((await transaction.execute(gone)).rowcount)

    async def add(self, transaction: Transaction, approval: Approval) -> None:
        """Insert a request, in the scope of the tenant that asks."""
        await transaction.execute(insert(approvals).values(_row(approval)))

    async def decide(self, transaction: Transaction, approval: Approval, seen: str) -> bool:
        """Store what was decided; False if the request is not in the state ``seen`` any more."""
        mine = (approvals.c.id == approval.id, approvals.c.state == seen)
        changed = {name: value for name, value in _row(approval).items() if name != "id"}
        return bool((await transaction.execute(update(approvals).where(*mine).values(changed))).rowcount)

    async def get(self, transaction: Transaction, id: str) -> Approval | None:
        """One of the scope."""
        row = (await transaction.execute(select(approvals).where(approvals.c.id == id))).one_or_none()
        return None if row is None else _approval(row)

    async def find(
        self,
        transaction: Transaction,
        *,
        level: str | None = None,
        plugin: str | None = None,
        tenants: Iterable[str] = (),
        states: Iterable[str] = (),
        limit: int | None = MOST_LISTED,
    ) -> list[Approval]:
        """Those of the scope, newest first; of some tenants and in some states only, if named."""
        query = select(approvals).order_by(approvals.c.asked_at.desc(), approvals.c.id).limit(limit)
        wanted, owners = list(states), list(tenants)
        if level is not None:
            query = query.where(approvals.c.level == level)
        if plugin is not None:
            query = query.where(approvals.c.plugin == plugin)
        if owners:
            query = query.where(approvals.c.tenant_id.in_(owners))
        if wanted:
            query = query.where(approvals.c.state.in_(wanted))
        return [_approval(row) for row in await transaction.execute(query)]


def _policy(row: Any) -> StoredPolicy:
    return StoredPolicy(Policy.model_validate(row.document), row.version, row.changed_at, row.changed_by)


def _row(approval: Approval) -> dict[str, Any]:
    """Its columns have the names of its fields; whose it is, the scope says."""
    return {name: value for name, value in asdict(approval).items() if name != "tenant"}


def _approval(row: Any) -> Approval:
    values = {**row._mapping, "rules": tuple(map(tuple, row.rules)), "findings": tuple(row.findings)}
    return Approval(tenant=values.pop("tenant_id"), **values)
