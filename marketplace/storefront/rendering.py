"""Templates, the headers that every page has, and errors as pages."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Coroutine
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute

from kernel.errors import KeelstoneError, ValidationFailed
from marketplace.http import FOREVER
from marketplace.storefront import charts, words

if TYPE_CHECKING:
    from jinja2 import Environment

KINDS = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
STATIC = ("store.css", "store.js", "htmx.min.js", "mark.svg")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
    "Vary": "HX-Request",
}


class Renderer:
    """Pages from templates. ``now`` is in epoch seconds."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self._made: Environment | None = None
        self._files: dict[str, tuple[bytes, str]] = {}

    def page(self, request: Request, template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
        """The page as an answer."""
        root = str(request.scope.get("root_path", "")).rstrip("/")
        html = (
            self._environment()
            .get_template(template)
            .render(
                root=root,
                asset=lambda name: f"{root}/static/{self.asset(name)[1]}/{name}",
                here=request.url.path,
                now=self.now(),
                ago=lambda at: words.moment(at, self.now()),
                **values,
            )
        )
        return HTMLResponse(html, status, headers=HEADERS)

    def asset(self, name: str) -> tuple[bytes, str]:
        """A static file and the beginning of its SHA-256, which is in its address: it can be kept for ever."""
        if name not in self._files:
            body = (files("marketplace.storefront") / "static" / name).read_bytes()
            self._files[name] = (body, hashlib.sha256(body).hexdigest()[:12])
        return self._files[name]

    def static(self, stamp: str, name: str) -> Response | None:
        """A static file as an answer; None if there is none."""
        if name not in STATIC:
            return None
        body, known = self.asset(name)
        # Of another version, e.g. while two run side by side: served, but asked for again.
        lasting = FOREVER if stamp == known else {"Cache-Control": "no-cache"}
        headers = {**lasting, "X-Content-Type-Options": "nosniff"}
        return Response(body, media_type=KINDS[name.rpartition(".")[2]], headers=headers)

    def _environment(self) -> Environment:
        if self._made is None:
            from jinja2 import Environment, PackageLoader, StrictUndefined

            made = Environment(
                loader=PackageLoader("marketplace.storefront"),
                autoescape=True,
                undefined=StrictUndefined,
                trim_blocks=True,
                lstrip_blocks=True,
            )
            made.globals.update(
                trend=charts.trend, share_bar=charts.share_bar, percentiles=charts.percentiles, plural=words.plural
            )
            made.filters.update(
                count=words.count,
                size=words.size,
                ms=words.milliseconds,
                percent=words.percent,
                short=words.short,
                hue=words.hue,
                initials=words.initials,
                breakable=words.breakable,
            )
            self._made = made
        return self._made


def page_route(renderer: Renderer) -> type[APIRoute]:
    """A kind of route whose errors are pages."""

    class PageRoute(APIRoute):
        """Renders what goes wrong for people."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            """The handler, with errors caught."""
            plain = super().get_route_handler()

            async def handle(request: Request) -> Response:
                try:
                    return await plain(request)
                except KeelstoneError as error:
                    return renderer.page(request, "error.html", error.status, error=error)
                except RequestValidationError as error:
                    told = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors())
                    failed = ValidationFailed(f"This address cannot be answered: {told}.")
                    return renderer.page(request, "error.html", failed.status, error=failed)

            return handle

    return PageRoute
