"""The development door: plugins straight from an author's folder, and their calls as they happen.

There only with KEELSTONE_DEVELOPMENT. What an author offers is not signed and says so in its chain;
from there on it is installed, activated and called by the same code as every other release. Each build
is a release of its own (``1.2.0-dev.7``), because what is installed never changes.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Query, UploadFile
from pydantic import BaseModel, ConfigDict

from kernel.context import Context, new_id, system_context
from kernel.errors import ConfigurationError, KeelstoneError, NotFound, Rejected, ValidationFailed
from kernel.hookspecs import hook_spec
from kernel.manifest import PluginManifest
from kernel.outcomes import save_effects
from kernel.payloads import EventView, Payload
from kernel.plain import Text
from kernel.ports import GuestCall, GuestResult, GuestRuntime, LogLine
from marketplace.package import read_package
from marketplace.rules import Submission
from marketplace.validator import Validator
from plugin_sdk.dev.source import source_folder
from plugin_sdk.dev.summary import summary_of
from plugin_sdk.dev.versions import development_version
from plugin_sdk.recordings import record
from plugin_sdk.services import (
    Marketplace,
    MarketplaceEntry,
    PublishedRelease,
    Revocation,
    SearchFilters,
    VerifiedPackage,
)
from plugin_sdk.testing.memory import MemoryGuest
from plugin_sdk.web import requires

if TYPE_CHECKING:
    from api.bootstrap import Platform

UNSIGNED = "offered by `keelstone plugin dev`: built on this machine, signed by nobody"
LogSink = Callable[[GuestCall, LogLine], None]
_REMEMBERED = 1_000
_KEPT_RELEASES = 3
_MOST_TEXT = 16_384
_LONGEST_WAIT = 20.0

Installs = Annotated[Context, requires("plugins:install")]


class DevelopmentMarketplace:
    """A :class:`~plugin_sdk.services.Marketplace` that also has what authors offered to this process."""

    def __init__(self, real: Marketplace) -> None:
        self._real = real
        self._offered: dict[str, dict[str, VerifiedPackage]] = {}

    def offer(self, archive: bytes, number: int) -> VerifiedPackage:
        """Take a package that nobody signed, under a version of its own. Raises read_package's errors."""
        package = read_package(archive)
        version = development_version(package.manifest.version, number)
        manifest = package.manifest.model_copy(update={"version": version})
        offered = replace(package.vouched_for((UNSIGNED,)), manifest=manifest)
        kept = self._offered.setdefault(package.manifest.id, {})
        kept[version] = offered
        for old in list(kept)[:-_KEPT_RELEASES]:
            del kept[old]
        return offered

    async def search(self, query: str, limit: int = 20, filters: SearchFilters | None = None) -> list[MarketplaceEntry]:
        """Plugins that fit the words, the published ones only."""
        return await self._real.search(query, limit, filters)

    async def info(self, plugin: str) -> MarketplaceEntry:
        """One published plugin. Raises NotFound."""
        return await self._real.info(plugin)

    async def manifests(self, plugin: str) -> list[PluginManifest]:
        """Manifests of all versions, offered and published. Raises NotFound if there is neither."""
        offered = [p.manifest for p in self._offered.get(plugin, {}).values()]
        try:
            return [*offered, *await self._real.manifests(plugin)]
        except KeelstoneError:
            if not offered:
                raise
            return offered

    async def published(self, plugin: str) -> Mapping[str, PublishedRelease]:
        """The published versions; nobody signed for when one was offered. Raises NotFound like ``manifests``."""
        try:
            return await self._real.published(plugin)
        except KeelstoneError:
            if plugin not in self._offered:
                raise
            return {}

    async def fetch(self, plugin: str, version: str) -> VerifiedPackage:
        """One release. Raises NotFound or VerificationFailed."""
        offered = self._offered.get(plugin, {}).get(version)
        return offered if offered is not None else await self._real.fetch(plugin, version)

    async def revocations(self) -> tuple[Revocation, ...]:
        """Those of the real marketplace."""
        return await self._real.revocations()

    async def await_revocations(self, known: int) -> int:
        """See :meth:`revocations`."""
        return await self._real.await_revocations(known)

    async def report_reach(self, digest: str, host: str, installed: bool, seconds: float) -> None:
        """To the real marketplace."""
        await self._real.report_reach(digest, host, installed, seconds)

    async def hand_in(self, what: Literal["ratings", "figures"], statement: str, keys: Mapping[str, Any]) -> None:
        """To the real marketplace, which knows nothing of what is offered here."""
        await self._real.hand_in(what, statement, keys)


