"""Credentials, tokens, keys and roles in SQL; passwords by argon2; the signing key, encrypted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import orjson
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from joserfc.jwk import OKPKey
from sqlalchemy import Column, Integer, MetaData, String, Text, bindparam, delete, insert, select, update

from plugin_sdk import ALL_TENANTS, Conflict, new_id
from plugin_sdk.data import Schema, UtcDateTime, json_type, platform_table, tenant_table, unique_in_tenant
from plugin_sdk.services import Database, KeyProvider, Transaction
from plugins.builtin.identity.domain import ApiKey, Credential, RefreshToken

metadata = MetaData()
credentials = tenant_table(
    metadata,
    "identity_credentials",
    Column("user_id", String(32), primary_key=True),
    Column("email_key", String(254), nullable=False),
    Column("email", String(254), nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("locked_until", UtcDateTime),
    unique_in_tenant("email_key", name="uq_identity_credentials_email"),
)
roles = tenant_table(
    metadata,
    "identity_roles",
    Column("user_id", String(32), primary_key=True),
    Column("role", String(40), primary_key=True),
)
refresh_tokens = tenant_table(
    metadata,
    "identity_refresh_tokens",
    Column("id", String(32), primary_key=True),
    Column("user_id", String(32), nullable=False),
    Column("family", String(32), nullable=False, index=True),
    Column("digest", String(64), nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime),
    Column("revoked", Integer, nullable=False),
)
api_keys = tenant_table(
    metadata,
    "identity_api_keys",
    Column("id", String(32), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("roles", json_type(), nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
)
signing_keys = platform_table(
    metadata,
    "identity_signing_keys",
    Column("kid", String(32), primary_key=True),
    Column("private_jwk", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
SCHEMA = Schema("keelstone/identity", metadata, Path(__file__).parent / "migrations")

_KEY_PURPOSE = "identity.signing-key"
_BY_EMAIL = select(
    credentials.c.user_id,
    credentials.c.email,
    credentials.c.password_hash,
    credentials.c.failures,
    credentials.c.locked_until,
).where(credentials.c.email_key == bindparam("key"))
_ROLES = select(roles.c.role).where(roles.c.user_id == bindparam("user")).order_by(roles.c.role)
_KEY_COLUMNS = [c for c in api_keys.c if c.name != "tenant_id"]


class SqlCredentials:
    """Implements ``application.CredentialRepository``."""

    async def credential_by_email(self, transaction: Transaction, email: str) -> Credential | None:
        """The credential of an address, whatever its case."""
        row = (await transaction.execute(_BY_EMAIL, {"key": email.strip().lower()})).one_or_none()
        return None if row is None else Credential(*row)

    async def put_credential(self, transaction: Transaction, user: str, email: str, password_hash: str) -> None:
        """Make or replace. Raises Conflict if another user has the address."""
        await transaction.execute(delete(credentials).where(credentials.c.user_id == user))
        values = {
            "user_id": user,
            "email": email,
            "email_key": email.lower(),
            "password_hash": password_hash,
            "failures": 0,
            "locked_until": None,
        }
        try:
            await transaction.execute(insert(credentials).values(**values))
        except Conflict as error:
            raise Conflict("Somebody in this tenant already signs in with that address.", found=email) from error

    async def rename(self, transaction: Transaction, user: str, email: str) -> None:
        """Change the address of a credential, if there is one."""
        change = update(credentials).where(credentials.c.user_id == user)
        await transaction.execute(change.values(email=email, email_key=email.lower()))

    async def count_failure(self, transaction: Transaction, user: str) -> int:
        """One more wrong password. The update locks the row, so that none of many at once is lost."""
        mine = credentials.c.user_id == user
        await transaction.execute(update(credentials).where(mine).values(failures=credentials.c.failures + 1))
        return int((await transaction.execute(select(credentials.c.failures).where(mine))).scalar() or 0)

    async def note_failures(
        self, transaction: Transaction, user: str, failures: int, locked_until: datetime | None
    ) -> None:
        """Store the count of wrong passwords and the lock."""
        change = update(credentials).where(credentials.c.user_id == user)
        await transaction.execute(change.values(failures=failures, locked_until=locked_until))

    async def remove(self, transaction: Transaction, user: str) -> None:
        """Delete password, roles and tokens."""
        for table in (credentials, roles, refresh_tokens):
            await transaction.execute(delete(table).where(table.c.user_id == user))

    async def roles(self, transaction: Transaction, user: str) -> tuple[str, ...]:
        """The user's roles, sorted."""
        return tuple((await transaction.execute(_ROLES, {"user": user})).scalars())

    async def put_roles(self, transaction: Transaction, user: str, wanted: Sequence[str]) -> None:
        """Replace the user's roles."""
        await transaction.execute(delete(roles).where(roles.c.user_id == user))
        if wanted:
            await transaction.execute(insert(roles), [{"user_id": user, "role": role} for role in wanted])

    async def add_refresh(self, transaction: Transaction, token: RefreshToken) -> None:
        """Store a refresh token's hash."""
        await transaction.execute(
            insert(refresh_tokens).values(
                id=token.id,
                user_id=token.user,
                family=token.family,
                digest=token.digest,
                expires_at=token.expires_at,
                used_at=None,
                revoked=0,
            )
        )

    async def refresh(self, transaction: Transaction, id: str) -> RefreshToken | None:
        """One stored refresh token."""
        t = refresh_tokens.c
        columns = select(t.id, t.user_id.label("user"), t.family, t.digest, t.expires_at, t.used_at, t.revoked)
        row = (await transaction.execute(columns.where(t.id == id))).one_or_none()
        return None if row is None else RefreshToken(**{**row._mapping, "revoked": bool(row.revoked)})

    async def use_refresh(self, transaction: Transaction, id: str, now: datetime) -> bool:
        """Mark used; False if it already was."""
        t = refresh_tokens.c
        change = update(refresh_tokens).where(t.id == id, t.used_at.is_(None)).values(used_at=now)
        return bool((await transaction.execute(change)).rowcount)

    async def revoke_family(self, transaction: Transaction, family: str) -> None:
        """Revoke every token that descends from one sign-in."""
        change = update(refresh_tokens).where(refresh_tokens.c.family == family).values(revoked=1)
        await transaction.execute(change)

    async def add_key(self, transaction: Transaction, key: ApiKey) -> None:
        """Store an API key's hash."""
        await transaction.execute(
            insert(api_keys).values(
                id=key.id,
                name=key.name,
                digest=key.digest,
                roles=list(key.roles),
                created_by=key.created_by,
                created_at=key.created_at,
                expires_at=key.expires_at,
                revoked_at=key.revoked_at,
            )
        )

    async def key(self, transaction: Transaction, id: str) -> ApiKey | None:
        """One stored key."""
        row = (await transaction.execute(select(*_KEY_COLUMNS).where(api_keys.c.id == id))).one_or_none()
        return None if row is None else _key(row)

    async def keys(self, transaction: Transaction) -> list[ApiKey]:
        """Every stored key of the tenant, oldest first."""
        return [_key(row) for row in await transaction.execute(select(*_KEY_COLUMNS).order_by(api_keys.c.id))]

    async def revoke_key(self, transaction: Transaction, id: str, now: datetime) -> bool:
        """Revoke; False if there is none or it already was."""
        change = update(api_keys).where(api_keys.c.id == id, api_keys.c.revoked_at.is_(None)).values(revoked_at=now)
        return bool((await transaction.execute(change)).rowcount)


