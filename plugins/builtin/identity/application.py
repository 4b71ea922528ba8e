"""Use cases: sign in, refresh, revoke, authenticate, keys, roles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from plugin_sdk import (
    Context,
    Forbidden,
    NewEvent,
    NotFound,
    Permission,
    Principal,
    Unauthenticated,
    ValidationFailed,
    new_id,
    permissions_of,
    system_context,
)
from plugin_sdk.services import Database, HashedPassword, Transaction, UserDirectory
from plugins.builtin.identity import domain
from plugins.builtin.identity.domain import API_KEY_PREFIX, REFRESH_PREFIX, ApiKey, Credential, RefreshToken


class CredentialRepository(Protocol):
    """Where credentials, tokens, keys and roles are kept; calls run in the caller's transaction."""

    async def credential_by_email(self, transaction: Transaction, email: str) -> Credential | None: ...

    async def put_credential(self, transaction: Transaction, user: str, email: str, password_hash: str) -> None: ...

    async def rename(self, transaction: Transaction, user: str, email: str) -> None: ...

    async def count_failure(self, transaction: Transaction, user: str) -> int:
        """Count one more wrong password, so that none of many at once is lost; how many in a row by now."""
        ...

    async def note_failures(
        self, transaction: Transaction, user: str, failures: int, locked_until: datetime | None
    ) -> None: ...

    async def remove(self, transaction: Transaction, user: str) -> None: ...

    async def roles(self, transaction: Transaction, user: str) -> tuple[str, ...]: ...

    async def put_roles(self, transaction: Transaction, user: str, roles: Sequence[str]) -> None: ...

    async def add_refresh(self, transaction: Transaction, token: RefreshToken) -> None: ...

    async def refresh(self, transaction: Transaction, id: str) -> RefreshToken | None: ...

    async def use_refresh(self, transaction: Transaction, id: str, now: datetime) -> bool:
        """Mark used; False if it already was (so of two racing uses only one wins)."""
        ...

    async def revoke_family(self, transaction: Transaction, family: str) -> None: ...

    async def add_key(self, transaction: Transaction, key: ApiKey) -> None: ...

    async def key(self, transaction: Transaction, id: str) -> ApiKey | None: ...

    async def keys(self, transaction: Transaction) -> list[ApiKey]: ...

    async def revoke_key(self, transaction: Transaction, id: str, now: datetime) -> bool: ...


class Passwords(Protocol):
    """Hashes and checks passwords (slow on purpose; run in a thread)."""

    def hash(self, password: str) -> str: ...

    def verify(self, hashed: str | None, password: str) -> bool:
        """Takes the same time when ``hashed`` is None."""
        ...


class AccessTokens(Protocol):
    """Signs and checks access tokens."""

    @property
    def lifetime(self) -> int: ...

    def sign(self, subject: str, tenant: str, roles: tuple[str, ...]) -> str: ...

    def check(self, token: str) -> AccessClaims: ...


