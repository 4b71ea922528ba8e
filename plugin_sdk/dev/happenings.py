"""What happens in the loop, as one kind of value: shown to people by ``view``, to programs as JSON lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kernel.errors import KeelstoneError
from plugin_sdk.dev.frames import frames_of
from plugin_sdk.dev.places import Place, place_at, places_in

Kind = Literal["ready", "changed", "building", "built", "active", "unchanged", "failed", "call", "sent", "tested"]


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened. ``time`` is in seconds since the epoch; ``data`` is JSON-ready."""

    kind: Kind
    data: dict[str, Any]
    time: float = field(default_factory=time.time)

    def line(self) -> dict[str, Any]:
        """As one JSON line says it."""
        return {"event": self.kind, "time": round(self.time, 3), **self.data}


Say = Callable[[Happening], None]


def failure(stage: str, error: KeelstoneError, folder: Path) -> Happening:
    """Something of the author's failed: the problem, and their lines that it points at."""
    problem = error.problem()
    places = places_of(problem, folder)
    return Happening("failed", {"stage": stage, "problem": problem, "places": [p.describe() for p in places]})


def places_of(problem: dict[str, Any], folder: Path, component: bytes | None = None) -> list[Place]:
    """The author's lines behind a problem document: of compilers, of tracebacks, of traps."""
    trap = str(problem.get("trap", ""))
    found = frames_of(trap, folder, component) if trap else []
    for member in ("found", "stderr", "logged", "detail"):
        for place in places_in(str(problem.get(member) or ""), folder):
            if all((place.file, place.line) != (known.file, known.line) for known in found):
                found.append(place)
    file, _, line = str(problem.get("file") or "").rpartition(":")
    if not found and line.isdigit() and (named := place_at(folder, file, int(line))) is not None:
        found.append(named)
    return found
