"""How commands reach a platform: the one that serves this data folder, or one inside this process.

The same REST requests are made either way, so what a command can do is exactly what an integrator can.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import httpx

from kernel.context import PLATFORM_TENANT
from kernel.errors import ConfigurationError, KeelstoneError, TokenExpired, Unauthenticated
from kernel.files import write_durably
from kernel.settings import Settings
from plugin_sdk.terminal import RemoteError

T = TypeVar("T")
TIMEOUT = httpx.Timeout(120.0, connect=5.0)


class Unreachable(KeelstoneError):
    """No platform answers at the address."""

    code, status, title = "unreachable", 503, "The platform can't be reached"


class Credentials:
    """Sign-ins kept for this data folder, readable by its owner only."""

    def __init__(self, home: Path) -> None:
        self.path = home / "credentials.json"

    def load(self) -> dict[str, dict[str, str]]:
        """Tenant -> {email, password}."""
        try:
            found: dict[str, dict[str, str]] = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ConfigurationError("The stored sign-ins can't be read.", file=str(self.path)) from error
        return found

    def save(self, tenant: str, email: str, password: str) -> None:
        """Keep a sign-in."""
        self._write({**self.load(), tenant: {"email": email, "password": password}})

    def forget(self, tenant: str, before: dict[str, str] | None) -> None:
        """Put back what was kept for the tenant before."""
        known = {t: kept for t, kept in self.load().items() if t != tenant}
        self._write({**known, tenant: before} if before else known)

    def _write(self, known: dict[str, dict[str, str]]) -> None:
        write_durably(self.path, json.dumps(known, indent=2).encode())


class Connection:
    """Signed-in requests; subclasses say how a request is sent."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tokens: dict[str, str] = {}

    def send(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        raise TypeError("Connection is a base class: use Network or InProcess")

    def close(self) -> None:
        """Let go of the platform."""

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: dict[str, Any] | None = None,
        files: dict[str, Any] | None = None,
        tenant: str | None = None,
    ) -> Any:
        """The decoded answer. Raises RemoteError with the platform's problem document."""
        signed_in = not path.startswith("/marketplace") or tenant is not None
        who = tenant or PLATFORM_TENANT
        options = {"json": json, "params": params, "files": files}
        fresh = who not in self._tokens
        headers = {"Authorization": f"Bearer {self._token(who)}"} if signed_in else {}
        try:
            return self._answer(self._request(method, path, headers=headers, **options))
        except RemoteError as error:
            # A command that runs for long outlives its access token: sign in once more.
            if fresh or not signed_in or error.body.get("code") != TokenExpired.code:
                raise
            self._tokens.pop(who, None)
            headers = {"Authorization": f"Bearer {self._token(who)}"}
            return self._answer(self._request(method, path, headers=headers, **options))

    def _request(self, method: str, path: str, **options: Any) -> httpx.Request:
        params = {k: v for k, v in (options.pop("params") or {}).items() if v is not None}
        return httpx.Request(method, f"http://keelstone{path}", params=params, **options)

    def _answer(self, request: httpx.Request) -> Any:
        response = self.send(request)
        if response.status_code >= 400:
            try:
                problem = response.json()
            except ValueError:
                problem = {"title": response.reason_phrase, "detail": response.text[:500]}
            raise RemoteError(problem, response.status_code)
        if response.status_code == 204 or not response.content:
            return None
        return response.json() if "json" in response.headers.get("content-type", "") else response.content

    def _token(self, tenant: str) -> str:
        if self._settings.token is not None:
            return self._settings.token.get_secret_value()
        if tenant not in self._tokens:
            self._tokens[tenant] = self._sign_in(tenant)
        return self._tokens[tenant]

    def _sign_in(self, tenant: str) -> str:
        known = Credentials(self._settings.home).load().get(tenant)
        if known is None:
            raise Unauthenticated(
                f"No sign-in for {tenant} is kept for this data folder.",
                tenant=tenant,
                fix=f"Run `keelstone login {tenant}`, or set KEELSTONE_TOKEN.",
            )
        body = {"tenant": tenant, **known}
        answer = self._answer(self._request("POST", "/api/v1/auth/token", json=body, params=None))
        return str(answer["access_token"])


class Network(Connection):
    """A platform that serves at an address."""

    def __init__(self, settings: Settings, url: str) -> None:
        super().__init__(settings)
        self._url = httpx.URL(url)
        self._client = httpx.Client(timeout=TIMEOUT)

    def send(self, request: httpx.Request) -> httpx.Response:
        """Send over the network. Raises Unreachable."""
        request.url = request.url.copy_with(
            scheme=self._url.scheme, host=self._url.host, port=self._url.port, raw_path=request.url.raw_path
        )
        request.headers["Host"] = self._url.netloc.decode()
        try:
            return self._client.send(request)
        except httpx.TransportError as error:
            raise Unreachable(
                f"No platform answers at {self._url}: {error}", fix="Start one with `make run` or `keelstone serve`."
            ) from error

    def close(self) -> None:
        """Close connections."""
        self._client.close()


class InProcess(Connection):
    """A platform started in this process for the life of one command."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="platform", daemon=True)
        self._thread.start()
        self._platform: Any = None
        try:
            self._client = self._run(self._open())
        except BaseException:
            self._end()
            raise

    async def _open(self) -> httpx.AsyncClient:
        from api.app import asgi, create_app
        from api.bootstrap import bootstrap
        from api.seed import ensure_operator

        self._platform = bootstrap(self._settings)
        app = create_app(self._platform, manage=False)
        await self._platform.start()
        await ensure_operator(self._platform)
        transport = httpx.ASGITransport(app=asgi(self._platform, app))
        return httpx.AsyncClient(transport=transport, timeout=TIMEOUT)

    def send(self, request: httpx.Request) -> httpx.Response:
        """Send inside the process."""
        # A synchronous body (a form with files) can't be sent by an async client: read it first.
        request.read()
        body = httpx.Request(request.method, request.url, headers=request.headers, content=request.content)
        return self._run(self._client.send(body))

    def close(self) -> None:
        """Stop the platform."""
        try:
            self._run(self._client.aclose())
            self._run(self._platform.stop())
        finally:
            self._end()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


def serving(home: Path) -> str | None:
    """The address of the platform that serves this data folder now, or None."""
    try:
        noted = json.loads((home / "server.json").read_text())
        answer = httpx.get(f"{noted['url']}/healthz", timeout=2.0)
        return str(noted["url"]) if answer.json().get("instance") == noted["instance"] else None
    except (OSError, ValueError, KeyError, httpx.HTTPError):
        return None


def open_connection(settings: Settings) -> Connection:
    """KEELSTONE_URL if set, else the platform that serves this data folder, else one in this process."""
    url = settings.url or serving(settings.home)
    if url is not None:
        return Network(settings, url)
    return InProcess(settings)
