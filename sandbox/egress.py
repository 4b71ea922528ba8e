"""HTTP for guests: only where the manifest says, only to addresses that were checked.

Each hop of a request, redirects included, goes through the same gate: scheme, host, port and method
against the manifest; then the host is resolved once, every address of the answer must be public,
and the connection is made to the very address that was checked (a second resolving could answer
otherwise). TLS and the Host header still carry the name. Nothing is shared between requests: no
cookies, no connections, no proxy or credentials of the environment.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import ssl
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from kernel.manifest import HttpCapability
from sandbox.addresses import Resolver, is_public, resolve
from sandbox.outgoing import EgressRefused, EgressRequest, EgressResponse
from sandbox.secrets import basic

MAX_REDIRECTS = 5
MAX_HEADERS = 64
MAX_HEADER_CHARS = 8_192
MAX_URL_CHARS = 4_096
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\x20-\x7e\t\x80-\xff]*")
_FORBIDDEN = frozenset(
    {
        "host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length",
        "accept-encoding", "expect", "proxy-authorization", "proxy-authenticate", "proxy-connection", "forwarded",
        "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "via", "http2-settings", "proxy-status",
        "x-real-ip", "x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url",
    }
)  # fmt: skip
"""Hop-by-hop fields, those that frame the message, and those by which proxies and servers are told
another origin, address, method or path than the one that was checked."""
_SECRET = frozenset({"authorization", "cookie"})
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class _Hop:
    url: httpx.URL
    host: str
    port: int
    private_ok: bool


class _Budget:
    """Bytes that the call may still send and receive."""

    def __init__(self, left: int, count: Callable[[int], None]) -> None:
        self.left = left
        self._count = count

    def take(self, size: int) -> None:
        self.left -= size
        self._count(size)
        if self.left < 0:
            raise EgressRefused("limit-http", f"{-self.left} bytes more sent and received than limits.http_kb allows")


class Egress:
    """The way out. ``private_allow`` are ``host:port`` pairs that may be private and plain HTTP.

    ``instead`` is for tests: what is allowed goes, once every check has passed, to this ``host:port`` in
    plain HTTP, whatever host it named (the Host header still does).
    """

    def __init__(
        self,
        private_allow: tuple[str, ...] = (),
        *,
        resolver: Resolver = resolve,
        ssl_context: ssl.SSLContext | None = None,
        instead: str | None = None,
    ) -> None:
        self._instead = instead
        self._private = frozenset(item.lower() for item in private_allow)
        self._resolve = resolver
        self._ssl = ssl_context

    async def send(
        self,
        request: EgressRequest,
        capability: HttpCapability,
        settings: Mapping[str, Any],
        *,
        budget: int,
        seconds: float,
        count: Callable[[int], None] = lambda _size: None,
        visit: Callable[[str, str], None] = lambda _method, _host: None,
    ) -> EgressResponse:
        """Send within ``seconds`` and ``budget`` bytes (sent and received). Raises EgressRefused.

        ``visit`` is told the method and host of every hop.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._follow(request, capability, settings, _Budget(budget, count), visit)
        except TimeoutError:
            raise EgressRefused("deadline", "the other side did not answer within the call's time") from None

    async def _follow(
        self,
        request: EgressRequest,
        capability: HttpCapability,
        settings: Mapping[str, Any],
        budget: _Budget,
        visit: Callable[[str, str], None],
    ) -> EgressResponse:
        _check_headers(request.headers, capability.headers)
        for _ in range(MAX_REDIRECTS + 1):
            visit(request.method[:10], _host_of(request.url))
            hop = self._gate(request, capability, settings)
            outgoing = _with_secrets(request, hop, settings)
            addresses = await self._addresses(hop) if self._instead is None else [hop.host]
            response = await self._exchange(outgoing, hop, addresses, budget)
            target = _redirect(response)
            if target is None:
                return response
            request = _redirected(request, response.status, hop.url, target)
        raise EgressRefused("denied", f"more than {MAX_REDIRECTS} redirects")

    def _gate(self, request: EgressRequest, capability: HttpCapability, settings: Mapping[str, Any]) -> _Hop:
        if request.method not in capability.methods:
            raise EgressRefused("denied", f"{request.method} is not among the manifest's methods")
        if len(request.url) > MAX_URL_CHARS:
            raise EgressRefused("invalid", f"the URL is longer than {MAX_URL_CHARS}")
        try:
            url = httpx.URL(request.url)
        except (httpx.InvalidURL, ValueError) as error:
            raise EgressRefused("invalid", f"not a URL: {error}") from None
        if url.userinfo:
            raise EgressRefused("invalid", "no user or password in a URL; use a header")
        host = url.raw_host.decode("ascii", "replace").lower().rstrip(".")
        if url.scheme not in _PORTS or not host or "%" in host:
            raise EgressRefused("invalid", "the URL must be https://host/...")
        port = url.port or _PORTS[url.scheme]
        private_ok = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}") in self._private
        if not _allowed(host, port, url.scheme, capability.hosts, settings):
            raise EgressRefused("denied", f"{host}:{port} is not among the manifest's hosts")
        if url.scheme != "https" and not private_ok:
            raise EgressRefused("denied", "only https; plain http needs KEELSTONE_HTTP_PRIVATE_ALLOW")
        return _Hop(url.copy_with(fragment=None), host, port, private_ok)

    async def _addresses(self, hop: _Hop) -> list[str]:
        literal = hop.host.strip("[]")
        try:
            ipaddress.ip_address(literal)
            found = [literal]
        except ValueError:
            try:
                found = await self._resolve(hop.host, hop.port)
            except (OSError, UnicodeError):
                found = []
        if not found:
            raise EgressRefused("unavailable", f"{hop.host} has no address")
        # One private answer among public ones is what a rebinding attack looks like: all must pass.
        if not hop.private_ok and not all(is_public(address) for address in found):
            raise EgressRefused("denied", f"{hop.host} is at a private address")
        return found

    async def _exchange(
        self, request: EgressRequest, hop: _Hop, addresses: list[str], budget: _Budget
    ) -> EgressResponse:
        budget.take(len(request.body) + sum(len(n) + len(v) for n, v in request.headers))
        headers = [(n.encode("ascii"), v.encode("latin-1")) for n, v in request.headers]
        names = {n.lower() for n, _ in request.headers}
        headers += [(b"host", hop.url.netloc), (b"accept-encoding", b"gzip, deflate"), (b"connection", b"close")]
        if "user-agent" not in names:
            headers.append((b"user-agent", b"keelstone-guest/1"))
        extensions: dict[str, Any] = {}
        if not _is_literal(hop.host):
            extensions["sni_hostname"] = hop.host
        transport = httpx.AsyncHTTPTransport(verify=self._context(), trust_env=False, limits=_NO_REUSE)
        async with transport:
            for last, address in _marking_last(addresses[:4]):
                target = hop.url.copy_with(host=address, port=hop.port)
                if self._instead is not None:
                    name, _, port = self._instead.rpartition(":")
                    target = hop.url.copy_with(scheme="http", host=name, port=int(port))
                outgoing = httpx.Request(
                    request.method, target, headers=headers, content=request.body, extensions=extensions
                )
                try:
                    response = await transport.handle_async_request(outgoing)
                except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                    if last:
                        raise EgressRefused("unavailable", f"{hop.host} cannot be reached: {error}") from None
                    continue
                except httpx.TransportError as error:
                    raise EgressRefused("unavailable", f"{hop.host}: {error or type(error).__name__}") from None
                try:
                    return await _read(response, budget)
                except httpx.TransportError as error:
                    raise EgressRefused("unavailable", f"{hop.host}: {error or type(error).__name__}") from None
                finally:
                    await response.aclose()
        raise EgressRefused("unavailable", f"{hop.host} cannot be reached")

    def _context(self) -> ssl.SSLContext:
        # Reading the certificate store (or the operator's SSL_CERT_FILE) takes tens of milliseconds: once.
        if self._ssl is None:
            self._ssl = httpx.create_ssl_context()
        return self._ssl