class AccessClaims(Protocol):
    """What an access token says."""

    @property
    def subject(self) -> str: ...

    @property
    def tenant(self) -> str: ...

    @property
    def roles(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a sign-in gives. ``expires_in`` is in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Identity:
    """The use cases. Implements ``Authenticator`` and ``CredentialStore`` of the SDK's catalogue."""

    def __init__(
        self,
        database: Database,
        repository: CredentialRepository,
        passwords: Passwords,
        tokens: Callable[[], AccessTokens],
        permissions: Callable[[], Sequence[Permission]],
        refresh_lifetime: timedelta,
        directory: Callable[[], UserDirectory | None] = lambda: None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._database = database
        self._repository = repository
        self._passwords = passwords
        self._tokens = tokens
        self._permissions = permissions
        self._refresh_lifetime = refresh_lifetime
        self._directory = directory
        self._now = now
        self._role_permissions: dict[tuple[str, ...], frozenset[str]] = {}

    # ------------------------------------------------------------------ sign-in

    async def sign_in(self, tenant: str, email: str, password: str, correlation_id: str) -> TokenPair:
        """Tokens for a right password. Raises Unauthenticated, the same whatever was wrong."""
        context = system_context(tenant, correlation_id)
        credential = None
        if domain.names_tenant(tenant):
            async with self._database.read(tenant) as transaction:
                credential = await self._repository.credential_by_email(transaction, email)
        now = self._now()
        hashed = credential.password_hash if credential else None
        good = await asyncio.to_thread(self._passwords.verify, hashed, password)
        if credential is None or credential.locked(now) or not good:
            if credential is not None and not credential.locked(now):
                await self._note_failure(context, credential, now)
            raise _bad_sign_in()
        async with self._database.write(tenant, context) as transaction:
            # The check was slow: another try may have locked the credential, or changed or removed it.
            present = await self._repository.credential_by_email(transaction, email)
            if present is None or present.password_hash != hashed or present.locked(now):
                raise _bad_sign_in()
            if present.failures:
                await self._repository.note_failures(transaction, credential.user, 0, None)
            transaction.emit(f"identity:{credential.user}", NewEvent("identity.signed_in", {"user": credential.user}))
            return await self._issue(transaction, tenant, credential.user, new_id(), now)

    async def refresh(self, token: str, correlation_id: str) -> TokenPair:
        """A new pair for a refresh token, which is used up. Using one twice revokes its family
        (RFC 9700, section 4.14.2). Raises Unauthenticated."""
        secret = domain.parse_secret(token, REFRESH_PREFIX)
        context = system_context(secret.tenant, correlation_id)
        now = self._now()
        async with self._database.write(secret.tenant, context) as transaction:
            found = await self._repository.refresh(transaction, secret.id)
            if found is None or not secret.matches(found.digest) or found.revoked or found.expires_at <= now:
                raise _bad_refresh()
            if await self._repository.use_refresh(transaction, found.id, now):
                return await self._issue(transaction, secret.tenant, found.user, found.family, now)
            await self._repository.revoke_family(transaction, found.family)
            transaction.emit(f"identity:{found.user}", NewEvent("identity.token_reused", {"user": found.user}))
        raise _bad_refresh()

    async def revoke(self, token: str) -> None:
        """Sign out: the refresh token's whole family ends. Silent if the token is unknown (RFC 7009)."""
        secret = domain.parse_secret(token, REFRESH_PREFIX)
        async with self._database.write(secret.tenant) as transaction:
            found = await self._repository.refresh(transaction, secret.id)
            if found is not None and secret.matches(found.digest):
                await self._repository.revoke_family(transaction, found.family)

    async def authenticate(self, authorization: str) -> Principal:
        """The principal of an Authorization header. Raises Unauthenticated or TokenExpired."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated(
                "The Authorization header can't be read.",
                expected="Bearer <access token or API key>",
                found=scheme[:20],
            )
        if token.startswith(API_KEY_PREFIX + "_"):
            return await self._by_key(token)
        claims = self._tokens().check(token)
        return self._principal(claims.subject, "user", claims.tenant, claims.roles)

    # ------------------------------------------------------------------ CredentialStore

    async def hash_password(self, password: str) -> HashedPassword:
        """The hash to store. Raises ValidationFailed if the password is too short or long."""
        return HashedPassword(await asyncio.to_thread(self._passwords.hash, domain.check_password(password)))

    async def set_password(
        self, transaction: Transaction, tenant: str, user: str, email: str, password: HashedPassword
    ) -> None:
        """Make or replace a password."""
        await self._repository.put_credential(transaction, user, email, password)

    async def rename(self, transaction: Transaction, tenant: str, user: str, email: str) -> None:
        """The user signs in with another address from now on."""
        await self._repository.rename(transaction, user, email)

    async def remove(self, transaction: Transaction, tenant: str, user: str) -> None:
        """Delete password, tokens and roles of a user."""
        await self._repository.remove(transaction, user)

    def check_grantable(self, context: Context, roles: Sequence[str]) -> None:
        """Raise Forbidden if the principal in hand may not give these roles, ValidationFailed if there is none."""
        self._grantable(context, roles)

    async def assign_roles(self, transaction: Transaction, tenant: str, user: str, roles: Sequence[str]) -> None:
        """Replace a user's roles. Raises ValidationFailed for an unknown role."""
        checked = domain.check_roles(roles, tenant)
        await self._repository.put_roles(transaction, user, checked)
        event = NewEvent("identity.roles_assigned", {"user": user, "roles": list(checked)})
        transaction.emit(f"identity:{user}", event)

    # ------------------------------------------------------------------ roles and keys

    async def give_roles(self, context: Context, user: str, roles: Sequence[str]) -> tuple[str, ...]:
        """Replace a user's roles. Nobody gives a role that gives more than they have. Raises NotFound."""
        checked = self._grantable(context, roles)
        directory = self._directory()
        if directory is not None and await directory.find(context.tenant, user) is None:
            raise NotFound(f"There is no user {user} in this tenant.", tenant=context.tenant, found=user)
        async with self._database.write(context.tenant, context) as transaction:
            await self.assign_roles(transaction, context.tenant, user, checked)
        return checked

    async def roles_of(self, context: Context, user: str) -> tuple[str, ...]:
        """A user's roles; empty for an unknown user."""
        async with self._database.read(context.tenant) as transaction:
            return await self._repository.roles(transaction, user)

    async def create_key(
        self, context: Context, name: str, roles: Sequence[str], days: int | None
    ) -> tuple[ApiKey, str]:
        """A new API key and its text, which is shown this once."""
        checked = self._grantable(context, roles)
        if not checked:
            raise ValidationFailed("A key without roles can do nothing.", expected="at least one role")
        secret = domain.new_secret(API_KEY_PREFIX, context.tenant)
        now = self._now()
        expires = now + timedelta(days=days) if days else None
        key = ApiKey(secret.id, name, secret.digest, checked, context.principal.id, now, expires, None)
        async with self._database.write(context.tenant, context) as transaction:
            await self._repository.add_key(transaction, key)
            transaction.emit(f"api-key:{key.id}", NewEvent("identity.api_key_created", {"key": key.id, "name": name}))
        return key, secret.text

    async def keys(self, context: Context) -> list[ApiKey]:
        """The tenant's keys, without their secrets."""
        async with self._database.read(context.tenant) as transaction:
            return await self._repository.keys(transaction)

    async def revoke_key(self, context: Context, id: str) -> None:
        """End a key at once. Raises NotFound."""
        async with self._database.write(context.tenant, context) as transaction:
            if not await self._repository.revoke_key(transaction, id, self._now()):
                raise NotFound(f"There is no API key {id} in this tenant.", tenant=context.tenant, found=id)
            transaction.emit(f"api-key:{id}", NewEvent("identity.api_key_revoked", {"key": id}))

    # ------------------------------------------------------------------ inside

    def _grantable(self, context: Context, roles: Sequence[str]) -> tuple[str, ...]:
        checked = domain.check_roles(roles, context.tenant)
        if context.principal.is_operator or context.principal.kind == "system":
            return checked
        gained = permissions_of(checked, self._permissions()) - context.principal.permissions
        if gained:
            raise Forbidden(
                "You can't give rights that you don't have.",
                tenant=context.tenant,
                expected="roles within your own permissions",
                found=", ".join(sorted(gained)),
            )
        return checked

    def _principal(self, id: str, kind: str, tenant: str, roles: tuple[str, ...]) -> Principal:
        permissions = self._role_permissions.get(roles)
        if permissions is None:
            permissions = self._role_permissions[roles] = permissions_of(roles, self._permissions())
        return Principal(id, "user" if kind == "user" else "api_key", tenant, frozenset(roles), permissions)

    async def _by_key(self, text: str) -> Principal:
        secret = domain.parse_secret(text, API_KEY_PREFIX)
        async with self._database.read(secret.tenant) as transaction:
            key = await self._repository.key(transaction, secret.id)
        stale = key is not None and key.expires_at is not None and key.expires_at <= self._now()
        if key is None or not secret.matches(key.digest) or key.revoked_at is not None or stale:
            raise Unauthenticated(
                "The API key is unknown, stale or revoked.", fix="Make a new one at POST /api/v1/api-keys."
            )
        return self._principal(f"api-key:{key.id}", "api_key", secret.tenant, key.roles)

    async def _issue(self, transaction: Transaction, tenant: str, user: str, family: str, now: datetime) -> TokenPair:
        roles = await self._repository.roles(transaction, user)
        secret = domain.new_secret(REFRESH_PREFIX, tenant)
        expires = now + self._refresh_lifetime
        await self._repository.add_refresh(
            transaction, RefreshToken(secret.id, user, family, secret.digest, expires, None, False)
        )
        tokens = self._tokens()
        return TokenPair(tokens.sign(user, tenant, roles), secret.text, tokens.lifetime)

    async def _note_failure(self, context: Context, credential: Credential, now: datetime) -> None:
        async with self._database.write(context.tenant, context) as transaction:
            failures = await self._repository.count_failure(transaction, credential.user)
            locked_until = domain.lock_after(failures, now)
            if locked_until is not None:
                await self._repository.note_failures(transaction, credential.user, failures, locked_until)
                event = NewEvent("identity.sign_in_locked", {"user": credential.user})
                transaction.emit(f"identity:{credential.user}", event)


def _bad_sign_in() -> Unauthenticated:
    return Unauthenticated(
        "The tenant, address or password is wrong, or sign-in rests after too many tries.",
        fix=f"Check all three; after {domain.MAX_FAILURES} wrong passwords sign-in rests for 15 minutes.",
    )


def _bad_refresh() -> Unauthenticated:
    return Unauthenticated(
        "The refresh token is unknown, stale, used or revoked.", fix="Sign in again at POST /api/v1/auth/token."
    )
