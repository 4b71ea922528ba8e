"""The marketplace's REST service: mounted at /marketplace in the embedded platform, or on its own.

Reading is open. Writing is authorised by signatures alone: a namespace's key set is signed by its
keys, a release and a yank by the namespace's key; no session or token is involved.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, Response
from starlette.datastructures import UploadFile

from kernel.errors import NotFound, ValidationFailed
from marketplace.binding import build_of
from marketplace.http import FOREVER, NEVER, BodyLimit, add_problem_handlers
from marketplace.index import Deprecation, Release, Yank, entry_of
from marketplace.jobroutes import add_job_routes
from marketplace.keyroutes import add_key_routes
from marketplace.log.routes import add_log_routes
from marketplace.mirror.syncing import Mirror
from marketplace.package import SUFFIX, read_package
from marketplace.registry import NamespaceRecord, Receipt, Registry
from marketplace.registry.domains import VerifiedDomain
from marketplace.registry.reach import Reached
from marketplace.registry.receipts import DeprecationRecord
from marketplace.registry.reviews import PublishStatus
from marketplace.registry.search import Facets
from marketplace.registry.submissions import OPEN
from marketplace.reports import add_report_routes
from marketplace.revocations import WAIT_SECONDS
from marketplace.storefront import add_pages
from marketplace.validator import Finding, RuleState, Validation
from plugin_sdk.services import Advisory, Build, MarketplaceEntry, Revocation, SearchFilters

Narrowing = Annotated[str | None, Query(max_length=100, description="Only plugins that have this.")]
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class SearchResults:
    """What a search found, best first. ``facets`` is there if it was asked for."""

    results: list[MarketplaceEntry]
    facets: Facets | None = None


@dataclass(frozen=True)
class Revocations:
    """Every revoked release, oldest first."""

    revoked: list[Revocation]


@dataclass(frozen=True)
class RevokedCount:
    """How many releases are revoked."""

    revoked: int


@dataclass(frozen=True)
class ReleaseSummary:
    """One release without its manifest. ``size`` is in bytes; ``published`` ISO 8601 in UTC."""

    version: str
    digest: str
    size: int
    kernel: str
    published: str
    yanked: Yank | None
    build: Build | None = None
    """The CI job that made and signed it, if one did."""


@dataclass(frozen=True)
class PluginPage:
    """One plugin with all its releases, newest first. ``entry`` is null if all are withdrawn."""

    id: str
    entry: MarketplaceEntry | None
    releases: list[ReleaseSummary]
    deprecated: Deprecation | None


@dataclass(frozen=True)
class ReleasePage:
    """One release: its manifest, texts and signature, and what monitored rules found in it."""

    plugin: str
    release: ReleaseSummary
    manifest: dict[str, Any]
    readme: str
    changelog: str
    envelope: dict[str, Any]
    findings: list[Finding]


@dataclass(frozen=True)
class Namespace:
    """The key set that a namespace is bound to; ``releases`` of its keys must sign a release. ``domain`` speaks for
    it, if one was verified."""

    publisher: str
    version: int
    threshold: int
    keys: list[str]
    releases: int
    domain: VerifiedDomain | None = None


def create_app(registry: Registry, *, lifespan: Lifespan | None = None) -> FastAPI:
    """The service over ``registry``, which the caller opens and closes (or ``lifespan`` does)."""
    app = FastAPI(
        title="Keelstone marketplace",
        version="1",
        summary="Search, signed metadata, packages; publishing by signature.",
        lifespan=lifespan,
    )
    app.add_middleware(BodyLimit, max_package_bytes=registry.max_package_bytes)
    add_problem_handlers(app)
    _add_reading(app, registry)
    _add_files(app, registry)
    add_log_routes(app, registry)
    _add_revocations(app, registry)
    _add_writing(app, registry)
    add_key_routes(app, registry)
    add_job_routes(app, registry)
    add_report_routes(app, registry)
    add_pages(app, registry)
    return app


def standalone_lifespan(registry: Registry, report: Callable[[str], None] = lambda warning: None) -> Lifespan:
    """Keeps the registry's metadata fresh and follows its upstreams while the service runs, and closes it after."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        kept = (registry.keep_fresh(report), Mirror(registry).keep_following(report))
        keepers = [asyncio.create_task(each) for each in kept]
        try:
            yield
        finally:
            for keeper in keepers:
                keeper.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await keeper
            await registry.close()

    return lifespan


