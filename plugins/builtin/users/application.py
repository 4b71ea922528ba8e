"""Use cases: register, change, prefer, remove, find, list. Each is one unit of work."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from plugin_sdk import (
    ConcurrencyConflict,
    Context,
    Dispatcher,
    NewEvent,
    NotFound,
    ServiceMissing,
    UserDraft,
    new_id,
)
from plugin_sdk.services import CredentialStore, Database, Transaction, UserRecord
from plugins.builtin.users import domain
from plugins.builtin.users.domain import User


class UserRepository(Protocol):
    """Where people are kept; every call is inside the caller's transaction and tenant."""

    async def add(self, transaction: Transaction, user: User) -> None:
        """Raises Conflict if the address is taken."""
        ...

    async def save(self, transaction: Transaction, user: User, seen: int) -> bool:
        """Whether the row was still at version ``seen``. Raises Conflict if the address is taken."""
        ...

    async def remove(self, transaction: Transaction, id: str) -> bool: ...

    async def get(self, transaction: Transaction, id: str) -> User | None: ...

    async def page(self, transaction: Transaction, after: str | None, limit: int, email: str | None) -> list[User]: ...


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Users:
    """The use cases. Implements ``plugin_sdk.services.UserDirectory``."""

    def __init__(
        self,
        database: Database,
        repository: UserRepository,
        hooks: Dispatcher,
        credentials: Callable[[], CredentialStore | None],
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._database = database
        self._repository = repository
        self._hooks = hooks
        self._credentials = credentials
        self._now = now

    async def register(
        self,
        context: Context,
        email: str,
        name: str,
        *,
        password: str | None = None,
        roles: Sequence[str] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> UserRecord:
        """Register a person through the hook ``user_creating``.

        Raises Rejected (a plugin refuses), Conflict (address taken), ValidationFailed, Forbidden (roles
        that give more rights than the principal has), and ServiceMissing if a password or roles are
        given and no plugin keeps credentials.
        """
        user = await self.create(context, email, name, password=password, roles=roles, attributes=attributes)
        return UserRecord(user.id, context.tenant, user.email, user.name)

    async def create(
        self,
        context: Context,
        email: str,
        name: str,
        *,
        password: str | None = None,
        roles: Sequence[str] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> User:
        """Like :meth:`register`, giving the whole person."""
        credentials = self._credentials()
        if (password is not None or roles) and credentials is None:
            raise ServiceMissing(
                "A password or roles were given, and no installed plugin keeps credentials.",
                fix="Leave them out, or start the plugin keelstone/identity.",
            )
        if roles and credentials is not None:
            credentials.check_grantable(context, roles)
        draft = domain.check(UserDraft.of(email=email, name=name, attributes={} if attributes is None else attributes))
        outcome = await self._hooks.filter("user_creating", draft, context)
        user, event = domain.register(new_id(), domain.check(outcome.payload), self._now())
        hashed = None
        if credentials is not None and password is not None:
            # Hashing is slow on purpose: no transaction waits for it.
            hashed = await credentials.hash_password(password)
        async with self._database.write(context.tenant, context) as transaction:
            await self._repository.add(transaction, user)
            if credentials is not None:
                if hashed is not None:
                    await credentials.set_password(transaction, context.tenant, user.id, user.email, hashed)
                if roles:
                    await credentials.assign_roles(transaction, context.tenant, user.id, roles)
            transaction.emit(user.stream, event, expected_version=0)
            await outcome.save(transaction)
        return user

    async def change(
        self,
        context: Context,
        id: str,
        *,
        email: str | None = None,
        name: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        seen: int | None = None,
    ) -> User:
        """Change a profile through the hook ``user_updating``. ``seen`` is the version the caller saw.

        Raises NotFound, ConcurrencyConflict, Rejected, Conflict, ValidationFailed.
        """
        user = await self.get(context, id)
        if seen is not None and seen != user.version:
            raise _moved(id, seen, user.version)
        draft = UserDraft.of(
            email=user.email if email is None else email,
            name=user.name if name is None else name,
            attributes=user.attributes if attributes is None else attributes,
        )
        outcome = await self._hooks.filter("user_updating", domain.check(draft), context)
        after, event = domain.change(user, domain.check(outcome.payload), self._now())
        if event is None:
            return user
        async with self._database.write(context.tenant, context) as transaction:
            await self._store(transaction, user, after, event)
            await outcome.save(transaction)
        return after

    async def prefer(self, context: Context, id: str, preferences: Mapping[str, Any]) -> User:
        """Merge preferences; a None value removes a key. Raises NotFound, ValidationFailed."""
        user = await self.get(context, id)
        after, event = domain.prefer(user, preferences, self._now())
        if event is None:
            return user
        async with self._database.write(context.tenant, context) as transaction:
            await self._store(transaction, user, after, event)
        return after

    async def remove(self, context: Context, id: str) -> None:
        """Remove a person and every credential. Raises NotFound."""
        credentials = self._credentials()
        async with self._database.write(context.tenant, context) as transaction:
            if not await self._repository.remove(transaction, id):
                raise _unknown(id, context.tenant)
            if credentials is not None:
                await credentials.remove(transaction, context.tenant, id)
            transaction.emit(f"user:{id}", NewEvent("user.removed", {"user": id}))

    async def get(self, context: Context, id: str) -> User:
        """One person. Raises NotFound."""
        async with self._database.read(context.tenant) as transaction:
            user = await self._repository.get(transaction, id)
        if user is None:
            raise _unknown(id, context.tenant)
        return user

    async def page(
        self, context: Context, after: str | None = None, limit: int = 20, email: str | None = None
    ) -> list[User]:
        """People in order of registration, at most ``limit``, past the id ``after``."""
        async with self._database.read(context.tenant) as transaction:
            return await self._repository.page(transaction, after, limit, email)

    async def lookup(self, tenant: str, user: str) -> User | None:
        """One person, or None."""
        async with self._database.read(tenant) as transaction:
            return await self._repository.get(transaction, user)

    async def find(self, tenant: str, user: str) -> UserRecord | None:
        """One person as other plugins may see them, or None."""
        found = await self.lookup(tenant, user)
        return None if found is None else UserRecord(found.id, tenant, found.email, found.name)

    async def _store(self, transaction: Transaction, before: User, after: User, event: NewEvent) -> None:
        if not await self._repository.save(transaction, after, before.version):
            raise _moved(before.id, before.version, None)
        if before.email != after.email and (credentials := self._credentials()) is not None:
            await credentials.rename(transaction, transaction.scope, after.id, after.email)
        transaction.emit(after.stream, event)


def _unknown(id: str, tenant: str) -> NotFound:
    return NotFound(f"There is no user {id} in this tenant.", tenant=tenant, found=id)


def _moved(id: str, seen: int, found: int | None) -> ConcurrencyConflict:
    return ConcurrencyConflict(
        f"User {id} was changed by somebody else meanwhile.",
        expected=f"version {seen}",
        found=f"version {found}" if found else "a later version",
        fix="Read it again and repeat the change.",
    )
