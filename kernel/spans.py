"""Spans of dispatches, made off the request path.

The OpenTelemetry SDK takes some twenty microseconds to make one span, more than a whole dispatch. So a
dispatch leaves a note (its trace, the span it happened in, the time), and a thread makes the spans from
the notes, with their true times and parents, and hands them to the provider's processors.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any

import opentelemetry.trace as otel

from kernel.explain import DispatchTrace

MOST_NOTES = 50_000
"""Notes that wait at most; the oldest are dropped first."""
EVERY_SECONDS = 0.25
_AT_ONCE = 64


class DispatchSpans:
    """Makes spans with ``provider`` (a TracerProvider of the SDK) until :meth:`shutdown`."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer: otel.Tracer = provider.get_tracer("keelstone")
        self._notes: deque[tuple[DispatchTrace, otel.SpanContext, int]] = deque(maxlen=MOST_NOTES)
        self._stop = threading.Event()
        self._making = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="keelstone-spans", daemon=True)
        self._thread.start()

    @property
    def tracer(self) -> otel.Tracer:
        """For spans that are made where they happen, such as a request's."""
        return self._tracer

    def note(self, trace: DispatchTrace) -> None:
        """A dispatch has just ended. Takes about a microsecond."""
        self._notes.append((trace, otel.get_current_span().get_span_context(), time.time_ns()))

    def force_flush(self) -> bool:
        """Make every span noted so far and hand all to the exporters."""
        self._make()
        return bool(self._provider.force_flush())

    def shutdown(self) -> None:
        """Make what is left, and shut the provider down."""
        self._stop.set()
        self._thread.join(timeout=5)
        self._make()
        self._provider.shutdown()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            self._make()

    def _make(self) -> None:
        with self._making:
            made = 0
            while self._notes:
                self._span(*self._notes.popleft())
                made += 1
                if made % _AT_ONCE == 0:
                    # Requests are waiting for the interpreter: they go first.
                    time.sleep(0)

    def _span(self, trace: DispatchTrace, parent: otel.SpanContext, ended_ns: int) -> None:
        micros = sum(step.micros for step in trace.steps)
        at = ended_ns - int(micros * 1_000)
        span = self._tracer.start_span(
            f"hook {trace.hook}",
            context=otel.set_span_in_context(otel.NonRecordingSpan(parent)),
            start_time=at,
            attributes={
                "keelstone.hook": trace.hook,
                "keelstone.tenant": trace.tenant,
                "keelstone.correlation_id": trace.correlation_id,
                "keelstone.generation": trace.generation,
            },
        )
        for step in trace.steps:
            at += int(step.micros * 1_000)
            span.add_event(
                f"{step.plugin} {step.outcome}",
                attributes={
                    "keelstone.plugin": step.plugin,
                    "keelstone.version": step.version,
                    "keelstone.outcome": step.outcome,
                    "keelstone.microseconds": step.micros,
                },
                timestamp=at,
            )
            if step.error:
                span.set_status(otel.StatusCode.ERROR, step.error)
        span.end(end_time=ended_ns)