def _add_reading(app: FastAPI, registry: Registry) -> None:
    reader = registry.reader

    @app.get("/healthz", summary="Whether the service and its database answer")
    def healthz() -> dict[str, str]:
        searched = {} if registry.search_state is None else {"search": registry.search_state}
        return {"status": "ok" if reader.metadata("timestamp.json") else "empty", **searched}

    @app.get("/search", summary="Find plugins")
    def search(
        q: Annotated[str, Query(max_length=200)] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        publisher: Narrowing = None,
        license: Narrowing = None,
        capability: Narrowing = None,
        keyword: Narrowing = None,
        contracts: Annotated[
            list[str] | None, Query(max_length=10, description="Some release must run on one of these hook contracts.")
        ] = None,
        facets: Annotated[bool, Query(description="Also count what the best matches could be narrowed to.")] = False,
    ) -> SearchResults:
        filters = SearchFilters(publisher, license, capability, keyword, tuple(contracts or ()))
        counted = reader.facets(q, filters) if facets else None
        return SearchResults(reader.search(q, limit, filters), counted)

    @app.get("/plugins/{publisher}/{name}", summary="One plugin and its releases")
    def plugin(publisher: str, name: str) -> PluginPage:
        index = reader.index(f"{publisher}/{name}")
        entry = entry_of(index) if index.installable() else None
        return PluginPage(index.plugin, entry, [_summary(release) for release in index.releases], index.deprecated)

    @app.get("/plugins/{publisher}/{name}/versions/{version}", summary="One release")
    def release(publisher: str, name: str, version: str) -> ReleasePage:
        found = reader.index(f"{publisher}/{name}").find(version)
        path = (reader.package_path(found.digest) or reader.upstreams.package(found.digest)) if found else None
        if found is None or path is None:
            raise NotFound(f"There is no release {publisher}/{name} {version}.", plugin=f"{publisher}/{name}")
        package = read_package(path.read_bytes(), max_bytes=max(found.size, 1))
        return ReleasePage(
            plugin=package.manifest.id,
            release=_summary(found),
            manifest=dict(found.manifest),
            readme=package.readme,
            changelog=package.changelog,
            envelope=dict(found.envelope),
            findings=[Finding(**each) for each in reader.findings(package.manifest.id, version)],
        )

    @app.get("/namespaces/{publisher}", summary="The keys of a namespace")
    def namespace(publisher: str) -> Namespace:
        found = reader.key_set(publisher)
        keys, domain = list(found.keys), reader.domains.of(publisher)
        return Namespace(found.publisher, found.version, found.threshold, keys, found.release_threshold, domain)


def _add_files(app: FastAPI, registry: Registry) -> None:
    reader = registry.reader

    @app.get("/metadata/{name}", summary="TUF metadata", response_class=Response)
    def metadata(name: str) -> Response:
        body = reader.metadata(name)
        if body is None:
            raise NotFound(f"There is no metadata {name}.", file=name)
        lasting = name[0].isdigit()
        return Response(body, media_type="application/json", headers=FOREVER if lasting else NEVER)

    @app.get("/targets/{path:path}", summary="TUF target documents", response_class=Response)
    def target(path: str) -> Response:
        body = reader.target(path)
        if body is None:
            raise NotFound(f"There is no target {path}.", file=path)
        return Response(body, media_type="application/json", headers=FOREVER)

    @app.get(
        "/packages/{digest}", summary="A package, by the SHA-256 that its index gives", response_class=FileResponse
    )
    def package(digest: str) -> FileResponse:
        path = reader.package_path(digest) or reader.upstreams.package(digest)
        if path is None:
            raise NotFound("There is no such package.", found=digest)
        registry.downloaded(digest)
        return FileResponse(path, media_type="application/zip", filename=f"{digest}{SUFFIX}", headers=FOREVER)


