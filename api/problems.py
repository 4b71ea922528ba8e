"""Every error leaves as one RFC 9457 problem document (application/problem+json)."""

from __future__ import annotations

import json
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from kernel.errors import KeelstoneError, NotFound, ValidationFailed

logger = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"


class MethodNotAllowed(KeelstoneError):
    """The path exists and does not take this method."""

    code, status, title = "method-not-allowed", 405, "Method not allowed"


class BodyTooLarge(KeelstoneError):
    """The request's body is larger than allowed."""

    code, status, title = "body-too-large", 413, "Request body is too large"


class BadRequest(KeelstoneError):
    """The request can't be read at all."""

    code, status, title = "bad-request", 400, "Request can't be read"


def problem_response(error: KeelstoneError, instance: str, correlation_id: str) -> Response:
    """The problem document as a response, whatever the error quotes of the input."""
    headers = {"WWW-Authenticate": 'Bearer realm="keelstone"'} if error.status == 401 else None
    body = error.problem(instance) | {"correlation_id": correlation_id}
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), default=str).encode("utf-8", "replace")
    return Response(content, status_code=error.status, media_type=MEDIA_TYPE, headers=headers)


def install(app: FastAPI) -> None:
    """Make ``app`` answer every error as a problem document."""

    @app.exception_handler(KeelstoneError)
    async def known(request: Request, error: KeelstoneError) -> Response:
        if error.status >= 500:
            logger.error("%s", error, exc_info=error if error.code == "internal" else None)
        return _respond(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        problems = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()]
        detail = f"The request does not fit: {'; '.join(problems[:10])}."
        return _respond(
            request,
            ValidationFailed(detail, fix="See /openapi.json for the shape.", extra={"problems": problems}),
        )

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return _respond(request, _from_http(request, error))

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> Response:
        logger.exception("an error that nobody expected", exc_info=error)
        return _respond(
            request,
            KeelstoneError(
                "Something failed that we did not foresee; nothing was half-done.",
                fix="Quote the correlation id to the operator.",
            ),
        )


def _from_http(request: Request, error: HTTPException) -> KeelstoneError:
    if error.status_code == 404:
        return NotFound(f"There is nothing at {request.url.path}.", fix="See /openapi.json for what there is.")
    if error.status_code == 405:
        return MethodNotAllowed(f"{request.url.path} does not take {request.method}.", found=request.method)
    if error.status_code == 413:
        return BodyTooLarge(str(error.detail))
    return BadRequest(str(error.detail), found=error.status_code)


def _respond(request: Request, error: KeelstoneError) -> Response:
    context: Any = request.scope.get("keelstone.context")
    return problem_response(error, request.url.path, context.correlation_id if context else "")
