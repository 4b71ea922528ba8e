"""Consumers: handlers of events that run effectively once, in order, and park what they cannot do.

The bus delivers at least once. Each (consumer, event id) is written to a ledger in the handler's own
transaction, so a second delivery finds it there and is skipped, and two deliveries at the same time end
with one commit. An event that keeps failing is parked as a dead letter, and with it every later event of
its sequence (tenant and stream), so that order holds; releasing it releases the sequence, in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import orjson

from kernel.causation import use_cause
from kernel.context import Context, system_context, use_context
from kernel.errors import BackendUnavailable, EventChainTooLong, NotFound
from kernel.events import Event, NewEvent, from_cloudevent, matches
from kernel.ports import ALL_TENANTS, Bus, BusMessage, ConsumerStore, Database, DeadLetter, Subscription, Transaction
from kernel.resilience import Backoff

_log = logging.getLogger(__name__)

Handle = Callable[[Event, Transaction], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class EventHandler:
    """A named reader of events.

    ``types`` are event types, or patterns such as ``user.*``. ``handle`` gets the event and a
    transaction in the event's tenant, which opens at its first use: slow work done before that (a call
    into a sandbox, HTTP) holds no lock. ``replayable`` is False for handlers with effects outside the
    database, which must not happen again when history is read anew. ``max_hops`` is how far down a
    chain of consequences an event may be; one beyond is parked unhandled, so that cycles end.
    """

    consumer: str
    types: tuple[str, ...]
    handle: Handle
    replayable: bool = True
    max_hops: int | None = None

    def takes(self, event: Event) -> bool:
        """Whether the event is of one of the types."""
        return any(matches(pattern, event.type) for pattern in self.types)


@dataclass(frozen=True, slots=True)
class RetryPolicy(Backoff):
    """How often a failing handler is tried before the event is parked, and the pauses between."""

    first: float = 0.1
    most: float = 5.0
    attempts: int = 4


class LazyTransaction:
    """A write transaction that opens at its first use (``kernel.ports.Transaction``)."""

    def __init__(self, database: Database, scope: str, context: Context) -> None:
        self.scope = scope
        self._database = database
        self._context = context
        self._stack = AsyncExitStack()
        self._open: Transaction | None = None
        self._waiting: list[Callable[[Transaction], None]] = []

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        """Run a statement, opening the transaction if need be."""
        return await (await self.opened()).execute(statement, parameters)

    def emit(
        self, stream: str, *events: NewEvent, tenant: str | None = None, expected_version: int | None = None
    ) -> None:
        """Append events at commit."""
        self._when_open(lambda t: t.emit(stream, *events, tenant=tenant, expected_version=expected_version))

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once committed."""
        self._when_open(lambda t: t.after_commit(callback))

    async def opened(self) -> Transaction:
        """The transaction itself, open."""
        if self._open is None:
            self._open = await self._stack.enter_async_context(self._database.write(self.scope, self._context))
            for act in self._waiting:
                act(self._open)
        return self._open

    async def __aenter__(self) -> LazyTransaction:
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    def _when_open(self, act: Callable[[Transaction], None]) -> None:
        if self._open is not None:
            act(self._open)
        else:
            self._waiting.append(act)


class _AlreadyHandled(Exception):
    """Somebody else committed the same event first: roll back."""


