"""What crosses between the platform and its guest process: frames of JSON, each one message of a known kind.

A frame is its length in four bytes, most significant first, and so many bytes of JSON: an object whose ``kind`` names
one of the classes here. Times are seconds unless a name says otherwise; bytes are base64.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from kernel.errors import BulkheadFull, KeelstoneError
from kernel.ports import GuestResult, GuestUsage, HostExchange, LogLine, Replay
from sandbox.errors import SandboxError
from sandbox.policy import EffectiveLimits, Pace

MOST_BYTES: Final = 64 << 20
"""Of one frame: far more than any call's limits let through."""


class Garbled(Exception):
    """What came is not a message."""


# ---------------------------------------------------------------------------------- to the process


@dataclass(frozen=True, slots=True)
class Begin:
    """The first message: the engines to make and where the compiled components lie."""

    artifacts: str
    slots: int
    memory_mb: int
    threads: int
    lane: str | None
    metering: Literal["no", "some", "all"]
    kind: Literal["begin"] = "begin"


@dataclass(frozen=True, slots=True)
class Know:
    """A manifest, by the number that calls will name it with."""

    number: int
    manifest: dict[str, Any]
    kind: Literal["know"] = "know"


@dataclass(frozen=True, slots=True)
class Run:
    """One call. ``seconds`` are left of its request; ``offers`` are what can be asked for, ``schemas`` those of the
    event types that it may emit."""

    call: int
    manifest: int
    digest: str
    hook: str
    payload: str
    tenant: str
    seconds: float | None
    grants: tuple[str, ...]
    settings: dict[str, Any]
    replay: Replay | None
    limits: EffectiveLimits
    pace: Pace
    offers: tuple[str, ...]
    schemas: dict[str, dict[str, Any]]
    kind: Literal["run"] = "run"


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nobody waits for the call any more."""

    call: int
    kind: Literal["give-up"] = "give-up"


@dataclass(frozen=True, slots=True)
class Forget:
    """The component is not wanted any more."""

    digest: str
    kind: Literal["forget"] = "forget"


@dataclass(frozen=True, slots=True)
class Taken:
    """What was asked for is being seen to. How busy the platform was before is not the guest's time."""

    ask: int
    kind: Literal["taken"] = "taken"


@dataclass(frozen=True, slots=True)
class Told:
    """The answer to what was asked for, or the failure's code and message."""

    ask: int
    value: Any = None
    failed: tuple[str, str] | None = None
    kind: Literal["told"] = "told"


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there? A process that can still read answers at once."""

    kind: Literal["ping"] = "ping"


# ---------------------------------------------------------------------------------- from the process


@dataclass(frozen=True, slots=True)
class Ready:
    """The engines are made."""

    kind: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping."""

    kind: Literal["pong"] = "pong"


@dataclass(frozen=True, slots=True)
class Done:
    """The call ended well."""

    call: int
    result: GuestResult
    flooded: bool = False
    kind: Literal["done"] = "done"


@dataclass(frozen=True, slots=True)
class Problem:
    """An error of :mod:`sandbox.errors`, or BulkheadFull, by its code."""

    code: str
    detail: str
    expected: str | int | float | None = None
    found: str | int | float | None = None
    fix: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """The call ended badly."""

    call: int
    problem: Problem
    usage: GuestUsage | None = None
    recording: tuple[HostExchange, ...] = ()
    logs: tuple[LogLine, ...] = ()
    flooded: bool = False
    kind: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class KvGet:
    """Stored values by their keys."""

    keys: tuple[str, ...]
    what: Literal["kv.get"] = "kv.get"


@dataclass(frozen=True, slots=True)
class KvList:
    """Stored keys that begin with ``prefix``."""

    prefix: str
    limit: int
    what: Literal["kv.list"] = "kv.list"


@dataclass(frozen=True, slots=True)
class KvUsage:
    """Keys and bytes in use."""

    what: Literal["kv.usage"] = "kv.usage"


@dataclass(frozen=True, slots=True)
class Secrets:
    """What stands for each secret that was entered, by name."""

    what: Literal["secrets"] = "secrets"


