"""What the kernel needs from the outside. Adapters and other packages implement these Protocols.

One page on purpose, though long: whoever writes an adapter or a fake finds every port in one place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, runtime_checkable

from kernel.context import Context
from kernel.events import Event, NewEvent
from kernel.manifest import PluginManifest

ALL_TENANTS = "*"
"""The scope of platform work (relay, catalog, operators): every tenant and the platform's tables."""


# ---------------------------------------------------------------------------------- storage


@runtime_checkable
class Transaction(Protocol):
    """One open transaction in one scope. Commits when its ``async with`` ends without an error."""

    scope: str

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        """Run a SQLAlchemy Core statement; the tenant's criteria are enforced underneath."""
        ...

    def emit(
        self,
        stream: str,
        *events: NewEvent,
        tenant: str | None = None,
        expected_version: int | None = None,
    ) -> None:
        """Append ``events`` to ``stream`` in this transaction (written at commit, in order).

        ``tenant`` is needed only in the scope ALL_TENANTS. ``expected_version`` is the stream's
        version the caller has seen (0 for a new stream); ConcurrencyConflict is raised at commit
        if it has moved. Without it the events go at the end.
        """
        ...

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once the transaction has been committed."""
        ...


class Database(Protocol):
    """The relational store. ``scope`` is a tenant's id or ALL_TENANTS."""

    dialect: str

    def read(self, scope: str) -> AbstractAsyncContextManager[Transaction]:
        """A transaction that only reads."""
        ...

    def write(self, scope: str, context: Context | None = None) -> AbstractAsyncContextManager[Transaction]:
        """A transaction that may write and emit; ``context`` fills the events' metadata."""
        ...


class EventStore(Protocol):
    """The append-only log that is also the outbox."""

    async def append(
        self, tenant: str, stream: str, events: Sequence[NewEvent], *, expected_version: int | None = None
    ) -> list[Event]:
        """Append outside any transaction; concurrent calls are committed as one group."""
        ...

    async def read_stream(self, tenant: str, stream: str, *, after: int = 0, limit: int = 500) -> list[Event]:
        """Events of one stream with a version above ``after``, in order."""
        ...

    async def read_tenant(
        self, tenant: str, *, after: int = 0, limit: int = 100, types: Sequence[str] = (), newest_first: bool = False
    ) -> list[Event]:
        """Events of one tenant in order of position (``types`` may end in ``.*``)."""
        ...

    async def read_committed(
        self, *, after: tuple[int, int] = (0, 0), limit: int = 500
    ) -> tuple[list[Event], tuple[int, int]]:
        """Events of all tenants after a cursor, never skipping one that commits late; and the new cursor."""
        ...

    async def verify_stream(self, tenant: str, stream: str) -> Event | None:
        """The first event whose hash or link is wrong, or None if the chain is whole."""
        ...


class KvConflict(Exception):
    """A key that a guest read and wrote was changed by somebody else meanwhile."""


@dataclass(frozen=True, slots=True)
class KvValue:
    """A stored value with its version (from 1), which grows by one at each write."""

    value: str
    version: int


class KvReads(Protocol):
    """Guests' durable state, private to (tenant, plugin), as a call may look at it.

    A key whose time is over is absent in every way: it is not read, listed or counted, and the next
    write of it begins at version 1.
    """

    async def get(self, tenant: str, plugin: str, key: str) -> KvValue | None:
        """The value and its version, or None."""
        ...

    async def get_many(self, tenant: str, plugin: str, keys: Sequence[str]) -> dict[str, KvValue]:
        """The values of those keys that there are."""
        ...

    async def list_keys(self, tenant: str, plugin: str, prefix: str, limit: int) -> list[str]:
        """Keys that begin with ``prefix``, in order, at most ``limit``."""
        ...

    async def usage(self, tenant: str, plugin: str) -> tuple[int, int]:
        """Keys and bytes in use."""
        ...


class KvStore(KvReads, Protocol):
    """Guests' durable state, private to (tenant, plugin), and what is saved of it when a call has ended."""

    async def apply(self, transaction: Transaction, tenant: str, plugin: str, effects: Effects) -> None:
        """Save a call's writes. Raises KvConflict if a key read and written has moved."""
        ...

    async def purge(self, transaction: Transaction, plugin: str, tenant: str | None = None) -> int:
        """Delete everything of a plugin (in one tenant, or in all); the number of keys."""
        ...


class BlobStore(Protocol):
    """Content-addressed bytes; keys are SHA-256 hex digests."""

    async def put(self, data: bytes) -> str:
        """Keep the bytes (once, however often they come); their digest."""
        ...

    async def get(self, digest: str) -> bytes | None:
        """The bytes, or None."""
        ...

    async def delete(self, digest: str) -> None:
        """Let the bytes go, if they are there."""
        ...


