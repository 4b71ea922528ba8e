"""Transactions: one scope each, statements under the guard, events appended at commit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from kernel.adapters.sql.guard import check_statement
from kernel.adapters.sql.log import Append
from kernel.causation import current_cause
from kernel.context import Context, current_context
from kernel.errors import (
    BackendUnavailable,
    ConcurrencyConflict,
    Conflict,
    KeelstoneError,
    TenantMismatch,
    ValidationFailed,
)
from kernel.events import NewEvent
from kernel.ports import ALL_TENANTS
from kernel.tables import use_scope

if TYPE_CHECKING:
    from kernel.adapters.sql.database import SqlDatabase

_log = logging.getLogger(__name__)


class SqlTransaction(AbstractAsyncContextManager["SqlTransaction"]):
    """An open transaction (``kernel.ports.Transaction``). Made by SqlDatabase's ``read`` and ``write``.

    A constraint that the data breaks raises Conflict; on PostgreSQL the transaction is over then. A
    database that does not answer raises BackendUnavailable.
    """

    def __init__(
        self, database: SqlDatabase, engine: AsyncEngine, scope: str, *, writable: bool, context: Context | None
    ) -> None:
        if not scope:
            raise ValidationFailed(
                "A transaction needs a scope.", expected="a tenant's id or ALL_TENANTS", found="none"
            )
        self.scope = scope
        self._database = database
        self._engine = engine
        self._writable = writable
        self._context = context if context is not None else current_context()
        self._guarded = scope != ALL_TENANTS
        self._appends: list[Append] = []
        self._callbacks: list[Callable[[], None]] = []
        self._locked = False
        self._opened: AsyncConnection | None = None

    # ------------------------------------------------------------------ statements

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        """Run a Core statement in the transaction's scope; see :mod:`kernel.adapters.sql.guard`.

        Raises Forbidden, TenantMismatch, Conflict or BackendUnavailable.
        """
        if self._guarded:
            check_statement(statement)
        if not self._writable and getattr(statement, "is_dml", False):
            raise ValidationFailed("A read transaction can't write.", tenant=self.scope, fix="Use write().")
        with use_scope(self.scope):
            try:
                return await self.connection.execute(statement, parameters)
            except StatementError as error:
                raise translate(error, self.scope) from error

    async def execute_as(self, tenant: str, statement: Any, parameters: Any = None) -> Any:
        """In a platform transaction: run a statement under one tenant's guard."""
        if self._guarded:
            raise TenantMismatch("Only the platform's scope can narrow to a tenant.", expected=self.scope, found=tenant)
        check_statement(statement)
        with use_scope(tenant):
            try:
                return await self.connection.execute(
                    statement, parameters, execution_options={"compiled_cache": self._database.tenant_cache}
                )
            except StatementError as error:
                raise translate(error, tenant) from error

    @property
    def connection(self) -> AsyncConnection:
        """The connection, for the adapter's own statements."""
        if self._opened is None:
            raise RuntimeError("This transaction is not open (any more).")
        return self._opened

    # ------------------------------------------------------------------ events

    def emit(
        self, stream: str, *events: NewEvent, tenant: str | None = None, expected_version: int | None = None
    ) -> None:
        """Append events at commit. Raises TenantMismatch, ValidationFailed (unknown type, wrong data)."""
        if not self._writable:
            raise ValidationFailed("A read transaction can't emit events.", tenant=self.scope, fix="Use write().")
        owner = self.scope if self._guarded else tenant
        if owner is None:
            raise TenantMismatch(
                "An event was emitted in platform scope without saying whose it is.",
                expected="tenant=...",
                found="none",
            )
        if self._guarded and tenant is not None and tenant != self.scope:
            raise TenantMismatch(
                "An event was emitted for another tenant than the one in hand.",
                tenant=self.scope,
                expected=self.scope,
                found=tenant,
            )
        self._database.check_events(stream, events)
        metadata = event_metadata(self._context, len(events))
        self._appends.append(Append.prepare(owner, stream, events, expected_version, metadata))

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once committed; what it raises is logged."""
        self._callbacks.append(callback)

    # ------------------------------------------------------------------ life

    async def __aenter__(self) -> SqlTransaction:
        if self._writable:
            await self._database.lock_writer(self._context)
            self._locked = True
        try:
            self._opened = await self._engine.connect()
            await self._database.begin(self._opened, self.scope, writable=self._writable)
        except BaseException as error:
            await self._release()
            if isinstance(error, (DBAPIError, OSError, TimeoutError, PoolTimeout)):
                raise self._database.unavailable(error) from error
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._writable:
                await self._commit()
            # Closing the connection rolls back what was not committed.
        finally:
            await self._release()
        if kind is None:
            self._notify()

    async def _commit(self) -> None:
        try:
            if self._appends:
                for outcome in await self._database.log.append(self.connection, self._appends):
                    if isinstance(outcome, ConcurrencyConflict):
                        raise outcome
            await self.connection.commit()
        except StatementError as error:
            raise translate(error, self.scope) from error

    async def _release(self) -> None:
        connection, self._opened = self._opened, None
        try:
            if connection is not None:
                await connection.close()
        finally:
            if self._locked:
                self._locked = False
                self._database.unlock_writer()

    def _notify(self) -> None:
        callbacks = [*self._callbacks, *(self._database.event_listeners if self._appends else ())]
        for callback in callbacks:
            try:
                callback()
            except Exception:
                _log.exception("A callback after commit failed.")


def event_metadata(context: Context | None, count: int = 1) -> Mapping[str, Any]:
    """What each of ``count`` events emitted together says about the work that made it."""
    filled: dict[str, Any] = {}
    if context is not None:
        filled["correlation_id"] = context.correlation_id
        filled["principal"] = context.principal.id
    cause = current_cause()
    if cause is not None:
        filled["causation_id"] = cause.id
        filled["hops"] = cause.hops_of(count)
    return filled


def translate(error: StatementError, scope: str) -> Exception:
    """The platform's error for a database's; the guard's own errors come out as they were raised."""
    cause = error.orig
    if isinstance(cause, KeelstoneError):
        return cause
    tenant = None if scope == ALL_TENANTS else scope
    if isinstance(error, IntegrityError):
        return Conflict("The change breaks a rule of the stored data.", tenant=tenant, found=_first_line(cause))
    if isinstance(error, DBAPIError):
        state = str(getattr(cause, "sqlstate", None) or "")
        if state in _TRY_AGAIN:
            return ConcurrencyConflict("Somebody else changed the same rows.", tenant=tenant, found=_first_line(cause))
        if error.connection_invalidated or _is_away(error, state):
            return BackendUnavailable("The database could not do it.", tenant=tenant, found=_first_line(cause))
    return error


# PostgreSQL: serialization failure, deadlock.
_TRY_AGAIN = frozenset({"40001", "40P01"})


def _is_away(error: DBAPIError, state: str) -> bool:
    if isinstance(error, InterfaceError) or state[:2] in ("08", "53", "57", "58"):
        return True
    said = str(error.orig)
    return isinstance(error, OperationalError) and any(word in said for word in ("locked", "disk", "unable to open"))


def _first_line(cause: BaseException | None) -> str:
    return str(cause).partition("\n")[0]
