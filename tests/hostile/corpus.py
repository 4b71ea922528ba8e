"""Every hostile guest there is, for tests to judge and for benchmarks to draw noise from."""

from __future__ import annotations

from typing import Any

from kernel.manifest import PluginManifest, manifest_from_dict
from tests.hostile.answering import ANSWERING
from tests.hostile.computing import COMPUTING
from tests.hostile.hosting import HOSTING
from tests.hostile.model import Hostile
from tests.hostile.text import compiled, text

CORPUS: tuple[Hostile, ...] = (*COMPUTING, *ANSWERING, *HOSTING)
GRANTS = frozenset({"log", "config", "kv", "http", "events"})
_WHY = "needed by the tests"


def manifest_of(plugin: str = "acme/hostile", **changes: Any) -> PluginManifest:
    """A manifest that asks for every capability; ``changes`` replace its members."""
    base: dict[str, Any] = {
        "manifest": 1,
        "id": plugin,
        "version": "1.0.0",
        "name": "Hostile",
        "summary": "A hostile guest of the tests",
        "license": "Apache-2.0",
        "hooks": {"user_creating": {}},
        "capabilities": {
            "log": {"why": _WHY},
            "config": {"why": _WHY},
            "kv": {"why": _WHY},
            "http": {"why": _WHY, "hosts": ["api.example.com", "setting:hook_url"], "methods": ["GET", "POST"]},
            "events": {"why": _WHY, "emits": ["lead.scored"]},
        },
        "events": {"declares": [{"type": "lead.scored", "summary": "A lead has a score"}]},
    }
    return manifest_from_dict(base | changes)


def hostile_guests() -> list[tuple[str, bytes, PluginManifest, str]]:
    """(name, component, manifest, payload) of each guest that can be prepared, so of each that makes
    noise when it is called. Compiling the text takes under a second for all."""
    return [
        (h.name, compiled(h.text()), manifest_of(f"acme/{h.name.replace('_', '-')}", limits=dict(h.limits)), h.payload)
        for h in CORPUS
        if h.when == "call"
    ]


def good_guest() -> bytes:
    """A guest that answers its payload."""
    return compiled(text())