class KeyProvider(Protocol):
    """Envelope encryption: AES-256-GCM under a key that never leaves the provider."""

    def encrypt(self, plain: bytes, purpose: str) -> str:
        """Cipher text that only the same ``purpose`` opens."""
        ...

    def decrypt(self, cipher: str, purpose: str) -> bytes:
        """The plain bytes. Raises ConfigurationError if the key or the purpose is another."""
        ...


# ---------------------------------------------------------------------------------- bus


@dataclass(frozen=True, slots=True)
class BusMessage:
    """One message: ``key`` orders (tenant/stream), ``id`` identifies, ``value`` is a CloudEvent."""

    key: str
    id: str
    value: bytes


BusHandler = Callable[[BusMessage], Awaitable[None]]


class Subscription(Protocol):
    """A running consumer; close it to stop."""

    async def close(self) -> None:
        """Stop; the message in hand is finished or comes again."""
        ...


class Bus(Protocol):
    """The shared bus. At least once, in order per key."""

    async def start(self) -> None:
        """Connect. Raises BackendUnavailable."""
        ...

    async def close(self) -> None:
        """Let go of the bus."""
        ...

    async def publish(self, messages: Sequence[BusMessage]) -> None:
        """Hand over messages; returns when the bus has them durably. Raises BackendUnavailable."""
        ...

    async def consume(self, group: str, handler: BusHandler) -> Subscription:
        """Share the work of ``group`` with other processes. A message is acknowledged after
        ``handler`` returned; if it raised, the message comes again. A new group begins at the
        oldest message that the bus still has."""
        ...

    async def listen(self, handler: BusHandler) -> Subscription:
        """Get every message from now on, in every process (no acknowledgement, no replay)."""
        ...

    async def ping(self) -> None:
        """Raise BackendUnavailable if the bus does not answer."""
        ...


@runtime_checkable
class VolatileBus(Protocol):
    """A bus that forgets when its process ends. What it has not handled must be published again."""

    async def settled(self) -> None:
        """Return once every message published so far has been handled by every group."""
        ...


