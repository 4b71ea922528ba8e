"""A whole platform inside the test's process: the real wiring on SQLite in a temporary folder, asked over ASGI."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from api.app import asgi, create_app
from api.bootstrap import Platform, bootstrap
from api.cli.connection import Credentials
from api.seed import ensure_operator, seed
from kernel.settings import Settings
from marketplace.keys import SigningKey, generate_key
from marketplace.namespaces import make_key_set
from plugin_sdk.sbom import Part
from tests.support.guests import signed

SMALL: dict[str, Any] = {
    "sandbox_slots": 16,
    "sandbox_threads": 2,
    "log_level": "error",
    # Many tests publish guests that break their contract on purpose.
    "check_contracts": False,
}
TENANTS = ("acme", "globex")


def settings_for(home: Path, **changes: Any) -> Settings:
    """Settings of a small platform in ``home``."""
    return Settings(**{"home": home, **SMALL, **changes})


def make_home(home: Path, *, examples: bool = False) -> Path:
    """A data folder with an operator and the admins of acme and globex; copy it, for it takes seconds to make."""

    async def make() -> None:
        platform = bootstrap(settings_for(home))
        await platform.start()
        try:
            await ensure_operator(platform)
            if not examples:
                platform.registry = None
            await seed(platform)
            await quiet(platform)
        finally:
            await platform.stop()

    asyncio.run(make())
    return home


async def quiet(platform: Platform) -> None:
    """Return once every event stored so far has been relayed and handled (or parked)."""

    async def settled() -> bool:
        events, _ = await platform.events.read_committed(after=await platform.database.checkpoints.load("relay"))
        return not events

    await until(settled)


async def until(done: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    """Wait until ``done`` says so; AssertionError after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not await done():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.02)


class Client(httpx.AsyncClient):
    """An HTTP client that a person of one tenant has signed in with."""

    async def ok(self, method: str, path: str, **options: Any) -> Any:
        """The decoded body of an answer that must be good."""
        answer = await self.request(method, path, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def problem(self, status: int, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The problem document of an answer that must be this failure, well-formed by RFC 9457."""
        answer = await self.request(method, path, **options)
        return problem_of(answer, status)

    async def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """The answer of GraphQL: ``data`` and maybe ``errors``."""
        found: dict[str, Any] = await self.ok("POST", "/graphql", json={"query": query, "variables": variables})
        return found


def problem_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document in ``answer``; asserts its shape."""
    assert answer.status_code == status, (
        f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
    )
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["type"] == f"urn:keelstone:error:{body['code']}"
    assert body["title"]
    assert body["detail"]
    assert body["instance"] == answer.request.url.path
    assert body["correlation_id"] == answer.headers["x-correlation-id"]
    assert "Traceback" not in answer.text
    return body


class Stage:
    """A platform in ``home`` for the length of an ``async with``."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.home = home
        self.settings = settings_for(home, **settings)
        self.key: SigningKey = generate_key()
        self._stack = AsyncExitStack()
        self._tokens: dict[str, str] = {}
        self._packages = 0

    async def __aenter__(self) -> Stage:
        self.platform = bootstrap(self.settings)
        await self.platform.start()
        self._stack.push_async_callback(self.platform.stop)
        self.app = create_app(self.platform, manage=False)
        self.transport = httpx.ASGITransport(asgi(self.platform, self.app))
        self.anonymous = await self._client()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _client(self, token: str | None = None, **headers: str) -> Client:
        given = {"authorization": f"Bearer {token}"} if token else {}
        client = Client(transport=self.transport, base_url="http://keelstone", headers={**given, **headers})
        return await self._stack.enter_async_context(client)

    async def token(self, tenant: str) -> str:
        """An access token of the tenant's admin; of the operator for ``platform``. Signs in once."""
        if tenant not in self._tokens:
            kept = Credentials(self.home).load()[tenant]
            self._tokens[tenant] = (await self.sign_in(tenant, **kept))["access_token"]
        return self._tokens[tenant]

    async def sign_in(self, tenant: str, email: str, password: str) -> dict[str, Any]:
        """The token pair of a right password."""
        asked = {"tenant": tenant, "email": email, "password": password}
        found: dict[str, Any] = await self.anonymous.ok("POST", "/api/v1/auth/token", json=asked)
        return found

    async def client(self, tenant: str, token: str | None = None, **headers: str) -> Client:
        """A client signed in as the tenant's admin (the operator for ``platform``), or with ``token``."""
        return await self._client(token or await self.token(tenant), **headers)

    async def member(self, tenant: str, *roles: str) -> Client:
        """A client of a new person with ``roles`` (by an API key, which needs no slow password)."""
        admin = await self.client(tenant)
        made = await admin.ok("POST", "/api/v1/api-keys", json={"name": "for a test", "roles": list(roles)})
        return await self._client(made["key"])

    async def publish(
        self,
        component: bytes,
        plugin: str = "acme/guard",
        version: str = "1.0.0",
        *,
        parts: Iterable[Part] = (),
        **manifest: str,
    ) -> None:
        """Publish a plugin with this component into the embedded marketplace."""
        registry = self.platform.registry
        assert registry is not None
        self._packages += 1
        folder = self.home / "packages" / str(self._packages)
        package = signed(folder, self.key, component, plugin, version, parts=parts, **manifest)
        await registry.register_namespace(make_key_set(plugin.partition("/")[0], [self.key]).document, by_operator=True)
        await registry.publish(package.package.data, package.envelope)

    async def install(
        self,
        component: bytes,
        plugin: str = "acme/guard",
        version: str = "1.0.0",
        *,
        parts: Iterable[Part] = (),
        **manifest: str,
    ) -> None:
        """Publish and install."""
        await self.publish(component, plugin, version, parts=parts, **manifest)
        operator = await self.client("platform")
        await operator.ok("POST", "/api/v1/plugins/install", json={"plugin": plugin, "version": f"={version}"})

    async def activate(self, tenant: str, plugin: str = "acme/guard", **body: Any) -> dict[str, Any]:
        """Switch a plugin on for a tenant, granting everything it asks for."""
        admin = await self.client(tenant)
        path = f"/api/v1/tenants/{tenant}/activations/{plugin}"
        asked = await admin.ok("GET", f"{path}/consent")
        found: dict[str, Any] = await admin.ok("PUT", path, json={"grants": {a["name"]: True for a in asked}, **body})
        return found

    async def quiet(self) -> None:
        """Return once every event stored so far has been handled."""
        await quiet(self.platform)


def copied(template: Path, to: Path) -> Path:
    """A data folder of one's own."""
    shutil.copytree(template, to)
    return to


def as_text(value: object) -> str:
    """Everything in ``value``, to search in."""
    return json.dumps(value, default=str)
