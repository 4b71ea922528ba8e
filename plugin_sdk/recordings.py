"""A failed call, kept in a file so that its author can run it again: what ``keelstone recordings get``
writes and ``keelstone plugin replay`` reads.

The file is one JSON object. ``payload`` is the very text that the guest was given; ``exchanges`` are
its host calls in order, each with the answer it got, clocks and random included.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kernel.errors import ValidationFailed
from kernel.files import write_durably
from kernel.hookspecs import HOOKS
from kernel.ports import GuestCall, GuestResult, HostExchange, Replay

FORMAT: Literal[1] = 1
MAX_FILE_BYTES = 64 << 20


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecordedExchange(_Record):
    """One host call as it was answered (``kernel.ports.HostExchange``)."""

    function: str
    """``kv.get``, or ``wasi:random/random.get-random-u64``."""
    arguments: tuple[Any, ...] = ()
    """What the guest gave."""
    answer: Any = None
    """What the host answered; code and message if it ``failed``."""
    failed: bool = False
    """Whether the answer was a failure."""


class RecordedOutcome(_Record):
    """What the call came to. ``code`` is ``ok``, or the error's."""

    code: str
    """The error's code."""
    detail: str = ""
    """What it said."""
    output: str | None = None
    """The answer that the guest gave, if it came to one."""
    trap: str | None = None
    """WebAssembly's own words, if the guest trapped."""


class Recording(_Record):
    """One recorded call. ``tenant`` is opaque: nobody's name.

    ``masked`` names the places whose values were replaced by others of the same shape (see
    ``docs/explanation/metering.md``); replaced values are replaced alike everywhere in the file.
    """

    format: Literal[1] = FORMAT
    """Version of this format."""
    plugin: str
    """The plugin's id."""
    version: str
    """The release that was called."""
    digest: str
    """SHA-256 of its component, in hex."""
    hook: str
    """The hook that was called."""
    payload: str
    """The payload, JSON text as the guest got it."""
    settings: dict[str, Any] = {}
    """The tenant's settings of the plugin, secrets masked."""
    grants: tuple[str, ...] = ()
    """The capabilities that the tenant had granted."""
    limits: dict[str, Any] = {}
    """The manifest's limits."""
    tenant: str = "tenant"
    """A pseudonym of the tenant."""
    correlation_id: str = ""
    """Id of the work that the call belonged to."""
    recorded_at: str = ""
    """When, ISO 8601."""
    exchanges: tuple[RecordedExchange, ...] = ()
    """The host calls, in order."""
    outcome: RecordedOutcome = Field(default_factory=lambda: RecordedOutcome(code="ok"))
    """What the call came to."""
    masked: tuple[str, ...] = ()
    """Places whose values were replaced."""

    def replay(self) -> Replay:
        """The recorded answers, to be given to a call in the same order."""
        answers = (HostExchange(e.function, e.arguments, e.answer, e.failed) for e in self.exchanges)
        return Replay(tuple(answers), strict=True)

    def text(self) -> str:
        """The file's content."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False, indent=2) + "\n"


def record(
    call: GuestCall,
    result: GuestResult | Exception,
    *,
    tenant: str = "tenant",
    recorded_at: str = "",
) -> Recording:
    """What there is to keep of a call, nothing masked yet. ``result`` may be the error that it came to."""
    exchanges = tuple(
        RecordedExchange(function=e.function, arguments=e.arguments, answer=e.answer, failed=e.failed)
        for e in getattr(result, "recording", ())
    )
    return Recording(
        plugin=call.plugin,
        version=call.version,
        digest=call.digest,
        hook=call.hook,
        payload=call.payload,
        settings=dict(call.settings),
        grants=tuple(sorted(call.grants)),
        limits=call.manifest.limits.model_dump(),
        tenant=tenant,
        correlation_id=call.context.correlation_id,
        recorded_at=recorded_at,
        exchanges=exchanges,
        outcome=outcome_of(result),
    )


def outcome_of(result: GuestResult | Exception) -> RecordedOutcome:
    """What a call came to, as a recording tells it."""
    if isinstance(result, GuestResult):
        return RecordedOutcome(code="ok", output=result.output)
    extra: dict[str, Any] = getattr(result, "extra", {})
    trap, output = extra.get("trap"), extra.get("output")
    return RecordedOutcome(
        code=getattr(result, "code", "internal"),
        detail=getattr(result, "detail", str(result)),
        output=None if output is None else str(output),
        trap=None if trap is None else str(trap),
    )


def personal_fields(hook: str) -> frozenset[str]:
    """The fields of a hook's payload that are declared personal (``x-personal`` in their schema)."""
    spec = HOOKS.get(hook)
    if spec is None or spec.payload is None:
        return frozenset()
    marks = {name: field.json_schema_extra for name, field in spec.payload.model_fields.items()}
    return frozenset(name for name, mark in marks.items() if isinstance(mark, dict) and mark.get("x-personal"))


def parse_recording(text: str | bytes, *, file: str | None = None) -> Recording:
    """The recording in ``text``. Raises ValidationFailed, naming the place that does not fit."""
    try:
        return Recording.model_validate_json(text)
    except ValidationError as error:
        found = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors(include_url=False)]
        raise ValidationFailed(
            f"That is not a recording: {'; '.join(found[:5])}.",
            file=file,
            expected=f"a recording of format {FORMAT}, as `keelstone recordings get` writes it",
            found=found[0][:200],
        ) from error


def read_recording(path: Path) -> Recording:
    """The recording in a file. Raises ValidationFailed if there is none, or it is too large."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ValidationFailed(
                "The recording is too large.", file=str(path), expected=f"at most {MAX_FILE_BYTES} bytes", found=size
            )
        data = path.read_bytes()
    except OSError as error:
        raise ValidationFailed("The recording can't be read.", file=str(path), found=str(error)) from error
    return parse_recording(data, file=str(path))


def write_recording(path: Path, recording: Recording) -> None:
    """Write the file, readable by its owner only: even masked, it is somebody's data."""
    write_durably(path, recording.text().encode())