@dataclass(frozen=True, slots=True)
class SeenCall:
    """One guest call, as it is shown to its author."""

    number: int
    time: float
    call: GuestCall
    came_to: GuestResult | KeelstoneError
    lines: tuple[LogLine, ...] = ()

    def describe(self) -> dict[str, Any]:
        """JSON-ready. Times in microseconds, memory in bytes."""
        used = getattr(self.came_to, "usage", None)
        failed = isinstance(self.came_to, KeelstoneError)
        return {
            "number": self.number,
            "time": self.time,
            "plugin": self.call.plugin,
            "version": self.call.version,
            "digest": self.call.digest,
            "hook": self.call.hook,
            "tenant": self.call.context.tenant,
            "correlation_id": self.call.context.correlation_id,
            "microseconds": used.wall_us if used else None,
            "memory_bytes": used.memory_bytes if used else None,
            "host_calls": used.host_calls if used else None,
            "http_bytes": used.http_bytes if used else None,
            "uses": dict(used.uses) if used else {},
            "result": "failed" if failed else summary_of(self.call.hook, self.call.payload, self.came_to.output),  # type: ignore[union-attr]
            "payload": self.call.payload[:_MOST_TEXT],
            "output": None if isinstance(self.came_to, KeelstoneError) else self.came_to.output[:_MOST_TEXT],
            "problem": self.came_to.problem() if isinstance(self.came_to, KeelstoneError) else None,
            "logs": [{"level": line.level, "message": line.message} for line in self.lines],
            "recording": record(self.call, self.came_to, tenant=self.call.context.tenant).model_dump(mode="json")
            if failed
            else None,
            "events": [] if isinstance(self.came_to, KeelstoneError) else _events(self.came_to),
        }


def _events(result: GuestResult) -> list[dict[str, Any]]:
    return [{"type": event.type, "data": dict(event.data)} for event in result.effects.events]


class Development:
    """What a development platform has beside the ordinary one: offered plugins and the calls seen."""

    def __init__(self) -> None:
        self._offers: DevelopmentMarketplace | None = None
        self._lines: dict[int, list[LogLine]] = {}
        self.offered: set[str] = set()
        """Digests of the components that were offered here: only their stand-ins are followed."""
        self._calls: deque[SeenCall] = deque(maxlen=_REMEMBERED)
        self._number = 0
        self._more = asyncio.Event()

    def around(self, sandbox: GuestRuntime, native: Callable[[MemoryGuest], GuestRuntime]) -> DevelopmentRuntime:
        """``sandbox``, but for what authors offered as source; see :class:`DevelopmentRuntime`."""
        return DevelopmentRuntime(sandbox, native, self)

    def offering(self, marketplace: Marketplace) -> DevelopmentMarketplace:
        """``marketplace`` with what authors offer; kept for :meth:`offer`."""
        self._offers = DevelopmentMarketplace(marketplace)
        return self._offers

    def offer(self, archive: bytes, number: int) -> VerifiedPackage:
        """Take a package that nobody signed. Raises read_package's errors."""
        if self._offers is None:
            raise ConfigurationError("This platform has no marketplace to offer anything in.")
        package = self._offers.offer(archive, number)
        self.offered.add(hashlib.sha256(package.component).hexdigest())
        return package

    def reading(self, log: LogSink) -> LogSink:
        """``log``, with each call's lines kept until the call is noted: a failed call has no others."""

        def read(call: GuestCall, line: LogLine) -> None:
            self._lines.setdefault(id(call), []).append(line)
            log(call, line)

        return read

    def note(self, call: GuestCall, came_to: GuestResult | KeelstoneError) -> None:
        """Remember a call (the platform's observer of guests)."""
        self._number += 1
        lines = tuple(self._lines.pop(id(call), ()))
        self._calls.append(SeenCall(self._number, time.time(), call, came_to, lines))
        self._more.set()

    async def calls(self, after: int, seconds: float) -> list[SeenCall]:
        """Calls after number ``after``; waits up to ``seconds`` for the first."""
        if self._number <= after and seconds > 0:
            self._more.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._more.wait()
            except TimeoutError:
                return []
        return [call for call in self._calls if call.number > after]

    @property
    def latest(self) -> int:
        """Number of the newest call; 0 before the first."""
        return self._number


class DevelopmentRuntime:
    """The sandbox, but for stand-ins that an author offered: their source runs in this process.

    ``native`` opens a runtime for one folder's source. Implements :class:`kernel.ports.GuestRuntime`.
    """

    def __init__(
        self, sandbox: GuestRuntime, native: Callable[[MemoryGuest], GuestRuntime], development: Development
    ) -> None:
        self._sandbox = sandbox
        self._open = native
        self._development = development
        self._sources: dict[str, GuestRuntime] = {}

    async def prepare(self, digest: str, component: bytes, manifest: PluginManifest) -> None:
        """Compile and check a component; a stand-in's source is only read when it is called."""
        folder = source_folder(component) if digest in self._development.offered else None
        if folder is None:
            await self._sandbox.prepare(digest, component, manifest)
        else:
            self._sources[digest] = self._open(MemoryGuest(folder, manifest))

    def prepared(self, digest: str) -> bool:
        """Whether it can be called."""
        return digest in self._sources or self._sandbox.prepared(digest)

    async def call(self, call: GuestCall) -> GuestResult:
        """Run one call. Raises SandboxError's subclasses."""
        return await self._sources.get(call.digest, self._sandbox).call(call)

    async def forget(self, digest: str) -> None:
        """Let go of it."""
        if self._sources.pop(digest, None) is None:
            await self._sandbox.forget(digest)

    async def close(self) -> None:
        """Close the sandbox."""
        await self._sandbox.close()


