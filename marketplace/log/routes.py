"""The log over HTTP: everything to follow it with, and the door for witnesses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import FastAPI, Path
from fastapi.responses import Response

from marketplace.http import FOREVER, NEVER

if TYPE_CHECKING:
    from marketplace.registry import Registry

Index = Annotated[int, Path(ge=0, lt=10**18)]
_BYTES = "application/octet-stream"
_NOTE = "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Cosigned:
    """A checkpoint, as a signed note, with a witness' signature among its lines."""

    checkpoint: str


@dataclass(frozen=True)
class Witnessed:
    """Which witnesses' signatures were taken in, for the checkpoint of how many entries."""

    size: int
    witnesses: list[str]


def add_log_routes(app: FastAPI, registry: Registry) -> None:
    """Add them to the service. Reading is open; a cosignature counts by its witness' key."""
    read = registry.reader.log_file

    def note(path: str) -> Response:
        return Response(read(path), media_type=_NOTE, headers=NEVER)

    @app.get("/log/checkpoint", summary="The log's newest checkpoint", response_class=Response)
    def checkpoint() -> Response:
        return note("checkpoint")

    @app.get(
        "/log/witnessed/{count}", summary="The newest checkpoint that so many witnesses signed", response_class=Response
    )
    def witnessed(count: Annotated[int, Path(ge=1, le=99)]) -> Response:
        return note(f"witnessed/{count}")

    # A partial tile is named by its width, so it never changes either.
    @app.get("/log/tile/{path:path}", summary="A tile or entry bundle (C2SP tlog-tiles)", response_class=Response)
    def tile(path: str) -> Response:
        return Response(read(f"tile/{path}"), media_type=_BYTES, headers=FOREVER)

    def document(path: str) -> Response:
        return Response(read(path), media_type="application/json", headers=NEVER)

    @app.get(
        "/log/proof/{publisher}/{name}/{version}",
        summary="The proof that a release was logged",
        response_class=Response,
    )
    def proof(publisher: str, name: str, version: str) -> Response:
        return document(f"proof/{publisher}/{name}/{version}")

    @app.get(
        "/log/proof/{publisher}/{name}/{version}/at/{size}",
        summary="The same, against the checkpoint of a size",
        response_class=Response,
    )
    def proof_at(publisher: str, name: str, version: str, size: Index) -> Response:
        return document(f"proof/{publisher}/{name}/{version}/at/{size}")

    @app.get("/log/entry/{index}", summary="The proof of any entry", response_class=Response)
    def entry(index: Index) -> Response:
        return document(f"entry/{index}")

    @app.get(
        "/log/entry/{index}/at/{size}", summary="The same, against the checkpoint of a size", response_class=Response
    )
    def entry_at(index: Index, size: Index) -> Response:
        return document(f"entry/{index}/at/{size}")

    # The witness' signature, not a session, says who it is; the operator says whose counts.
    @app.post("/log/cosignatures", summary="Hand in a checkpoint with a witness' signature")
    async def cosign(cosigned: Cosigned) -> Witnessed:
        size, witnesses = await registry.cosign(cosigned.checkpoint.encode())
        return Witnessed(size, witnesses)