def _add_revocations(app: FastAPI, registry: Registry) -> None:
    desk = registry.reader.revocations

    @app.get("/revocations", summary="Releases that the operator ended everywhere; the TUF target is what counts")
    def revocations() -> Revocations:
        return Revocations(list(desk.all()))

    @app.get("/revocations/wait", summary="Answers when more releases are revoked than are known, or in a while")
    async def wait(
        known: Annotated[int, Query(ge=0)], seconds: Annotated[float, Query(gt=0, le=WAIT_SECONDS)] = WAIT_SECONDS
    ) -> RevokedCount:
        return RevokedCount(await desk.wait(known, seconds))

    # Whoever reports is not identified: what comes in is a figure for the operator, and nothing is done by it.
    @app.post("/revocations/{digest}/reach", status_code=204, summary="A platform has carried out a revocation")
    def reach(digest: str, told: Reached) -> None:
        desk.note(digest, told)


def _add_writing(app: FastAPI, registry: Registry) -> None:
    envelope_body = {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object", "description": "A DSSE envelope."}}},
        }
    }

    # The key set, not a session, says who may: it must be signed by the keys that it names.
    @app.post("/namespaces", status_code=201, summary="Bind a namespace to keys", openapi_extra=envelope_body)
    async def register(request: Request) -> NamespaceRecord:
        return await registry.register_namespace(await request.body())

    @app.post(
        "/namespaces/domain", status_code=201, summary="Verify a namespace by its domain", openapi_extra=envelope_body
    )
    async def verify_domain(request: Request) -> VerifiedDomain:
        return await registry.verify_domain(await request.body())

    @app.post(
        "/publish",
        status_code=201,
        summary="Publish a signed package; 202 while it is being scanned: ask again",
        openapi_extra=_form("package", "signature"),
    )
    async def publish(request: Request, response: Response) -> Receipt:
        # Parsed here and not by FastAPI, which would turn the body limit's refusal into a vague 400.
        async with request.form(max_files=2, max_fields=2) as form:
            package, signature = await _part(form.get("package")), await _part(form.get("signature"))
        if package is None:
            raise ValidationFailed("The form has no part named package.", expected="package and signature")
        receipt = await registry.publish(package, signature)
        if receipt.state in OPEN:
            response.status_code = 202
        return receipt

    @app.get("/publishes/{digest}", summary="What became of a package that was handed in")
    def publishes(digest: str) -> PublishStatus:
        return registry.reader.reviews.status(digest)

    @app.post(
        "/validate", summary="What publishing a package would find; stores nothing", openapi_extra=_form("package")
    )
    async def validate(request: Request) -> Validation:
        async with request.form(max_files=1, max_fields=1) as form:
            package = await _part(form.get("package"))
        if package is None:
            raise ValidationFailed("The form has no part named package.", expected="package")
        return await registry.validate(package)

    @app.get("/rules", summary="The rules that releases must pass")
    def rules() -> list[RuleState]:
        return registry.rules()

    @app.post("/yank", summary="Withdraw a release from new installs", openapi_extra=envelope_body)
    async def yank(request: Request) -> Receipt:
        return await registry.yank(await request.body())

    @app.get("/advisories", summary="Known weaknesses of plugins; the TUF target is what counts")
    def advisories(plugin: Annotated[str | None, Query(max_length=200)] = None) -> list[Advisory]:
        desk = registry.reader.advisories
        return list(desk.all() if plugin is None else desk.about(plugin))

    @app.post(
        "/advisories",
        status_code=201,
        summary="Publish an advisory about plugins of one's own",
        openapi_extra=envelope_body,
    )
    async def advise(request: Request) -> Advisory:
        return await registry.advise(await request.body(), by_publisher=True)

    @app.post("/deprecate", summary="Advise against a plugin, or take that back", openapi_extra=envelope_body)
    async def deprecate(request: Request) -> DeprecationRecord:
        return await registry.deprecate(await request.body())


def _form(*parts: str) -> dict[str, Any]:
    """OpenAPI's words for a form of files."""
    binary = {"type": "string", "format": "binary"}
    schema = {"type": "object", "required": list(parts), "properties": dict.fromkeys(parts, binary)}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


async def _part(part: UploadFile | str | None) -> bytes | None:
    if isinstance(part, str):
        return part.encode()
    return await part.read() if part is not None else None


def _summary(release: Release) -> ReleaseSummary:
    return ReleaseSummary(
        release.version,
        release.digest,
        release.size,
        release.kernel,
        release.published,
        release.yanked,
        build_of(release.provenance),
    )
