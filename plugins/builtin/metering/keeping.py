"""Failed calls, kept for their plugin's author: chosen on the request path, masked and stored off it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from plugin_sdk import ALL_TENANTS, Background, Context, KeelstoneError, NewEvent, NotFound, new_id, system_context
from plugin_sdk.recordings import RecordedExchange, Recording, personal_fields, record
from plugin_sdk.services import Database, GuestCall, GuestResult, KeyProvider, Transaction
from plugins.builtin.metering.application import utc_now
from plugins.builtin.metering.redaction import Redactor

logger = logging.getLogger(__name__)
CHOICE = "recordings"
WAITING = 50
"""Failed calls that wait to be stored; further ones are let go."""
EVERY_SECONDS = 60.0
"""Of calls that fail alike (plugin, version, hook, error, tenant) one a minute is kept."""
_MOST_KINDS = 10_000
CUT = "recording.cut"


@dataclass(frozen=True, slots=True)
class Choice:
    """What a tenant has decided: whether failed calls are kept, and whether they are masked."""

    keep: bool
    mask: bool = True


@dataclass(frozen=True, slots=True)
class Kept:
    """A stored recording, without its content. ``size`` in bytes."""

    id: str
    tenant: str
    plugin: str
    version: str
    hook: str
    code: str
    detail: str
    correlation_id: str
    recorded_at: datetime
    size: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept: recordings of a plugin for a tenant, KiB of each, days."""

    each_plugin: int = 20
    kb: int = 512
    days: int = 14


class RecordingRepository(Protocol):
    """Where recordings are kept, sealed."""

    async def put(self, transaction: Transaction, kept: Kept, document: str) -> None: ...

    async def trim(self, transaction: Transaction, tenant: str, plugin: str, most: int) -> int:
        """Delete the oldest of a plugin beyond ``most``."""
        ...

    async def page(self, transaction: Transaction, plugin: str | None, after: str | None, limit: int) -> list[Kept]: ...

    async def get(self, transaction: Transaction, id: str) -> tuple[Kept, str] | None: ...

    async def delete(self, transaction: Transaction, id: str) -> bool: ...

    async def prune(self, transaction: Transaction, before: datetime) -> int: ...

    async def choice(self, transaction: Transaction, tenant: str, name: str) -> Any: ...

    async def choose(
        self, transaction: Transaction, tenant: str, name: str, value: Any, now: datetime, by: str
    ) -> None: ...


