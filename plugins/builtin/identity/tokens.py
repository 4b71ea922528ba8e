"""Access tokens: short-lived JWTs, signed with Ed25519 through joserfc, checked with pinned rules."""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, JoseError
from joserfc.jwk import KeySet, OKPKey

from plugin_sdk import TokenExpired, Unauthenticated

ALGORITHM = "Ed25519"
ISSUER = "keelstone"
AUDIENCE = "keelstone-api"


@dataclass(frozen=True, slots=True)
class Claims:
    """What an access token says."""

    subject: str
    tenant: str
    roles: tuple[str, ...]
    expires_at: int


class TokenSigner:
    """Signs and checks. ``keys`` are private keys, the newest first; all of them check."""

    def __init__(
        self, keys: list[OKPKey], lifetime: int, clock: Callable[[], float] = time.time, cache: int = 10_000
    ) -> None:
        self._keys = KeySet(list(keys))
        self._signing = keys[0]
        self._lifetime = lifetime
        self._clock = clock
        self._known: OrderedDict[bytes, Claims] = OrderedDict()
        self._cache = cache

    @property
    def lifetime(self) -> int:
        """Seconds that an access token lives."""
        return self._lifetime

    def sign(self, subject: str, tenant: str, roles: tuple[str, ...]) -> str:
        """A fresh access token."""
        now = int(self._clock())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "tid": tenant,
            "roles": list(roles),
            "iat": now,
            "exp": now + self._lifetime,
        }
        header = {"alg": ALGORITHM, "kid": self._signing.kid, "typ": "at+jwt"}
        return jwt.encode(header, claims, self._signing, algorithms=[ALGORITHM])

    def sign_statement(self, kind: str, statement: Mapping[str, Any]) -> str:
        """A statement of the platform, of its own ``typ``: without audience and expiry it is no access token."""
        header = {"alg": ALGORITHM, "kid": self._signing.kid, "typ": kind}
        body = json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return jws.serialize_compact(header, body.encode(), self._signing, algorithms=[ALGORITHM])

    def check(self, token: str) -> Claims:
        """The claims of a good token. Raises TokenExpired or Unauthenticated.

        A token that was good is remembered until it is stale, so that its signature is checked once.
        """
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is None:
            known = self._verify(token)
            self._known[digest] = known
            if len(self._known) > self._cache:
                self._known.popitem(last=False)
        if known.expires_at <= self._clock():
            self._known.pop(digest, None)
            raise _stale()
        return known

    def public_keys(self) -> Mapping[str, Any]:
        """The JSON Web Key Set with which others check tokens."""
        return {"keys": [{**key.as_dict(private=False), "use": "sig", "alg": ALGORITHM} for key in self._keys.keys]}

    def _verify(self, token: str) -> Claims:
        registry = jwt.JWTClaimsRegistry(
            now=lambda: int(self._clock()),
            iss={"essential": True, "value": ISSUER},
            aud={"essential": True, "value": AUDIENCE},
            exp={"essential": True},
            sub={"essential": True},
            tid={"essential": True},
        )
        try:
            decoded = jwt.decode(token, self._keys, algorithms=[ALGORITHM])
            registry.validate(decoded.claims)
        except ExpiredTokenError as error:
            raise _stale() from error
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise Unauthenticated(
                "The access token is not good.",
                expected=f"a token signed by this platform ({ALGORITHM}, issuer {ISSUER})",
                found=type(error).__name__,
                fix="Sign in again at POST /api/v1/auth/token.",
            ) from error
        claims = decoded.claims
        return Claims(
            str(claims["sub"]), str(claims["tid"]), tuple(map(str, claims.get("roles", ()))), int(claims["exp"])
        )


def _stale() -> TokenExpired:
    return TokenExpired(
        "The access token is stale.", fix="Get a fresh one at POST /api/v1/auth/refresh, or sign in again."
    )
