"""``keelstone plugin replay``: a recorded call once more, in the real sandbox, with the recorded answers.

Clocks, random numbers and every host call answer as they did, so the same component does the same,
byte for byte. What differs is told: the first host call that was another, or the outcome.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel.context import Context, new_id
from kernel.discovery import GUEST_RUNTIME, load_entry_point
from kernel.errors import KeelstoneError, NotFound
from kernel.manifest import Limits, PluginManifest, load_manifest
from kernel.ports import GuestCall, GuestResult, GuestRuntime, LogLine
from kernel.settings import Settings
from plugin_sdk.dev.happenings import places_of
from plugin_sdk.recordings import RecordedOutcome, Recording, outcome_of
from plugin_sdk.testing.fakes import FakeKv
from plugin_sdk.toolchain.builder import BUILD, built_component

DIVERGED = "replay-diverged"
_PATIENCE = 10
_LATE = "guest-time-limit"


@dataclass(frozen=True, slots=True)
class Source:
    """What is replayed: a component with its manifest, and the plugin's folder if it came from there."""

    manifest: PluginManifest
    component: bytes
    folder: Path | None
    origin: str


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that came out otherwise; ``what`` is ``code``, ``output``, ``host call 3``, ``trap`` or ``failure``."""

    what: str
    recorded: Any
    replayed: Any


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to. ``places`` are the author's lines in what went wrong, if the folder is at hand."""

    recording: Recording
    outcome: RecordedOutcome
    differences: tuple[Difference, ...]
    exchanges: int
    logs: tuple[LogLine, ...]
    places: tuple[dict[str, Any], ...]
    origin: str

    @property
    def same(self) -> bool:
        """Whether the call did byte for byte what was recorded."""
        return not self.differences

    def describe(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "same": self.same,
            "plugin": self.recording.plugin,
            "version": self.recording.version,
            "hook": self.recording.hook,
            "component": self.origin,
            "outcome": self.outcome.model_dump(exclude_none=True),
            "host_calls": self.exchanges,
            "differences": [{"what": d.what, "recorded": d.recorded, "replayed": d.replayed} for d in self.differences],
            "logs": [{"level": line.level, "message": line.message} for line in self.logs],
            "places": list(self.places),
        }


def source_in(folder: Path, recording: Recording, *, anyway: bool = False) -> Source | None:
    """The build in ``folder``, if it is the very component that was recorded (or, ``anyway``, of that plugin)."""
    try:
        manifest = load_manifest(folder)
        component = built_component(folder, manifest).read_bytes()
    except (KeelstoneError, OSError):
        return None
    same = hashlib.sha256(component).hexdigest() == recording.digest
    if not same and not (anyway and manifest.id == recording.plugin):
        return None
    return Source(
        manifest, component, folder.resolve(), f"{folder} ({'the recorded build' if same else 'another build'})"
    )


def no_source(recording: Recording, folder: Path) -> NotFound:
    """Neither the folder nor the marketplace has what was recorded."""
    return NotFound(
        f"The component that was recorded is not here: {recording.plugin} {recording.version}.",
        plugin=recording.plugin,
        file=str(folder),
        expected=f"sha256 {recording.digest}",
        fix="Check out that version and build it, or replay what is built now with --anyway.",
    )


async def replay(recording: Recording, source: Source) -> Replayed:
    """Run the recorded call in the sandbox. Raises SandboxError if the component cannot be prepared."""
    digest = hashlib.sha256(source.component).hexdigest()
    limits = Limits.model_validate(recording.limits or source.manifest.limits.model_dump())
    if recording.outcome.code != _LATE:
        # This machine may be slower than the one that recorded; only a call that was late must be so again.
        limits = limits.model_copy(update={"time_ms": min(limits.time_ms * _PATIENCE, 60_000)})
    manifest = source.manifest.model_copy(update={"limits": limits})
    call = GuestCall(
        plugin=recording.plugin,
        version=recording.version,
        digest=digest,
        manifest=manifest,
        hook=recording.hook,
        payload=recording.payload,
        context=Context(tenant=recording.tenant, correlation_id=recording.correlation_id or new_id()),
        grants=frozenset(recording.grants),
        settings=recording.settings,
        replay=recording.replay(),
    )
    logs: list[LogLine] = []
    with tempfile.TemporaryDirectory(prefix="keelstone-replay-") as scratch:
        # Artifacts of a plugin's own folder are kept: CPython takes ten seconds to compile.
        home = Path(scratch) if source.folder is None else source.folder / BUILD / "sandbox"
        settings = Settings(
            home=home,
            sandbox_slots=8,
            sandbox_threads=1,
            sandbox_in_place=False,
            sandbox_max_time_ms=limits.time_ms,
            sandbox_max_memory_mb=max(limits.memory_mb, 1),
        )
        runtime: GuestRuntime = load_entry_point(GUEST_RUNTIME, "wasmtime")(
            settings, kv=FakeKv(), log=lambda _call, line: logs.append(line)
        )
        try:
            await runtime.prepare(digest, source.component, manifest)
            came_to = await _run(runtime, call)
        finally:
            await runtime.close()
    return _compared(recording, source, came_to, tuple(logs))


async def _run(runtime: GuestRuntime, call: GuestCall) -> GuestResult | KeelstoneError:
    try:
        return await runtime.call(call)
    except KeelstoneError as error:
        return error


def _compared(
    recording: Recording, source: Source, came_to: GuestResult | KeelstoneError, logs: tuple[LogLine, ...]
) -> Replayed:
    outcome, before = outcome_of(came_to), recording.outcome
    made = tuple(getattr(came_to, "recording", ()))
    found: list[Difference] = []
    if outcome.code == DIVERGED and isinstance(came_to, KeelstoneError):
        position = int(came_to.extra.get("position", len(made)))
        found.append(Difference(f"host call {position + 1}", came_to.expected, came_to.found))
    else:
        if outcome.code != before.code:
            found.append(Difference("code", before.code, outcome.code))
        if outcome.output != before.output:
            found.append(Difference("output", before.output, outcome.output))
        if outcome.code == before.code == "guest-error" and outcome.detail != before.detail:
            found.append(Difference("failure", before.detail, outcome.detail))
        if len(made) < len(recording.exchanges):
            missing = recording.exchanges[len(made)]
            found.append(Difference(f"host call {len(made) + 1}", f"{missing.function}{list(missing.arguments)}", None))
    places: tuple[dict[str, Any], ...] = ()
    if isinstance(came_to, KeelstoneError) and source.folder is not None:
        said = "\n".join(line.message for line in logs)
        problem = {**came_to.problem(), "logged": said}
        places = tuple(place.describe() for place in places_of(problem, source.folder, source.component))
    return Replayed(recording, outcome, tuple(found), len(made), logs, places, source.origin)
