"""HTTP manners of the service: RFC 9457 problems, and bodies bounded before they are read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kernel.errors import KeelstoneError, ValidationFailed
from marketplace.errors import PackageTooLarge

PROBLEM = "application/problem+json"
FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}
"""What is found under this address never changes."""
NEVER = {"Cache-Control": "no-cache"}
"""What is found under this address must be asked for each time."""
SMALL_BODY = 128 * 1024
MULTIPART_ROOM = 128 * 1024
"""What a multipart body may have besides the package: the signature and the parts' headers."""


def problem_response(error: KeelstoneError, instance: str | None = None) -> Response:
    """The problem document of ``error``."""
    return JSONResponse(error.problem(instance), status_code=error.status, media_type=PROBLEM)


def add_problem_handlers(app: FastAPI) -> None:
    """Make every error of ``app`` a problem document."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, KeelstoneError)
        return problem_response(error, request.url.path)

    async def shape(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        problems = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()]
        failed = ValidationFailed("; ".join(problems) + ".", extra={"problems": problems})
        return problem_response(failed, request.url.path)

    async def plain(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "http")
        body = {
            "type": f"urn:keelstone:error:{code}",
            "title": str(error.detail),
            "status": error.status_code,
            "detail": f"{request.method} {request.url.path}: {error.detail}.",
            "code": code,
        }
        return JSONResponse(body, status_code=error.status_code, media_type=PROBLEM, headers=error.headers)

    async def unexpected(request: Request, error: Exception) -> Response:
        return problem_response(KeelstoneError("The marketplace failed; its log says why."), request.url.path)

    handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
        KeelstoneError: ours,
        RequestValidationError: shape,
        HTTPException: plain,
        Exception: unexpected,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


class BodyLimit:
    """ASGI middleware: refuses a body larger than its path may have, by its declared length at once,
    and otherwise as soon as too many bytes have come."""

    def __init__(self, app: ASGIApp, max_package_bytes: int) -> None:
        self._app, self._max_package = app, max_package_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        upload = scope["path"].rstrip("/").endswith(("/publish", "/validate"))
        limit = self._max_package + MULTIPART_ROOM if upload else SMALL_BODY
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            await problem_response(_too_large(limit, int(declared)), scope["path"])(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise _too_large(limit, received)
            return message

        await self._app(scope, counted, send)


def _too_large(limit: int, found: int) -> PackageTooLarge:
    return PackageTooLarge(
        "The request's body is larger than this marketplace takes.",
        expected=f"at most {limit:,} bytes",
        found=f"{found:,} bytes or more",
        fix="Make the component smaller, or ask the operator to raise KEELSTONE_MAX_PACKAGE_MB.",
    )
