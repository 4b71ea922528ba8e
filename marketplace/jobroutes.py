"""CI jobs over HTTP: which ones a namespace lets release, and exchanging a job's identity token for minutes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request

from marketplace.jobs import Job, JobList
from marketplace.signing import canonical_json

if TYPE_CHECKING:
    from marketplace.registry import Registry


@dataclass(frozen=True)
class TrustedJobs:
    """The CI jobs that may release a namespace's plugins. ``version`` 0: none ever could. ``statement`` is the signed
    list, ``entry`` where the log has it."""

    publisher: str
    version: int
    jobs: list[Job]
    statement: dict[str, Any] | None
    entry: int | None


@dataclass(frozen=True)
class JobExchange:
    """Whom a job's identity token must be for, and whose tokens are taken here."""

    audience: str
    issuers: list[str]


@dataclass(frozen=True)
class JobKeyRequest:
    """A CI job asks for minutes: its identity ``token``, the ``plugin`` to release, its public ``key``, and the
    ``proof`` (a DSSE envelope) that it has that key."""

    token: str
    plugin: str
    key: dict[str, Any]
    proof: dict[str, Any]


@dataclass(frozen=True)
class JobKey:
    """The ``key`` may sign releases of ``plugin`` until then (ISO 8601, UTC). ``binding`` says so, signed; ``entry`` is
    where the log has it."""

    plugin: str
    key: str
    until: str
    binding: dict[str, Any]
    entry: int | None


def add_job_routes(app: FastAPI, registry: Registry) -> None:
    """Add them to the service."""
    body = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}

    @app.get("/namespaces/{publisher}/jobs", summary="The CI jobs that may release a namespace's plugins")
    def jobs(publisher: str) -> TrustedJobs:
        registry.reader.key_set(publisher)
        return _page(publisher, registry.reader.jobs.present(publisher))

    @app.post(
        "/namespaces/jobs",
        status_code=201,
        summary="Let CI jobs release, by a signed list in place of the one before",
        openapi_extra={"requestBody": body},
    )
    async def let_jobs(request: Request) -> TrustedJobs:
        taken = await registry.let_jobs(await request.body())
        return _page(taken.publisher, taken)

    @app.get("/job-keys", summary="Whom identity tokens must be for, and whose are taken")
    def exchange() -> JobExchange:
        return JobExchange(registry.audience, list(registry.issuers.urls))

    # The token and the proof of the key, not a session, say who may.
    @app.post("/job-keys", status_code=201, summary="Exchange a CI job's identity token for minutes to release")
    async def bind(asked: JobKeyRequest) -> JobKey:
        bound = await registry.bind_job(asked.token, asked.plugin, asked.key, canonical_json(asked.proof))
        return JobKey(bound.plugin, bound.key.keyid, bound.until, dict(bound.statement), bound.entry)


def _page(publisher: str, found: JobList | None) -> TrustedJobs:
    if found is None:
        return TrustedJobs(publisher, 0, [], None, None)
    return TrustedJobs(publisher, found.version, list(found.jobs), dict(found.statement), found.entry)
