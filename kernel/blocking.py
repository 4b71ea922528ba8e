"""Who blocks the event loop: a watchdog thread that looks where the loop stands when it is late.

The loop beats by a timer; when a beat is late by more than a threshold, the watchdog reads the loop
thread's stack twice. The plugin is that of the guarded call found there (its implementation, hook and
tenant stand in the frame, so the hot path tells nobody anything), else the one in whose folder the
innermost frame's file lies. What the loop's thread spent waiting for a processor (Linux: schedstat) does
not count: a busy machine is nobody's fault.

A call that blocks counts as a failure with its plugin's breaker, whatever it comes to: as in every
event-loop platform, one implementation that sleeps or computes for long stops all tenants' requests.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from kernel.calls import GuardedCalls
from kernel.context import Context
from kernel.hookspecs import HookSpec
from kernel.implementations import Implementation
from kernel.resilience import Breaker

BEAT_SECONDS = 0.025
LOOK_SECONDS = 0.05
AGAIN_SECONDS = 0.02
"""Between two looks at a loop that is late: who stands there both times is who blocks."""
PLATFORM = "keelstone"
"""Named where no plugin's code is found on the stack."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Culprit:
    """Whose code the loop stands in. ``place`` is the innermost line of the plugin's own
    (``greeter/plugin.py:12 in user_creating``); ``call`` is what the dispatcher called, if it did."""

    plugin: str
    place: str
    call: tuple[Implementation, HookSpec, Context] | None = None


@dataclass(frozen=True, slots=True)
class Blocked:
    """One time that the loop stood still, for ``seconds``."""

    culprit: Culprit
    seconds: float


BreakerOf = Callable[[Implementation, str, str], Breaker]


class LoopWatch(Collector):
    """Watches the loop that :meth:`start` is called on. ``folders`` says which plugin's code lies where,
    ``breaker_of`` gives the breaker of an implementation for a tenant and hook."""

    def __init__(
        self,
        folders: Mapping[Path, str],
        breaker_of: BreakerOf,
        *,
        threshold: float = 0.1,
        on_blocked: Callable[[Blocked], None] | None = None,
    ) -> None:
        self._folders = {f"{folder.resolve()}/": plugin for folder, plugin in folders.items()}
        self._breaker_of = breaker_of
        self._threshold = threshold
        self._on_blocked = on_blocked
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._beat = 0.0
        self._loop_thread = 0
        self._stat: Path | None = None
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._sums: dict[str, list[float]] = {}

    def start(self) -> None:
        """Watch the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        stat = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
        self._stat = stat if stat.is_file() else None
        self._pulse()
        self._thread = threading.Thread(target=self._watch, name="loop-watch", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Stop watching."""
        self._ending.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 1.0)

    def collect(self) -> Iterable[Metric]:
        """How often and how long each plugin blocked the loop."""
        times = CounterMetricFamily(
            "keelstone_loop_blocks", "Times that the event loop was blocked.", labels=["plugin"]
        )
        seconds = CounterMetricFamily("keelstone_loop_blocked_seconds", "Seconds of it.", labels=["plugin"])
        for plugin, (count, total) in sorted(self._sums.items()):
            times.add_metric([plugin], count)
            seconds.add_metric([plugin], total)
        yield from (times, seconds)

    # ------------------------------------------------------------------ on the loop

    def _pulse(self) -> None:
        assert self._loop is not None
        self._beat = time.monotonic()
        self._timer = self._loop.call_later(BEAT_SECONDS, self._pulse)

    def _report(self, culprit: Culprit, since: float) -> None:
        """The loop runs again: say who held it, and let the breaker count it."""
        blocked = Blocked(culprit, time.monotonic() - since)
        sums = self._sums.setdefault(culprit.plugin, [0.0, 0.0])
        sums[0] += 1
        sums[1] += blocked.seconds
        millis = round(blocked.seconds * 1000)
        extra: dict[str, object] = {"plugin": culprit.plugin, "place": culprit.place, "milliseconds": millis}
        if culprit.call is not None:
            impl, spec, context = culprit.call
            extra |= {"hook": spec.name, "tenant": context.tenant, "correlation_id": context.correlation_id}
            breaker = self._breaker_of(impl, context.tenant, spec.name)
            breaker.error = f"loop-blocked: {culprit.place} held the event loop for {millis} ms"
            breaker.failure(breaker.era)
        logger.warning("the event loop was blocked for %d ms by %s", millis, culprit.place, extra=extra)
        if self._on_blocked is not None:
            self._on_blocked(blocked)

    # ------------------------------------------------------------------ in the watchdog's thread

    def _watch(self) -> None:
        told, waited = 0.0, self._waited()
        while not self._ending.wait(LOOK_SECONDS):
            beat = self._beat
            late = time.monotonic() - beat - BEAT_SECONDS
            if late <= BEAT_SECONDS:
                waited = self._waited()
                continue
            if beat == told or late - (self._waited() - waited) <= self._threshold:
                continue
            first = self._look()
            if self._ending.wait(AGAIN_SECONDS):
                return
            second = self._look()
            if beat != self._beat or first is None or second is None or first[0] != second[0]:
                continue
            told = beat
            self._accuse(second[1], beat)

    def _accuse(self, culprit: Culprit, since: float) -> None:
        if culprit.call is not None:
            breaker = culprit.call[0].breaker
            if breaker is not None:
                # The call may yet end well; it no longer counts, because its era is over.
                breaker.era += 1
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._report, culprit, since)
        except RuntimeError:
            # The loop was closed meanwhile: nobody is left to tell.
            self._ending.set()

    def _waited(self) -> float:
        """Seconds that the loop's thread has waited for a processor so far."""
        if self._stat is None:
            return 0.0
        try:
            return int(self._stat.read_text().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0

    def _look(self) -> tuple[int, Culprit] | None:
        """The frame to blame (by identity) and the culprit; None if the loop's thread is gone."""
        frame = sys._current_frames().get(self._loop_thread)
        if frame is None:
            return None
        guarded = next((f for f in _outwards(frame) if f.f_code in _guarded()), None)
        own = next(((f, plugin) for f in _outwards(frame) if (plugin := self._owner(f))), None)
        if guarded is not None:
            found = guarded.f_locals
            impl, spec, context = found["impl"], found["spec"], found["context"]
            if impl.manifest.kind != "guest":
                place = _place(own[0] if own is not None else frame)
                return id(guarded), Culprit(impl.plugin, place, (impl, spec, context))
        if own is not None:
            return id(own[0]), Culprit(own[1], _place(own[0]))
        return id(frame), Culprit(PLATFORM, _place(frame))

    def _owner(self, frame: FrameType) -> str | None:
        file = frame.f_code.co_filename
        return next((plugin for folder, plugin in self._folders.items() if file.startswith(folder)), None)


def _guarded() -> tuple[CodeType, ...]:
    return (GuardedCalls.call.__code__, GuardedCalls._finish.__code__)


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _place(frame: FrameType) -> str:
    path = Path(frame.f_code.co_filename)
    return f"{'/'.join(path.parts[-2:])}:{frame.f_lineno} in {frame.f_code.co_name}"