class ConsumerRunner:
    """Takes events from the bus and runs the handlers that want them.

    ``handlers`` are fixed; ``dynamic`` gives further ones for an event (guests that its tenant has
    switched on, named ``plugin:<id>``). Processes with the same ``group`` share the work. Different
    consumers of one event run side by side and can't harm each other.
    """

    def __init__(
        self,
        database: Database,
        store: ConsumerStore,
        *,
        group: str = "handlers",
        handlers: Sequence[EventHandler] = (),
        dynamic: Callable[[Event], Sequence[EventHandler]] | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        self.group = group
        self._database = database
        self._store = store
        self._handlers = tuple(handlers)
        self._dynamic = dynamic
        self._policy = policy or RetryPolicy()
        self._subscription: Subscription | None = None
        names = [handler.consumer for handler in self._handlers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"Two consumers have one name, so one would skip what the other did: {', '.join(twice)}")

    async def start(self, bus: Bus) -> None:
        """Begin to take events."""
        self._subscription = await bus.consume(self.group, self.receive)

    async def close(self) -> None:
        """Stop; events under way come again later."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.close()

    def handlers_for(self, event: Event) -> list[EventHandler]:
        """The handlers that want the event."""
        found = [handler for handler in self._handlers if handler.takes(event)]
        if self._dynamic is not None:
            found += [handler for handler in self._dynamic(event) if handler.takes(event)]
        return found

    async def receive(self, message: BusMessage) -> None:
        """Handle one message of the bus; returns once each handler has handled or parked the event."""
        try:
            event = from_cloudevent(orjson.loads(message.value))
        except Exception:
            # Nothing of ours, and it would come again for ever: say so and let it go.
            _log.exception("Message %s of %s is not an event of this platform.", message.id, message.key)
            return
        await self.deliver(event)

    async def deliver(self, event: Event) -> None:
        """Run every handler that wants the event. Raises BackendUnavailable if the database is away."""
        handlers = self.handlers_for(event)
        if len(handlers) == 1:
            await self._run(handlers[0], event)
        elif handlers:
            results = await asyncio.gather(*(self._run(h, event) for h in handlers), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def handle_once(self, handler: EventHandler, event: Event, *, parked: bool = False) -> None:
        """One attempt: handler, ledger and, if ``parked``, leaving the dead letters, in one commit."""
        context = system_context(event.tenant, event.correlation_id or None)
        with use_context(context), use_cause(event.id, event.hops):
            try:
                async with LazyTransaction(self._database, event.tenant, context) as lazy:
                    await handler.handle(event, lazy)
                    transaction = await lazy.opened()
                    if not await self._store.record(transaction, handler.consumer, event):
                        raise _AlreadyHandled
                    if parked:
                        await self._store.unpark(transaction, handler.consumer, event)
            except _AlreadyHandled:
                if parked:
                    async with self._database.write(event.tenant, context) as transaction:
                        await self._store.unpark(transaction, handler.consumer, event)

    async def _run(self, handler: EventHandler, event: Event) -> None:
        state = await self._store.state(handler.consumer, event)
        if state == "handled":
            return
        if state == "parked" and await self._park(handler, event, "waits behind an earlier event", 0, behind=True):
            return
        if handler.max_hops is not None and event.hops > handler.max_hops:
            await self._park(handler, event, describe(_too_far(handler, event)), 0, behind=False)
            return
        attempt = 0
        while True:
            attempt += 1
            try:
                await self.handle_once(handler, event)
                return
            except BackendUnavailable:
                # Not the event's fault: let the bus bring it again.
                raise
            except Exception as error:
                if attempt >= self._policy.attempts:
                    _log.exception("Consumer %s parks event %s (%s).", handler.consumer, event.id, event.type)
                    await self._park(handler, event, describe(error), attempt, behind=False)
                    return
                if await self._store.state(handler.consumer, event) == "handled":
                    return
                await asyncio.sleep(self._policy.pause(attempt))

    async def _park(self, handler: EventHandler, event: Event, error: str, attempts: int, *, behind: bool) -> bool:
        async with self._database.write(event.tenant) as transaction:
            return await self._store.park(transaction, handler.consumer, event, error, attempts, behind=behind)


class DeadLetters:
    """What consumers could not do, for operators and admins: look, try again, or let go."""

    def __init__(self, database: Database, store: ConsumerStore, runners: Sequence[ConsumerRunner]) -> None:
        self._database = database
        self._store = store
        self._runners = tuple(runners)

    async def list(
        self, tenant: str = ALL_TENANTS, *, consumer: str | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        """Parked events by consumer, stream and version. ``attempts`` is 0 for one that only waits."""
        return await self._store.dead_letters(tenant, consumer=consumer, limit=limit)

    async def retry(self, tenant: str, consumer: str, stream: str) -> int:
        """Handle a parked sequence again, in order; how many events were handled.

        Raises NotFound if nothing is parked there or nobody handles it any more. An event that fails
        again ends the release and is raised; it and all behind it stay parked.
        """
        done = 0
        while True:
            letters = await self._store.dead_letters(tenant, consumer=consumer, stream=stream, limit=1)
            if not letters:
                if done:
                    return done
                raise _no_letter(tenant, consumer, stream)
            event = letters[0].event
            runner, handler = self._find(consumer, event)
            try:
                await runner.handle_once(handler, event, parked=True)
            except Exception as error:
                async with self._database.write(tenant) as transaction:
                    await self._store.note_failure(transaction, consumer, event, describe(error))
                raise
            done += 1

    async def discard(self, tenant: str, consumer: str, event_id: str) -> None:
        """Let one parked event go for good: it counts as handled. Raises NotFound."""
        for letter in await self._store.dead_letters(tenant, consumer=consumer, limit=10_000):
            if letter.event.id == event_id:
                async with self._database.write(letter.event.tenant) as transaction:
                    await self._store.record(transaction, consumer, letter.event)
                    await self._store.unpark(transaction, consumer, letter.event)
                return
        raise _no_letter(tenant, consumer, event_id)

    def _find(self, consumer: str, event: Event) -> tuple[ConsumerRunner, EventHandler]:
        for runner in self._runners:
            for handler in runner.handlers_for(event):
                if handler.consumer == consumer:
                    return runner, handler
        raise NotFound(
            f"Nobody handles {event.type} as {consumer} any more.",
            tenant=event.tenant,
            fix="Switch the plugin on again, or discard the events.",
        )


def _too_far(handler: EventHandler, event: Event) -> EventChainTooLong:
    return EventChainTooLong(
        f"{event.type} is too distant a consequence for {handler.consumer}: plugins answer each other's events.",
        tenant=event.tenant,
        expected=f"at most {handler.max_hops} hops, each doubling counted as one",
        found=event.hops,
        fix="Switch one of the plugins off, then discard the event; retrying lets the chain go on by one event.",
    )


def describe(error: BaseException) -> str:
    """An error as a dead letter keeps it."""
    return f"{type(error).__name__}: {error}"[:2_000]


def _no_letter(tenant: str, consumer: str, what: str) -> NotFound:
    return NotFound(f"No dead letter of {consumer} at {what}.", tenant=tenant, fix="List the dead letters.")