# ---------------------------------------------------------------------------------- consumers


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a consumer could not handle, or that waits behind such a one of its sequence."""

    consumer: str
    event: Event
    error: str
    attempts: int
    parked_at: datetime


class ConsumerStore(Protocol):
    """What consumers remember: which events they have handled, and which are parked."""

    async def state(self, consumer: str, event: Event) -> Literal["new", "handled", "parked"]:
        """``parked`` if an event of the same sequence is; ``handled`` wins over it."""
        ...

    async def record(self, transaction: Transaction, consumer: str, event: Event) -> bool:
        """Note in the handler's own transaction that the event is handled; False if it already was."""
        ...

    async def park(
        self, transaction: Transaction, consumer: str, event: Event, error: str, attempts: int, *, behind: bool
    ) -> bool:
        """Park an event; with ``behind`` only if its sequence is parked already. False if it was not."""
        ...

    async def unpark(self, transaction: Transaction, consumer: str, event: Event) -> bool:
        """Take an event out of the dead letters; False if it was not there."""
        ...

    async def note_failure(self, transaction: Transaction, consumer: str, event: Event, error: str) -> None:
        """Note one more failed attempt at a parked event."""
        ...

    async def dead_letters(
        self, tenant: str, *, consumer: str | None = None, stream: str | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        """Parked events in order of consumer, stream and version; ``tenant`` may be ALL_TENANTS."""
        ...


class Checkpoints(Protocol):
    """How far named readers of the event store have come."""

    async def load(self, name: str) -> tuple[int, int]:
        """The cursor, (0, 0) for a new reader."""
        ...

    async def save(self, name: str, cursor: tuple[int, int]) -> None:
        """Note how far the reader has come."""
        ...


class Leases(Protocol):
    """Work that one process at a time should do."""

    async def acquire(self, name: str, holder: str, seconds: float) -> bool:
        """Take or renew the lease; False while somebody else has it."""
        ...

    async def release(self, name: str, holder: str) -> None:
        """Give it up, so that others need not wait until it ends."""
        ...


class ProjectionStore(Protocol):
    """Where projections are rebuilt beside the live ones. Tables are SQLAlchemy ``Table``s."""

    async def share(self, transaction: Transaction, name: str) -> None:
        """Let live events be applied while no swap of this projection is under way; waits for one."""
        ...

    async def make_shadows(self, tables: Sequence[Any]) -> dict[str, Any]:
        """Empty tables of the same columns, by the live tables' names. What an earlier try left goes."""
        ...

    async def drop_shadows(self, tables: Sequence[Any]) -> None:
        """Take the shadow tables away again."""
        ...

    def scoped(self, transaction: Transaction, tenant: str) -> Transaction:
        """The same transaction, in one tenant's scope."""
        ...

    def swap(self, name: str) -> AbstractAsyncContextManager[Transaction]:
        """A transaction over all tenants during which no live event of the projection is applied."""
        ...

    async def replace(self, transaction: Transaction, tables: Sequence[Any], shadows: Mapping[str, Any]) -> None:
        """Put the shadows' rows in the place of the live ones."""
        ...

    async def settle(
        self, transaction: Transaction, name: str, consumer: str, types: Sequence[str], through: tuple[int, int]
    ) -> None:
        """Count every event up to a cursor as handled by the consumer, and forget its dead letters."""
        ...


# ---------------------------------------------------------------------------------- guests

# What is made for every call is not frozen: setting frozen fields one by one takes longer than short
# guests do. Nobody changes them all the same.


@dataclass(slots=True)
class GuestCall:
    """One call into a guest. ``payload`` is JSON text; ``digest`` the component's SHA-256."""

    plugin: str
    version: str
    digest: str
    manifest: PluginManifest
    hook: str
    payload: str
    context: Context
    grants: frozenset[str] = frozenset()
    settings: Mapping[str, Any] = field(default_factory=dict)
    replay: Replay | None = None


@dataclass(frozen=True, slots=True)
class HostExchange:
    """One host call as it was answered. ``function`` is ``kv.get`` or ``wasi:random/random.get-random-u64``;
    ``arguments`` and ``answer`` are JSON-ready; ``failed`` says that the answer is the failure's code and message."""

    function: str
    arguments: tuple[Any, ...]
    answer: Any
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Replay:
    """Answers to give instead of asking the outside.

    ``strict`` wants the same host calls in the same order and gives each its recorded answer, clocks
    and random included. Otherwise (a mirrored call) only what leaves the platform is answered from
    the recording, by function and arguments; what is not in it is answered ``unavailable``. Stored
    values that it has read are found as they were then, for the call itself may have been saved since;
    everything else is asked for real.
    """

    exchanges: tuple[HostExchange, ...]
    strict: bool = True


@dataclass(slots=True)
class Effects:
    """What a call wants saved. Applied together, and only if the call succeeded.

    ``kv_writes`` maps keys to values (None deletes); ``kv_reads`` maps keys that were read to the
    version seen (0 if absent); ``kv_ttl`` maps written keys to the seconds after which they are gone.
    """

    kv_writes: dict[str, str | None] = field(default_factory=dict)
    kv_reads: dict[str, int] = field(default_factory=dict)
    events: list[NewEvent] = field(default_factory=list)
    kv_ttl: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.kv_writes or self.events)


@dataclass(slots=True)
class GuestUsage:
    """What a call used. Times in microseconds, memory in bytes.

    ``fuel`` is in WebAssembly instructions, roughly, where they are counted; 0 where they are not. ``uses`` counts what
    it asked of the host, as narrowly as a manifest can name it: ``kv.get``,
    ``http.send GET api.example.com``, ``events.emit lead.scored``, ``secrets.use crm_token``.
    """

    wall_us: int
    memory_bytes: int
    host_calls: int
    http_bytes: int
    cpu_us: int = 0
    kv_bytes: int = 0
    ai_tokens: int = 0
    uses: Mapping[str, int] = field(default_factory=dict)
    fuel: int = 0


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a guest wrote."""

    level: Literal["debug", "info", "warn", "error"]
    message: str


@dataclass(slots=True)
class GuestResult:
    """A guest's answer (JSON text) with its effects, still unsaved."""

    output: str
    effects: Effects
    usage: GuestUsage
    logs: tuple[LogLine, ...] = ()
    recording: tuple[HostExchange, ...] = ()


class GuestRuntime(Protocol):
    """The WebAssembly host."""

    async def prepare(self, digest: str, component: bytes, manifest: PluginManifest) -> None:
        """Compile (once, in a separate process) and check the component. Raises SandboxError."""
        ...

    def prepared(self, digest: str) -> bool:
        """Whether the compiled artifact is at hand."""
        ...

    async def call(self, call: GuestCall) -> GuestResult:
        """Run one call in a fresh instance. Raises SandboxError's subclasses: never a bare trap."""
        ...

    async def forget(self, digest: str) -> None:
        """Delete the compiled artifact."""
        ...

    async def close(self) -> None:
        """End calls under way and let go of the engine."""
        ...