class Recordings:
    """Keeps recordings of failed calls. ``on`` is the operator's word where a tenant has not decided."""

    def __init__(
        self,
        database: Database,
        repository: RecordingRepository,
        keys: KeyProvider,
        redactor: Redactor,
        *,
        on: bool = True,
        bounds: Bounds = Bounds(),
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._repository = repository
        self._keys = keys
        self._redactor = redactor
        self._on = on
        self._bounds = bounds
        self._now = now
        self._clock = clock
        self._last: dict[tuple[str, ...], float] = {}
        self._waiting: deque[tuple[GuestCall, KeelstoneError, datetime]] = deque()
        self._news = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._background = Background(self._run, "keep-recordings")
        self.dropped = 0

    # ------------------------------------------------------------------ the request path

    def note(self, call: GuestCall, result: GuestResult | KeelstoneError) -> None:
        """Take note of a failed call; of those that fail alike only now and then."""
        if type(result) is GuestResult or call.replay is not None:
            return
        failed: Any = result
        if getattr(failed, "usage", None) is None:
            # It never ran: there is nothing to replay.
            return
        kind = (call.context.tenant, call.plugin, call.version, call.hook, failed.code)
        now = self._clock()
        if now - self._last.get(kind, -EVERY_SECONDS) < EVERY_SECONDS:
            return
        if len(self._waiting) >= WAITING:
            self.dropped += 1
            return
        if len(self._last) >= _MOST_KINDS:
            self._last.clear()
        self._last[kind] = now
        self._waiting.append((call, failed, self._now()))
        self._news.set()

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Store what was noted from now on."""
        self._background.start()

    async def stop(self) -> None:
        """Stop and store what is left."""
        await self._background.stop()
        with contextlib.suppress(KeelstoneError):
            await self.flush()

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self.flush()
            except Exception:
                logger.exception("a recording could not be stored")

    async def flush(self) -> None:
        """Store what waits; what another task is storing is stored too when this returns."""
        async with self._one_at_a_time:
            while self._waiting:
                call, error, moment = self._waiting.popleft()
                await self._store(call, error, moment)

    async def _store(self, call: GuestCall, error: KeelstoneError, moment: datetime) -> None:
        tenant = call.context.tenant
        choice = await self.choice(tenant)
        if not choice.keep:
            return
        made = record(call, error, recorded_at=moment.isoformat())
        # Masking a megabyte takes a while: not on the event loop.
        recording = await asyncio.to_thread(self._masked, made, call, choice)
        text = recording.text()
        if len(text) > self._bounds.kb << 10:
            text = _shortened(recording, self._bounds.kb << 10)
        if not text:
            logger.info("a recording of %s was larger than %d KiB and is not kept", call.plugin, self._bounds.kb)
            return
        kept = Kept(
            id=new_id(),
            tenant=tenant,
            plugin=call.plugin,
            version=call.version,
            hook=call.hook,
            code=error.code,
            detail=recording.outcome.detail[:500],
            correlation_id=call.context.correlation_id,
            recorded_at=moment,
            size=len(text.encode()),
        )
        sealed = self._keys.encrypt(text.encode(), _purpose(tenant))
        async with self._database.write(tenant, system_context(tenant, call.context.correlation_id)) as transaction:
            await self._repository.put(transaction, kept, sealed)
            await self._repository.trim(transaction, tenant, call.plugin, self._bounds.each_plugin)

    def _masked(self, made: Recording, call: GuestCall, choice: Choice) -> Recording:
        if choice.mask:
            marked = personal_fields(call.hook)
            return self._redactor.redact(made, secrets.token_bytes(32), marked=marked, tenant=call.context.tenant)
        # Secrets go whatever the tenant decided.
        return Redactor(()).redact(made, secrets.token_bytes(32))

    # ------------------------------------------------------------------ for people

    async def page(self, tenant: str | None, plugin: str | None, after: str | None, limit: int) -> list[Kept]:
        """Recordings, newest first. ``tenant`` None: every tenant's."""
        await self.flush()
        async with self._database.read(tenant or ALL_TENANTS) as transaction:
            return await self._repository.page(transaction, plugin, after, limit)

    async def get(self, tenant: str | None, id: str) -> tuple[Kept, str]:
        """A recording with its content. Raises NotFound."""
        async with self._database.read(tenant or ALL_TENANTS) as transaction:
            found = await self._repository.get(transaction, id)
        if found is None:
            raise _unknown(id, tenant)
        kept, sealed = found
        return kept, self._keys.decrypt(sealed, _purpose(kept.tenant)).decode()

    async def delete(self, context: Context, tenant: str | None, id: str) -> None:
        """Delete a recording. Raises NotFound."""
        async with self._database.write(tenant or ALL_TENANTS, context) as transaction:
            if not await self._repository.delete(transaction, id):
                raise _unknown(id, tenant)

    async def choice(self, tenant: str) -> Choice:
        """What the tenant decided, or else the operator."""
        async with self._database.read(tenant) as transaction:
            found = await self._repository.choice(transaction, tenant, CHOICE)
        return Choice(self._on) if found is None else Choice(bool(found["keep"]), bool(found["mask"]))

    async def choose(self, context: Context, choice: Choice) -> Choice:
        """Decide for the tenant in hand; if nothing is kept any more, what was kept goes."""
        value = {"keep": choice.keep, "mask": choice.mask}
        async with self._database.write(context.tenant, context) as transaction:
            await self._repository.choose(transaction, context.tenant, CHOICE, value, self._now(), context.principal.id)
            if not choice.keep:
                await self._repository.prune(transaction, self._now())
            transaction.emit("recordings", NewEvent("recordings.decided", value))
        return choice

    async def prune(self) -> int:
        """Delete what is older than the retention."""
        async with self._database.write(ALL_TENANTS) as transaction:
            return await self._repository.prune(transaction, self._now() - timedelta(days=self._bounds.days))


def _purpose(tenant: str) -> str:
    return f"recording:{tenant}"


def _shortened(recording: Recording, most: int) -> str:
    """The file without its last host calls, or nothing if even that is too large."""
    kept: Sequence[RecordedExchange] = recording.exchanges
    told = {"code": "limit", "message": f"the rest did not fit in {most} bytes"}
    end = RecordedExchange(function=CUT, arguments=(), answer=told, failed=True)
    while kept:
        kept = kept[: len(kept) // 2]
        text = recording.model_copy(update={"exchanges": (*kept, end)}).text()
        if len(text) <= most:
            return text
    return ""


def _unknown(id: str, tenant: str | None) -> NotFound:
    return NotFound(
        "There is no such recording (any more).",
        tenant=tenant,
        expected="one of those in `keelstone recordings list`",
        found=id,
    )