_NO_REUSE = httpx.Limits(max_connections=1, max_keepalive_connections=0)


def _marking_last(items: list[str]) -> list[tuple[bool, str]]:
    return [(i == len(items) - 1, item) for i, item in enumerate(items)]


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _allowed(host: str, port: int, scheme: str, patterns: tuple[str, ...], settings: Mapping[str, Any]) -> bool:
    for pattern in patterns:
        if pattern.startswith("setting:"):
            if _matches_setting(host, port, settings.get(pattern.removeprefix("setting:"))):
                return True
            continue
        name, _, wanted = pattern.partition(":")
        if port != (int(wanted) if wanted else _PORTS[scheme]):
            continue
        if host == name or (name.startswith("*.") and host.endswith(name[1:]) and host != name[2:]):
            return True
    return False


def _matches_setting(host: str, port: int, value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        url = httpx.URL(value)
    except (httpx.InvalidURL, ValueError):
        return False
    if url.scheme not in _PORTS:
        return False
    return (host, port) == (url.raw_host.decode("ascii", "replace").lower().rstrip("."), url.port or _PORTS[url.scheme])


def _host_of(url: str) -> str:
    try:
        return (urlsplit(url[:MAX_URL_CHARS]).hostname or "")[:253]
    except ValueError:
        return ""


def _check_headers(headers: tuple[tuple[str, str], ...], allowed: tuple[str, ...] | None) -> None:
    if len(headers) > MAX_HEADERS:
        raise EgressRefused("limit-http", f"{len(headers)} headers, at most {MAX_HEADERS} are allowed")
    for name, value in headers:
        if not _well_formed(name, value):
            raise EgressRefused("invalid", f"the header {name[:60]!r} is not well-formed")
        if name.lower() in _FORBIDDEN:
            raise EgressRefused("denied", f"the header {name} is the host's to set")
        if allowed is not None and name.lower() not in allowed:
            raise EgressRefused("denied", f"the header {name} is not among the manifest's headers")


def _well_formed(name: str, value: str) -> bool:
    # Spaces at the ends of a value are not part of it (RFC 9110, section 5.5): servers disagree on them.
    return (
        _TOKEN.fullmatch(name) is not None
        and _VALUE.fullmatch(value) is not None
        and value == value.strip(" \t")
        and len(name) + len(value) <= MAX_HEADER_CHARS
    )


def _with_secrets(request: EgressRequest, hop: _Hop, settings: Mapping[str, Any]) -> EgressRequest:
    """The request as it leaves for this hop. Raises EgressRefused where a secret may not go."""
    headers, body = request.headers, request.body
    for secret in request.secrets:
        mark = secret.placeholder
        in_header = any(mark in value for _, value in headers)
        in_body = mark.encode() in body
        if any(mark in text for text in (request.url, unquote(request.url), *(name for name, _ in headers))):
            raise EgressRefused("denied", f"the secret {secret.name} can stand in a header's value or the body only")
        if not in_header and not in_body:
            continue
        if not _allowed(hop.host, hop.port, hop.url.scheme, secret.use.hosts, settings):
            raise EgressRefused("denied", f"the secret {secret.name} may not be sent to {hop.host}:{hop.port}")
        for found, place in ((in_header, "header"), (in_body, "body")):
            if found and place not in secret.use.places:
                raise EgressRefused("denied", f"the secret {secret.name} may not stand in the {place}")
        headers = tuple((n, v.replace(mark, secret.value)) for n, v in headers)
        body = body.replace(mark.encode(), secret.value.encode())
        secret.used(secret.name)
    if headers is not request.headers:
        given = dict(zip(headers, request.headers, strict=True))
        headers = tuple((n, basic(v)) if given[n, v] != (n, v) else (n, v) for n, v in headers)
        if not all(_well_formed(n, v) for n, v in headers):
            raise EgressRefused("invalid", "a secret's value cannot stand in a header")
    return replace(request, headers=headers, body=body)


def _redirect(response: EgressResponse) -> str | None:
    if response.status not in (301, 302, 303, 307, 308):
        return None
    return next((value for name, value in response.headers if name == "location"), None)


def _redirected(request: EgressRequest, status: int, url: httpx.URL, target: str) -> EgressRequest:
    """The next hop's request (RFC 9110, section 15.4); secrets stay with the origin they were for."""
    try:
        following = url.join(target)
    except (httpx.InvalidURL, ValueError):
        raise EgressRefused("invalid", "the other side redirects to something that is no URL") from None
    headers, method, body = request.headers, request.method, request.body
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        method, body = "GET", b""
        headers = tuple(h for h in headers if not h[0].lower().startswith("content-"))
    if (following.scheme, following.host, following.port) != (url.scheme, url.host, url.port):
        marks = [secret.placeholder for secret in request.secrets]
        headers = tuple(h for h in headers if h[0].lower() not in _SECRET and not any(m in h[1] for m in marks))
    return replace(request, method=method, url=str(following), headers=headers, body=body)


async def _read(response: httpx.Response, budget: _Budget) -> EgressResponse:
    headers = tuple((n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in response.headers.raw[:MAX_HEADERS])
    budget.take(sum(len(n) + len(v) for n, v in headers))
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    decoder = _decoder(coding)
    parts: list[bytes] = []
    async for chunk in response.aiter_raw():
        if decoder is None:
            budget.take(len(chunk))
            parts.append(chunk)
            continue
        # One byte past the budget is enough to know that a bomb is one.
        try:
            part = decoder.decompress(chunk, budget.left + 1)
        except zlib.error:
            raise EgressRefused("invalid", "the answer's compression is damaged") from None
        # What unpacks to nothing has been received nevertheless.
        budget.take(max(len(part), len(chunk)))
        parts.append(part)
    kept = tuple(h for h in headers if decoder is None or h[0] not in ("content-encoding", "content-length"))
    return EgressResponse(response.status_code, kept, b"".join(parts))


def _decoder(coding: str) -> Any:
    if coding in ("identity", ""):
        return None
    if coding in ("gzip", "x-gzip", "deflate"):
        # 32 lets zlib tell gzip and zlib headers apart by itself.
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    raise EgressRefused("unavailable", f"the answer is encoded as {coding}, which was not asked for")