def _key(row: object) -> ApiKey:
    fields = dict(row._mapping)  # type: ignore[attr-defined]
    return ApiKey(**{**fields, "roles": tuple(fields["roles"])})


class Argon2Passwords:
    """Implements ``application.Passwords`` with argon2id (RFC 9106's second recommended parameters)."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._nobody: str | None = None

    def hash(self, password: str) -> str:
        """An argon2id hash with its own salt."""
        return self._hasher.hash(password)

    def verify(self, hashed: str | None, password: str) -> bool:
        """Whether the password fits. A missing hash costs the same time as a wrong password."""
        if self._nobody is None:
            self._nobody = self._hasher.hash(new_id())
        try:
            self._hasher.verify(hashed or self._nobody, password)
        except (VerificationError, InvalidHashError):
            return False
        return hashed is not None


async def load_signing_keys(database: Database, keys: KeyProvider) -> list[OKPKey]:
    """The platform's signing keys, newest first; the first process to ask makes one.

    Every process that shares the database and the master key gets the same.
    """
    newest = select(signing_keys.c.private_jwk).order_by(signing_keys.c.created_at.desc(), signing_keys.c.kid.desc())
    async with database.write(ALL_TENANTS) as transaction:
        stored = list((await transaction.execute(newest)).scalars())
        if not stored:
            made = OKPKey.generate_key("Ed25519", {"kid": new_id()})
            cipher = keys.encrypt(orjson.dumps(made.as_dict(private=True)), _KEY_PURPOSE)
            row = {"kid": made.kid, "private_jwk": cipher, "created_at": datetime.now(UTC)}
            await transaction.execute(insert(signing_keys).values(**row))
            stored = [cipher]
    return [OKPKey.import_key(orjson.loads(keys.decrypt(cipher, _KEY_PURPOSE))) for cipher in stored]