@dataclass(frozen=True, slots=True)
class Send:
    """A request. ``secrets`` are names of secrets with the placeholders that stand for them in it."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: str
    secrets: tuple[tuple[str, str], ...]
    budget: int
    seconds: float
    what: Literal["http"] = "http"


@dataclass(frozen=True, slots=True)
class Complete:
    """A prompt for a language model."""

    model: str
    text: str
    system: str | None
    max_tokens: int
    what: Literal["ai"] = "ai"


@dataclass(frozen=True, slots=True)
class Notify:
    """A message to a person."""

    channel: str
    recipient: str
    subject: str
    body: str
    what: Literal["notify"] = "notify"


@dataclass(frozen=True, slots=True)
class CallService:
    """A call of another plugin's method."""

    plugin: str
    method: str
    payload: str
    seconds: float
    what: Literal["services"] = "services"


Wanted = KvGet | KvList | KvUsage | Secrets | Send | Complete | Notify | CallService
"""What the outside is asked for."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Something that ``call`` needs from outside; the answer names ``ask``."""

    call: int
    ask: int
    wanted: Annotated[Wanted, Field(discriminator="what")]
    kind: Literal["ask"] = "ask"


@dataclass(frozen=True, slots=True)
class Drop:
    """Nobody waits for that answer any more."""

    ask: int
    kind: Literal["drop"] = "drop"


@dataclass(frozen=True, slots=True)
class Sent:
    """What a request came to: the answer, or why there is none; what it used and where it went in either case."""

    count: int
    visits: tuple[tuple[str, str], ...] = ()
    used: tuple[str, ...] = ()
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""
    refused: tuple[str, str] | None = None


# ---------------------------------------------------------------------------------- frames

Downward = Begin | Know | Run | GiveUp | Forget | Taken | Told | Ping
Upward = Ready | Pong | Done | Failed | Ask | Drop
DOWNWARD: TypeAdapter[Downward] = TypeAdapter(Annotated[Downward, Field(discriminator="kind")])
UPWARD: TypeAdapter[Upward] = TypeAdapter(Annotated[Upward, Field(discriminator="kind")])


def frame(message: Downward | Upward) -> bytes:
    """The message as it is sent."""
    body = orjson.dumps(message, default=_plain)
    return len(body).to_bytes(4, "big") + body


def _plain(value: Any) -> Any:
    # Mappings that are no dict, and sets.
    return dict(value) if hasattr(value, "keys") else list(value)


async def receive(reader: asyncio.StreamReader) -> bytes | None:
    """The next frame's body, or None where the other side has ended. Raises Garbled."""
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > MOST_BYTES:
            raise Garbled(f"a frame of {size} bytes, {MOST_BYTES} allowed")
        return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def upward(body: bytes) -> Upward:
    """A message from the process. Raises Garbled."""
    try:
        return UPWARD.validate_json(body)
    except ValidationError as error:
        raise Garbled(f"no message: {error.errors(include_url=False, include_input=False)[:3]}") from None


# ---------------------------------------------------------------------------------- errors


def problem_of(error: KeelstoneError) -> Problem:
    """The error as it crosses."""

    def plain(value: object) -> str | int | float | None:
        return value if value is None or isinstance(value, (str, int, float)) else str(value)

    return Problem(error.code, error.detail, plain(error.expected), plain(error.found), error.fix, error.extra)


def error_of(problem: Problem, plugin: str, hook: str, tenant: str) -> SandboxError | BulkheadFull:
    """The error that it was; the place is the receiver's to say."""
    return _errors().get(problem.code, SandboxError)(
        problem.detail,
        plugin=plugin,
        hook=hook,
        tenant=tenant,
        expected=problem.expected,
        found=problem.found,
        fix=problem.fix,
        extra=problem.extra,
    )


@cache
def _errors() -> dict[str, type[SandboxError] | type[BulkheadFull]]:
    kinds: list[type[SandboxError] | type[BulkheadFull]] = [SandboxError, BulkheadFull]
    kinds.extend(SandboxError.__subclasses__())
    return {kind.code: kind for kind in kinds}
