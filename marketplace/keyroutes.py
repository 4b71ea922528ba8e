"""A namespace's key sets over HTTP: all versions, with the signed documents, for whoever proposes the next one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

if TYPE_CHECKING:
    from marketplace.registry import Registry


@dataclass(frozen=True)
class KeySetPage:
    """One key set. ``threshold`` of its keys sign the next one, ``releases`` a release; ``stolen`` has keys of earlier
    versions and since when they do not count. ``owner`` names who holds the namespace from it on, ``recovered`` that
    the operator put it in place of lost keys, ``at`` when it came (ISO 8601, UTC), ``entry`` where the log has it."""

    version: int
    threshold: int
    releases: int
    keys: list[str]
    stolen: dict[str, str]
    owner: str | None
    recovered: bool
    at: str | None
    entry: int | None


@dataclass(frozen=True)
class KeySets:
    """A namespace's key sets, oldest first. ``document`` is the TUF target that has all of them, signed."""

    publisher: str
    versions: list[KeySetPage]
    document: dict[str, Any]


def add_key_routes(app: FastAPI, registry: Registry) -> None:
    """Add them to the service."""

    @app.get("/namespaces/{publisher}/keys", summary="The key sets of a namespace over time, with their documents")
    def key_sets(publisher: str) -> KeySets:
        found, moments = registry.reader.key_sets(publisher)
        versions = [
            KeySetPage(
                step.key_set.version,
                step.key_set.threshold,
                step.key_set.release_threshold,
                list(step.key_set.keys),
                dict(step.key_set.stolen),
                step.key_set.owner,
                step.recovered,
                moments.get(step.key_set.version),
                step.entry,
            )
            for step in found.steps
        ]
        return KeySets(publisher, versions, json.loads(found.to_bytes()))
