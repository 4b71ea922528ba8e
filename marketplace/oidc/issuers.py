"""Checking identity tokens: by the issuers that the operator named, with keys fetched within bounds."""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kernel.errors import BackendUnavailable, ConfigurationError
from kernel.ports import Clock
from marketplace.errors import JobNotTrusted
from marketplace.jobs import Run
from marketplace.oidc.claims import READERS, run_of
from marketplace.oidc.fetching import fetch_json

ALGORITHMS = ("RS256", "ES256")
MAX_TOKEN = 16 * 1024
MAX_KEYS = 40
LEEWAY = 60.0
"""Seconds that an issuer's clock may be off."""
LONGEST = 24 * 3_600.0
"""Seconds that a token may hold: GitLab's hold as long as their job may take."""
KEEP_SECONDS, FAILED_SECONDS, AGAIN_SECONDS = 3_600.0, 30.0, 60.0
"""How long keys are kept; how long nobody asks again after a failure; and after an unknown key."""
Fetch = Callable[[str], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whose tokens count: ``kind`` is ``github`` or ``gitlab``; ``private``: it may be on one's own network."""

    kind: str
    url: str
    private: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified token: which run it is of, its number (used once), and when it ends (epoch seconds)."""

    run: Run
    token_id: str
    expires: float


@dataclass(slots=True)
class _Kept:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    keys: dict[str, Any] = field(default_factory=dict)
    fetched: float = float("-inf")
    failed: float = float("-inf")
    error: str = ""


def read_issuers(listed: Sequence[str]) -> tuple[Issuer, ...]:
    """The issuers in the setting: ``KIND=https://...`` each, ``KIND+private=`` for one's own network.

    Raises ConfigurationError.
    """
    found = []
    for each in listed:
        name, _, url = each.partition("=")
        kind, _, more = name.partition("+")
        parsed = urlsplit(url)
        plain = (
            parsed.scheme == "https" and parsed.hostname and not (parsed.query or parsed.fragment or parsed.username)
        )
        if kind not in READERS or more not in ("", "private") or not plain:
            raise ConfigurationError(
                f"KEELSTONE_MARKETPLACE_ISSUERS has an entry that cannot be read: {each!r}.",
                expected="github=https://HOST or gitlab=https://HOST; github+private= on your own network",
            )
        found.append(Issuer(kind, url.rstrip("/"), more == "private"))
    return tuple(found)


class Issuers:
    """Checks tokens by named issuers. For one event loop. ``authority`` is a file of certificates to trust beside the
    usual ones; ``fetch`` can be given in its place."""

    def __init__(
        self, issuers: Sequence[Issuer], clock: Clock, authority: Path | None = None, fetch: Fetch | None = None
    ) -> None:
        self._issuers = {each.url: each for each in issuers}
        self._clock, self._fetch, self._authority = clock, fetch, authority
        self._kept = {each.url: _Kept() for each in issuers}
        self._trust: ssl.SSLContext | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """Whose tokens count."""
        return tuple(self._issuers)

    async def check(self, token: str, audience: str) -> Identity:
        """The run that a token is of. Raises JobNotTrusted, or BackendUnavailable if its issuer cannot be asked."""
        from joserfc import jwt
        from joserfc.errors import JoseError

        if len(token) > MAX_TOKEN:
            raise JobNotTrusted("The identity token is too long.", expected=f"at most {MAX_TOKEN:,} characters")
        header, claimed = _peek(token)
        issuer = self._issuers.get(str(claimed.get("iss", "")))
        if issuer is None:
            raise JobNotTrusted(
                "This marketplace does not take tokens of that issuer.",
                expected=", ".join(self._issuers) or "none",
                found=str(claimed.get("iss", ""))[:200],
                fix="Ask its operator to name the issuer in KEELSTONE_MARKETPLACE_ISSUERS.",
            )
        if header.get("alg") not in ALGORITHMS or "crit" in header:
            raise JobNotTrusted(
                "The identity token is signed in a way that does not count.",
                expected=" or ".join(ALGORITHMS),
                found=str(header.get("alg"))[:40],
            )
        key = await self._key(issuer, str(header.get("kid", "")))
        try:
            claims = jwt.decode(token, key, algorithms=list(ALGORITHMS)).claims
        except (JoseError, ValueError) as error:
            raise JobNotTrusted("The identity token's signature does not fit.", found=type(error).__name__) from error
        return self._identity(issuer, claims, audience)

    def _identity(self, issuer: Issuer, claims: Mapping[str, Any], audience: str) -> Identity:
        now, times = self._clock.now(), [claims.get(name) for name in ("iat", "exp", "nbf")]
        if claims.get("iss") != issuer.url:
            raise JobNotTrusted("The identity token is another issuer's.", expected=issuer.url)
        if claims.get("aud") != audience and claims.get("aud") != [audience]:
            raise JobNotTrusted(
                "The identity token is for somebody else.",
                expected=f"the audience {audience}, and no other",
                found=str(claims.get("aud"))[:200],
                fix="Ask for a token of this audience.",
            )
        if not all(isinstance(at, int | float) and not isinstance(at, bool) for at in times[:2]):
            raise JobNotTrusted("The identity token does not say from when until when it holds.")
        issued, expires = float(claims["iat"]), float(claims["exp"])
        begins = float(times[2]) if isinstance(times[2], int | float) else issued
        if not (issued - LEEWAY <= now < expires + LEEWAY and begins - LEEWAY <= now):
            raise JobNotTrusted("The identity token does not hold now.", fix="Ask for a new one; check the clocks.")
        if expires - issued > LONGEST:
            raise JobNotTrusted("The identity token holds for too long.", expected=f"at most {LONGEST:g} seconds")
        number = claims.get("jti")
        if not isinstance(number, str) or not 1 <= len(number) <= 200:
            raise JobNotTrusted("The identity token has no number (jti), so it could be used again.")
        return Identity(run_of(issuer.kind, issuer.url, claims), number, expires + LEEWAY)

    async def _key(self, issuer: Issuer, kid: str) -> Any:
        kept = self._kept[issuer.url]
        async with kept.lock:
            now = self._clock.now()
            old = now - kept.fetched > KEEP_SECONDS
            unknown = kid not in kept.keys and now - kept.fetched > AGAIN_SECONDS
            if old or unknown:
                if now - kept.failed < FAILED_SECONDS:
                    raise BackendUnavailable(f"{kept.error} It is asked again in a while.")
                try:
                    kept.keys = await self._fetch_keys(issuer)
                except BackendUnavailable as error:
                    kept.failed, kept.error = now, error.detail or str(error)
                    raise
                kept.fetched = now
            found = kept.keys.get(kid)
        if found is None:
            raise JobNotTrusted(
                "The identity token is signed with a key that its issuer does not have.", found=kid[:80]
            )
        return found

    async def _fetch_keys(self, issuer: Issuer) -> dict[str, Any]:
        from joserfc.errors import JoseError
        from joserfc.jwk import ECKey, RSAKey

        said = await self._get(issuer, f"{issuer.url}/.well-known/openid-configuration")
        address = said.get("jwks_uri") if isinstance(said, dict) else None
        if not isinstance(address, str) or said.get("issuer") != issuer.url:
            raise BackendUnavailable(f"{issuer.url} does not answer as an issuer of identity tokens does.")
        if (urlsplit(address).scheme, urlsplit(address).netloc) != ("https", urlsplit(issuer.url).netloc):
            raise BackendUnavailable(f"{issuer.url} has its keys at another host: {address[:200]}.")
        listed = await self._get(issuer, address)
        if not isinstance(listed, dict) or not isinstance(listed.get("keys"), list) or len(listed["keys"]) > MAX_KEYS:
            raise BackendUnavailable(f"{issuer.url} does not say which keys it has.")
        found: dict[str, Any] = {}
        for each in listed["keys"]:
            if not isinstance(each, dict) or not isinstance(each.get("kid"), str) or each.get("use", "sig") != "sig":
                continue
            public = {name: value for name, value in each.items() if name in ("kty", "kid", "n", "e", "crv", "x", "y")}
            try:
                if each.get("kty") == "RSA" and len(str(each.get("n", ""))) >= 342:  # 2048 bits
                    found[each["kid"]] = RSAKey.import_key(public)
                elif each.get("kty") == "EC" and each.get("crv") == "P-256":
                    found[each["kid"]] = ECKey.import_key(public)
            except (JoseError, ValueError, KeyError, TypeError):
                continue
        return found

    async def _get(self, issuer: Issuer, url: str) -> Any:
        if self._fetch is not None:
            return await self._fetch(url)
        if self._authority is not None and self._trust is None:
            self._trust = ssl.create_default_context()
            self._trust.load_verify_locations(self._authority)
        return await fetch_json(url, private=issuer.private, trust=self._trust)


def audience_of(log_origin: str) -> str:
    """Whom tokens for a marketplace are for: named after its first root, so that no two have the same."""
    return log_origin.replace("/", ":")


def peek_audience(token: str) -> Any:
    """The audience that a token names, unverified. Raises JobNotTrusted."""
    return _peek(token)[1].get("aud")


def _peek(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    try:
        parts = [json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in token.split(".")[:2]]
        if len(parts) != 2 or not all(isinstance(part, dict) for part in parts):
            raise ValueError("no token")
        return parts[0], parts[1]
    except (ValueError, RecursionError) as error:
        raise JobNotTrusted("This is no identity token.", expected="a JSON Web Token of the job's issuer") from error
