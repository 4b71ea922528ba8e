"""Use cases: provision, configure, look at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from plugin_sdk import ConcurrencyConflict, Context, Dispatcher, NotFound, TenantDraft, require
from plugin_sdk.services import Database, Transaction
from plugins.builtin.tenants import domain
from plugins.builtin.tenants.domain import Overview, Tenant

logger = logging.getLogger(__name__)


class TenantRepository(Protocol):
    """Where tenants are kept."""

    async def add(self, transaction: Transaction, tenant: Tenant) -> None:
        """Raises Conflict if the id is taken."""
        ...

    async def save(self, transaction: Transaction, tenant: Tenant, seen: int) -> bool: ...

    async def get(self, transaction: Transaction, id: str) -> Tenant | None: ...

    async def page(self, transaction: Transaction, after: str, limit: int) -> list[Tenant]: ...

    async def overview(self, transaction: Transaction, id: str) -> Overview: ...


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Tenants:
    """The use cases. Implements ``TenantDirectory`` and ``TenantPlans`` of ``plugin_sdk.services``."""

    def __init__(
        self,
        database: Database,
        repository: TenantRepository,
        hooks: Dispatcher,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._database = database
        self._repository = repository
        self._hooks = hooks
        self._now = now

    async def provision(self, context: Context, id: str, name: str, plan: str = "free") -> None:
        """Make a tenant through the hook ``tenant_creating``.

        Raises Conflict (id taken), Rejected, ValidationFailed.
        """
        await self.create(context, TenantDraft.of(id=id, name=name, plan=plan))

    async def create(self, context: Context, draft: TenantDraft) -> Tenant:
        """Like :meth:`provision`, giving the tenant."""
        outcome = await self._hooks.filter("tenant_creating", draft, context)
        tenant, event = domain.provision(outcome.payload, self._now())
        async with self._database.write(tenant.id, context) as transaction:
            await self._repository.add(transaction, tenant)
            transaction.emit(tenant.stream, event, expected_version=0)
        if outcome.effects:
            # They belong to the tenant in which the hook ran, so they can't share the new tenant's commit.
            try:
                async with self._database.write(context.tenant, context) as transaction:
                    await outcome.save(transaction)
            except ConcurrencyConflict:
                logger.warning("a plugin's state moved while %s was provisioned; its writes are lost", tenant.id)
        return tenant

    async def configure(
        self,
        context: Context,
        *,
        name: str | None = None,
        plan: str | None = None,
        configuration: Mapping[str, Any] | None = None,
    ) -> Tenant:
        """Change the tenant in hand. The plan is what was agreed with the operator: only who provisions
        tenants changes it. Raises NotFound, ConcurrencyConflict, ValidationFailed, Forbidden."""
        tenant = await self.get(context.tenant)
        if plan is not None and plan != tenant.plan:
            require(context.principal, "tenants:provision")
        after, event = domain.configure(tenant, name=name, plan=plan, configuration=configuration)
        if event is None:
            return tenant
        async with self._database.write(context.tenant, context) as transaction:
            if not await self._repository.save(transaction, after, tenant.version):
                raise ConcurrencyConflict(
                    "The tenant was changed by somebody else meanwhile.", tenant=tenant.id, fix="Try again."
                )
            transaction.emit(tenant.stream, event)
        return after

    async def get(self, tenant: str) -> Tenant:
        """One tenant. Raises NotFound."""
        async with self._database.read(tenant) as transaction:
            found = await self._repository.get(transaction, tenant)
        if found is None:
            raise NotFound(f"There is no tenant {tenant}.", tenant=tenant)
        return found

    async def plan(self, tenant: str) -> str | None:
        """The tenant's plan, or None if there is no such tenant."""
        async with self._database.read(tenant) as transaction:
            found = await self._repository.get(transaction, tenant)
        return None if found is None else found.plan

    async def overview(self, tenant: str) -> Overview:
        """What the tenant has and does (a projection: a moment behind)."""
        async with self._database.read(tenant) as transaction:
            return await self._repository.overview(transaction, tenant)

    async def page(self, scope: str, after: str = "", limit: int = 50) -> list[Tenant]:
        """Tenants by id; in a tenant's scope only that one."""
        async with self._database.read(scope) as transaction:
            return await self._repository.page(transaction, after, limit)

    async def exists(self, tenant: str) -> bool:
        """Whether the tenant has been provisioned."""
        async with self._database.read(tenant) as transaction:
            return await self._repository.get(transaction, tenant) is not None
