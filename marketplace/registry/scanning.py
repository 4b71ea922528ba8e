"""Scanning releases: some at a time, each to its end even if whoever handed it in has left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

from marketplace.errors import ReleaseRefused
from marketplace.package import Package
from marketplace.registry.batches import Batches
from marketplace.registry.blobs import FolderBlobs
from marketplace.registry.changes import Publish
from marketplace.registry.examiner import Examiner
from marketplace.registry.receipts import Receipt, State
from marketplace.registry.submissions import OPEN, Wait
from marketplace.validator import Finding
from plugin_sdk.profile import HookProfile

PATIENCE = 10.0
"""Seconds that a publish waits for its scan; the rules and the contract tests take an ordinary guest less."""
AT_ONCE = 8
"""Guests tried, and large packages looked at, at the same time."""
LARGE = 1 << 20
"""Bytes from which a package is looked at by itself."""
LOOKED_AT = 32
"""Small packages looked at in a row, in one thread: several would only take turns at the interpreter."""

_HandedIn = tuple[bytes, bytes | None]
"""A package's bytes and its envelope."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What came of looking at a package: its receipt if it has one that lasts, or findings, or a refusal."""

    package: Package
    known: Receipt | None = None
    findings: Sequence[Finding] = ()
    profile: Mapping[str, HookProfile] = field(default_factory=dict)
    refusal: ReleaseRefused | None = None
    stored: bool = False
    """Whether nothing more is to be done before the commit."""