class SecretSource(Protocol):
    """Secrets that admins keep for plugins (the plugin ``catalog``)."""

    async def secrets(self, tenant: str, plugin: str) -> Mapping[str, str]:
        """The values by name, of those that were entered. Only the gate of host calls asks."""
        ...


class TenantPlans(Protocol):
    """Which plan a tenant is on (the plugin ``tenants``)."""

    async def plan(self, tenant: str) -> str | None:
        """The plan's name, or None if there is no such tenant."""
        ...


@dataclass(frozen=True, slots=True)
class AiRequest:
    """What a guest asks of a model. ``model`` is a model or a kind of models, by the provider's names;
    ``max_tokens`` bounds the answer."""

    tenant: str
    plugin: str
    model: str
    text: str
    system: str | None = None
    max_tokens: int = 256


@dataclass(frozen=True, slots=True)
class AiAnswer:
    """What a model said. ``tokens`` counts both ways."""

    text: str
    model: str
    tokens: int


class AiModels(Protocol):
    """Language models (the plugin ``ai``)."""

    async def complete(self, request: AiRequest) -> AiAnswer:
        """The answer. Raises NotFound for an unknown model, Rejected, BackendUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Notice:
    """A message to a person. ``recipient`` is an address of the channel, or a user's id."""

    tenant: str
    plugin: str
    channel: str
    recipient: str
    subject: str
    body: str


class Notifier(Protocol):
    """Delivers messages to people (the plugin ``notifications``)."""

    async def notify(self, notice: Notice) -> str:
        """Accept a message for delivery; its id. Raises NotFound for an unknown channel, Rejected,
        ValidationFailed, BackendUnavailable."""
        ...


class ServiceCalls(Protocol):
    """What built-in plugins and extensions offer to guests (hook ``contribute_services``)."""

    async def call(self, context: Context, plugin: str, method: str, payload: str) -> str:
        """The method's answer as JSON, in the context's tenant.

        Raises ServiceMissing, ValidationFailed, or what the method raises.
        """
        ...


# ---------------------------------------------------------------------------------- breakers


@dataclass(frozen=True, slots=True)
class BreakerRecord:
    """The breaker of one implementation for one tenant. Times are seconds, moments seconds since the epoch.

    ``openings`` counts how often it opened since it was last closed, ``wait`` is the rest it takes now,
    ``until`` the moment from which a probe may go, ``since`` the moment of the first opening.
    """

    plugin: str
    version: str
    tenant: str
    hook: str
    state: Literal["closed", "open", "half_open"]
    failures: int = 0
    openings: int = 0
    wait: float = 0.0
    until: float = 0.0
    since: float = 0.0
    error: str = ""


class BreakerStore(Protocol):
    """Keeps open breakers, so that a restart does not let a failing plugin loose on its tenants again."""

    async def load(self) -> list[BreakerRecord]:
        """Every breaker that is kept."""
        ...

    async def save(self, records: Sequence[BreakerRecord]) -> None:
        """Keep the open ones and forget the closed ones among ``records``."""
        ...


# ---------------------------------------------------------------------------------- activation


@dataclass(frozen=True, slots=True)
class UpgradeRecord:
    """Another version of an active plugin, on trial in the same tenant.

    ``shadow``: it gets mirrored calls whose effects nobody saves. ``canary``: it answers. ``calls`` is the
    percentage of the tenant's calls that take part, chosen by correlation id.
    """

    id: str
    version: str
    mode: Literal["shadow", "canary"]
    calls: float = 100
    grants: frozenset[str] = frozenset()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActivationRecord:
    """One plugin version switched on for one tenant, with what its admin granted and set."""

    tenant: str
    plugin: str
    version: str
    grants: frozenset[str] = frozenset()
    settings: Mapping[str, Any] = field(default_factory=dict)
    upgrade: UpgradeRecord | None = None


class ActivationSource(Protocol):
    """Where activations are stored (the plugin ``catalog``)."""

    async def load_all(self) -> list[ActivationRecord]:
        """What is on, for every tenant."""
        ...

    async def load_tenant(self, tenant: str) -> list[ActivationRecord]:
        """What is on for one tenant."""
        ...

    async def load_guest(self, plugin: str, version: str) -> GuestRelease | None:
        """The installed release, or None."""
        ...


@dataclass(frozen=True, slots=True)
class GuestRelease:
    """An installed guest: what the dispatcher needs to call it. ``withdrawn`` says why it may not be."""

    manifest: PluginManifest
    digest: str
    withdrawn: str = ""


class Clock(Protocol):
    """Time, replaceable in tests."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        ...
