"""Credentials, tokens, keys and roles: frozen values and rules."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from plugin_sdk import OPERATOR_ROLE, PLATFORM_TENANT, ROLES, Forbidden, Unauthenticated, ValidationFailed, new_id

MAX_FAILURES = 10
LOCK = timedelta(minutes=15)
API_KEY_PREFIX = "ks"
REFRESH_PREFIX = "ksr"
_TENANT = re.compile(r"[a-z0-9-]{1,64}")
_SECRET = re.compile(r"(ks|ksr)_([a-z0-9-]{1,64})_([0-9a-f]{32})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Credential:
    """A password by which a person signs in. ``failures`` counts wrong ones in a row."""

    user: str
    email: str
    password_hash: str
    failures: int
    locked_until: datetime | None

    def locked(self, now: datetime) -> bool:
        """Whether sign-in rests at ``now``."""
        return self.locked_until is not None and self.locked_until > now


@dataclass(frozen=True, slots=True)
class SecretToken:
    """``prefix_tenant_id.secret``: names its tenant and row; only the secret's hash is stored."""

    prefix: str
    tenant: str
    id: str
    secret: str

    @property
    def text(self) -> str:
        """What the holder keeps."""
        return f"{self.prefix}_{self.tenant}_{self.id}.{self.secret}"

    @property
    def digest(self) -> str:
        """What is stored. A plain hash is enough: the secret has 256 random bits."""
        return hashlib.sha256(self.secret.encode()).hexdigest()

    def matches(self, digest: str) -> bool:
        """Whether the secret is the one stored, in constant time."""
        return hmac.compare_digest(self.digest, digest)


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A stored refresh token. All tokens that descend from one sign-in are a family."""

    id: str
    user: str
    family: str
    digest: str
    expires_at: datetime
    used_at: datetime | None
    revoked: bool


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored API key."""

    id: str
    name: str
    digest: str
    roles: tuple[str, ...]
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


def new_secret(prefix: str, tenant: str) -> SecretToken:
    """A fresh token of 256 random bits."""
    return SecretToken(prefix, tenant, new_id(), secrets.token_urlsafe(32))


def parse_secret(text: str, prefix: str) -> SecretToken:
    """The parts of a token. Raises Unauthenticated if it does not have the shape."""
    match = _SECRET.fullmatch(text)
    if match is None or match.group(1) != prefix:
        raise Unauthenticated("The credential does not have the right shape.", expected=f"{prefix}_tenant_id.secret")
    return SecretToken(*match.groups())


def check_password(password: str) -> str:
    """The password, if it is long enough (NIST SP 800-63B: length, no composition rules)."""
    if not 12 <= len(password) <= 200:
        raise ValidationFailed(
            "The password's length does not fit.", expected="12 to 200 characters", found=f"{len(password)} characters"
        )
    return password


def names_tenant(text: str) -> bool:
    """Whether ``text`` can be one tenant's id (and not, say, the scope of all tenants)."""
    return _TENANT.fullmatch(text) is not None


def check_roles(roles: Iterable[str], tenant: str) -> tuple[str, ...]:
    """Roles that there are in ``tenant``, sorted. Raises ValidationFailed, or Forbidden for operators elsewhere."""
    wanted = tuple(sorted(set(roles)))
    unknown = [r for r in wanted if r not in ROLES]
    if unknown:
        raise ValidationFailed(f"There is no role {', '.join(unknown)}.", expected=", ".join(ROLES), found=unknown)
    if OPERATOR_ROLE in wanted and tenant != PLATFORM_TENANT:
        raise Forbidden(
            f"Operators live in the tenant {PLATFORM_TENANT} only.",
            tenant=tenant,
            expected=f"{OPERATOR_ROLE} in {PLATFORM_TENANT}, or another role",
            found=f"{OPERATOR_ROLE} in {tenant}",
        )
    return wanted


def lock_after(failures: int, now: datetime) -> datetime | None:
    """Until when sign-in rests after so many wrong passwords in a row; None if it does not."""
    return now + LOCK if failures >= MAX_FAILURES else None