class OfferOut(BaseModel):
    """An offered release. ``findings`` are the publishing rules that it breaks so far."""

    plugin: str
    version: str
    findings: list[dict[str, str]]


class CallIn(BaseModel):
    """A hook to call as the platform calls it, with everything that is on for the tenant."""

    model_config = ConfigDict(extra="forbid")
    tenant: Text
    hook: Text
    payload: dict[str, Any]


def development_router(platform: Platform, development: Development) -> APIRouter:
    """Under /api/v1/development; operators only."""
    router = APIRouter(prefix="/development", tags=["development"])
    # What takes longer (imports, the contract of its hooks) is found when it is prepared, tested, published.
    validator = Validator()

    @router.post("/offers", summary="Offer an unsigned package to this platform")
    async def offer(
        context: Installs, package: Annotated[UploadFile, File()], number: Annotated[int, Form(ge=1)]
    ) -> OfferOut:
        archive = await package.read()
        offered = development.offer(archive, number)
        seen = await asyncio.to_thread(validator.validate, Submission(read_package(archive)))
        return OfferOut(
            plugin=offered.manifest.id,
            version=offered.manifest.version,
            findings=[{"rule": f.rule, "problem": f.problem, "fix": f.fix} for f in seen.findings],
        )

    @router.get("/calls", summary="Guest calls, the newest last; waits for one if there is none yet")
    async def calls(
        context: Installs,
        after: Annotated[int, Query(ge=-1)] = -1,
        wait: Annotated[float, Query(ge=0, le=_LONGEST_WAIT)] = 0,
    ) -> dict[str, Any]:
        seen = [] if after < 0 else await development.calls(after, wait)
        return {"items": [call.describe() for call in seen], "latest": development.latest}

    @router.post("/calls", summary="Call a hook with a payload")
    async def call(context: Installs, body: CallIn) -> dict[str, Any]:
        spec = hook_spec(body.hook)
        if spec.payload is None or not issubclass(spec.payload, Payload):
            raise ValidationFailed(f"{body.hook} is called at boot, with nothing.", hook=body.hook)
        payload = spec.payload.of(**body.payload)
        acting = system_context(body.tenant, new_id())
        if not platform.hooks.ready(body.tenant, body.hook):
            raise NotFound(f"Nothing implements {body.hook} in {body.tenant}.", hook=body.hook, tenant=body.tenant)
        answered = await _dispatch(platform, spec.kind, body.hook, payload, acting)
        return {"correlation_id": acting.correlation_id, "hook": body.hook, "tenant": body.tenant, **answered}

    return router


async def _dispatch(platform: Platform, kind: str, hook: str, payload: Payload, context: Context) -> dict[str, Any]:
    """What the hook came to, its effects saved as its real callers save them."""
    if isinstance(payload, EventView):
        event = payload.model_copy(update={"tenant": context.tenant})
        context = replace(context, correlation_id=payload.correlation_id or context.correlation_id)
        told = []
        for implementation in platform.hooks.observers(context.tenant, hook):
            subscribed = implementation.manifest.events.subscribes
            if any(_fits(event.type, pattern) for pattern in subscribed):
                effects = await platform.hooks.deliver(implementation, event, context)
                async with platform.database.write(context.tenant, context) as transaction:
                    await save_effects(
                        transaction, platform.database.kv, context.tenant, implementation.plugin, effects
                    )
                told.append(implementation.plugin)
        return {"result": "observed" if told else "nobody subscribes to it", "by": told}
    try:
        if kind == "filter":
            outcome: Any = await platform.hooks.filter(hook, payload, context)
        else:
            outcome = await platform.hooks.decide(hook, payload, context)
    except Rejected as refusal:
        return {"result": "rejected", "reason": refusal.detail, "by": [refusal.plugin]}
    async with platform.database.write(context.tenant, context) as transaction:
        await outcome.save(transaction)
    after = outcome.payload
    if kind == "decide":
        return {"result": "no opinion" if after is None else "answered", "answer": after and after.model_dump()}
    return {"result": "kept" if after == payload else "changed", "payload": after.model_dump(mode="json")}


def _fits(event_type: str, pattern: str) -> bool:
    return event_type == pattern or (pattern.endswith(".*") and event_type.startswith(pattern[:-1]))