class Scans:
    """The scans of one registry; for one event loop. ``commit`` applies a change of the registry."""

    def __init__(
        self,
        examiner: Examiner,
        blobs: FolderBlobs,
        commit: Callable[[Any], Awaitable[Any]],
        on_step: Callable[[str], None],
        patience: float,
    ) -> None:
        self._examiner, self._blobs, self._commit = examiner, blobs, commit
        self._on_step, self._patience = on_step, patience
        # Threads of their own: slow scans must not keep those busy that read and commit.
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="keelstone-scan")
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._looker = ThreadPoolExecutor(1, thread_name_prefix="keelstone-look")
        self._looks: Batches[_HandedIn, _Seen] = Batches(self._look_at, LOOKED_AT, threads=self._looker)
        self._tasks: dict[_HandedIn, asyncio.Task[Receipt]] = {}
        self._begun: set[_HandedIn] = set()
        self._looking = 0

    @property
    def busy(self) -> int:
        """How many packages are being looked at now."""
        return self._looking

    async def publish(self, data: bytes, envelope: bytes | None) -> Receipt:
        """The receipt of what the scan came to, or of its being under way; that of a package which was scanned before,
        as it is. Raises what reading, verifying and validating a package raise, and VersionTaken."""
        task = self.begin(data, envelope)
        # Whoever leaves, or loses patience, leaves the scan alone.
        done, _ = await asyncio.wait({task}, timeout=self._patience)
        if done:
            return task.result()
        package, _ = await asyncio.to_thread(self._examiner.open, data, envelope)
        await self._blobs.put(data)
        state: State = "scanning" if (data, envelope) in self._begun else "received"
        waiting: Receipt = await self._commit(Wait(package, cast(bytes, envelope), state))
        if task.done():
            await self._settle(package, cast(bytes, envelope), task)
            return task.result()
        return waiting

    def begin(self, data: bytes, envelope: bytes | None) -> asyncio.Task[Receipt]:
        """The scan of a package: the one under way, or a new one."""
        handed_in = (data, envelope)
        task = self._tasks.get(handed_in)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._scan(data, envelope))
            self._tasks[handed_in] = task
            task.add_done_callback(lambda ended: self._ended(handed_in, ended))
        return task

    async def stop(self) -> None:
        """End the scans under way; what had a receipt is scanned again by the next start."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for threads in (self._looker, self._threads):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _scan(self, data: bytes, envelope: bytes | None) -> Receipt:
        self._looking += 1
        try:
            seen = await self._look(data, envelope)
        finally:
            self._looking -= 1
        if seen.known is not None:
            return seen.known
        signed = cast(bytes, envelope)
        if seen.refusal is not None:
            await self._refuse(seen.package, signed, seen.refusal)
            raise seen.refusal
        told = [asdict(each) for each in seen.findings]
        held = any(each.review for each in seen.findings)
        if held:
            change: Wait | Publish = Wait(seen.package, signed, "quarantined", told, profile=seen.profile)
        else:
            change = Publish(seen.package, signed, told, seen.profile)
        receipt: Receipt = await self._commit(change)
        return receipt

    async def _look(self, data: bytes, envelope: bytes | None) -> _Seen:
        """All that is done to a package before its commit. Raises what reading and verifying it raise."""
        loop, handed_in = asyncio.get_running_loop(), (data, envelope)
        if len(data) < LARGE:
            seen = await self._looks.do(handed_in)
        else:
            async with self._slots:
                (outcome,) = await loop.run_in_executor(self._threads, self._look_at, [handed_in])
            if isinstance(outcome, Exception):
                raise outcome
            seen = outcome
        if seen.stored:
            return seen
        async with self._slots:
            return await loop.run_in_executor(self._threads, self._try, seen, data)

    def _look_at(self, batch: list[_HandedIn]) -> list[_Seen | Exception]:
        """Read packages, verify them, ask the rules that run nothing, and store what is then ready to be committed."""
        outcomes: list[_Seen | Exception] = []
        with self._examiner.one_view():
            for data, envelope in batch:
                self._begun.add((data, envelope))
                try:
                    outcomes.append(self._read(data, envelope))
                except Exception as error:
                    outcomes.append(error)
        # Stored after the view is given back: writing takes longer than looking.
        for at, (seen, (data, _)) in enumerate(zip(outcomes, batch, strict=True)):
            if isinstance(seen, _Seen) and not (seen.stored or self._examiner.tries):
                try:
                    outcomes[at] = self._store(seen, data)
                except Exception as error:
                    outcomes[at] = error
        return outcomes

    def _read(self, data: bytes, envelope: bytes | None) -> _Seen:
        package, known = self._examiner.open(data, envelope)
        if known is not None and known.state not in OPEN and not self._examiner.may_pass_now(known):
            if known.state != "refused":
                self._blobs.store(data)
            return _Seen(package, known, stored=True)
        try:
            return _Seen(package, findings=self._examiner.look(package))
        except ReleaseRefused as refusal:
            return _Seen(package, refusal=refusal, stored=True)

    def _try(self, seen: _Seen, data: bytes) -> _Seen:
        """Run what of the package has to be run."""
        try:
            tried = self._examiner.try_out(seen.package, seen.findings)
        except ReleaseRefused as refusal:
            return _Seen(seen.package, refusal=refusal, stored=True)
        return self._store(_Seen(seen.package, findings=tried.findings, profile=tried.profile), data)

    def _store(self, seen: _Seen, data: bytes) -> _Seen:
        self._on_step("examined")
        self._blobs.store(data)
        self._on_step("blob-stored")
        return replace(seen, stored=True)

    async def _settle(self, package: Package, envelope: bytes, task: asyncio.Task[Receipt]) -> None:
        """A scan that ended in a refusal while its receipt was written."""
        error = None if task.cancelled() else task.exception()
        if isinstance(error, ReleaseRefused):
            await self._refuse(package, envelope, error)

    async def _refuse(self, package: Package, envelope: bytes, refusal: ReleaseRefused) -> None:
        """Tell those who were answered that it is under way; whoever still waits is told by the error."""
        if await asyncio.to_thread(self._examiner.is_known, package):
            found = refusal.extra.get("findings", ())
            await self._commit(Wait(package, envelope, "refused", found, self._examiner.fingerprint()))

    def _ended(self, handed_in: _HandedIn, task: asyncio.Task[Receipt]) -> None:
        self._tasks.pop(handed_in, None)
        self._begun.discard(handed_in)
        if not task.cancelled():
            task.exception()  # looked at, so that nobody is warned of it
