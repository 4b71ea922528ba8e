"""The first room of a request: correlation id, deadline, body limit, principal, tenant. Pure ASGI."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog
from starlette.exceptions import HTTPException

from api.problems import BadRequest, BodyTooLarge, problem_response
from kernel.context import ANONYMOUS, Context, new_id, use_context
from kernel.errors import DeadlineExceeded, KeelstoneError
from kernel.permissions import acting_tenant
from kernel.settings import Settings
from kernel.telemetry import Telemetry
from plugin_sdk.services import Authenticator, Services

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

TENANT_HEADER = b"x-keelstone-tenant"
CORRELATION_HEADER = b"x-correlation-id"
_CORRELATION = re.compile(rb"^[A-Za-z0-9._-]{8,64}$")
_SAFE_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
UPLOADS = ("/marketplace/", "/api/v1/development/offers")
"""Paths whose bodies may be as large as a package."""
BUNDLES = "/api/v1/bundles/"
"""Where bodies may be as large as a bundle."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
log = structlog.get_logger("keelstone.http")


class RequestRoom:
    """Wraps the application. Health checks and metrics pass with the same care."""

    def __init__(self, app: Asgi, settings: Settings, services: Services, telemetry: Telemetry) -> None:
        self._app = app
        self._services = services
        self._telemetry = telemetry
        self._timeout = settings.request_timeout_ms / 1000
        self._body_limit = settings.max_body_kb * 1024
        self._upload_limit = (settings.max_package_mb + 1) * 1024 * 1024
        self._bundle_limit = settings.max_bundle_mb * 1024 * 1024

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(CORRELATION_HEADER, b"")
        correlation = given.decode() if _CORRELATION.fullmatch(given) else new_id()
        status = 500
        started = False

        async def reply(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], True
                own = {name for name, _ in message.get("headers", ())}
                extra = [h for h in _SAFE_HEADERS if h[0] not in own]
                message = {
                    **message,
                    "headers": [*message.get("headers", ()), *extra, (CORRELATION_HEADER, correlation.encode())],
                }
            await send(message)

        context = Context("", ANONYMOUS, correlation).within(self._timeout)
        scope["keelstone.context"] = context
        try:
            _check_text(scope)
            context = await self._identify(scope, headers, context)
            scope["keelstone.context"] = context
            limited = self._limited(scope, headers, receive)
            with use_context(context), self._telemetry.span("http.request", path=scope["path"], method=scope["method"]):
                async with asyncio.timeout(self._timeout):
                    await self._app(scope, limited, reply)
        except KeelstoneError as error:
            if started:
                raise
            await problem_response(error, scope["path"], correlation)(scope, receive, reply)
        except TimeoutError:
            if started:
                raise
            late = DeadlineExceeded(
                "The request was not done in time.",
                expected=f"{self._timeout:.1f} s",
                fix="Ask for less, or try again.",
            )
            await problem_response(late, scope["path"], correlation)(scope, receive, reply)
        finally:
            seconds = time.perf_counter() - began
            route = _template(scope)
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._telemetry.request(method, route, status, seconds)
            if status >= 500 or seconds > 1.0:
                with use_context(context):
                    log.warning("request", method=method, route=route, status=status, seconds=round(seconds, 3))

    async def _identify(
        self, scope: MutableMapping[str, Any], headers: dict[bytes, bytes], context: Context
    ) -> Context:
        authorization = headers.get(b"authorization")
        principal = ANONYMOUS
        if authorization is not None:
            try:
                authenticator = self._services.get(Authenticator)
                principal = await authenticator.authenticate(authorization.decode("latin-1"))
            except KeelstoneError as error:
                # Public routes still answer; what needs a principal raises this very error.
                scope["keelstone.sign_in_failure"] = error
        wanted = headers.get(TENANT_HEADER)
        tenant = principal.tenant
        if wanted is not None and principal is not ANONYMOUS:
            tenant = acting_tenant(principal, wanted.decode("latin-1"))
        return Context(tenant, principal, context.correlation_id, context.deadline)

    def _limited(self, scope: MutableMapping[str, Any], headers: dict[bytes, bytes], receive: Receive) -> Receive:
        path = scope["path"]
        limit = self._upload_limit if path.startswith(UPLOADS) else self._body_limit
        limit = self._bundle_limit if path.startswith(BUNDLES) else limit
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            raise _too_large(limit, int(declared))
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                # Not an error of ours: FastAPI would call it a body that can't be parsed.
                raise HTTPException(413, f"The request's body is too large: {seen} bytes or more, at most {limit}.")
            return message

        return counted


def _check_text(scope: MutableMapping[str, Any]) -> None:
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        raise BadRequest("The address holds a NUL character.", expected="text without NUL", found="%00")


def _template(scope: MutableMapping[str, Any]) -> str:
    """The matched path with its parameters named, so that metrics have one series per route."""
    if "route" not in scope and "endpoint" not in scope:
        return "unmatched"
    path = str(scope["path"])
    for name, value in scope.get("path_params", {}).items():
        path = path.replace(f"/{value}", f"/{{{name}}}", 1)
    return path


def _too_large(limit: int, found: int) -> BodyTooLarge:
    return BodyTooLarge(
        "The request's body is too large.", expected=f"at most {limit} bytes", found=f"{found} bytes or more"
    )
