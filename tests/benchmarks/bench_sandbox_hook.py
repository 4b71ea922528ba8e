"""``sandbox.hook``: the whole dispatch of one sandboxed filter against the bare fresh call of the same guest.

The whole is what a request pays: snapshot, ready tuple, breaker, bulkhead, deadline, the payload to JSON,
the choice of where to run, the fresh call, the reply checked against its schema, effects, the ledger's
sums, explain, metrics and the note from which a thread makes the OpenTelemetry span. The row is the
difference of the two, in bursts of calls; ``span_us`` is what a span costs its thread between them, off
the request path. ``sandbox.hook_untraced`` is without spans.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import time
from pathlib import Path
from typing import Any

from kernel.activation import Activations
from kernel.context import Context
from kernel.guests import Guests
from kernel.hooks import Dispatcher
from kernel.payloads import UserDraft
from kernel.ports import ActivationRecord, GuestRelease
from kernel.resilience import Breaker
from kernel.settings import Settings
from kernel.telemetry import Telemetry, start_tracing
from sandbox import open_runtime
from tests.benchmarks.guests import Bare, component, manifest
from tests.benchmarks.measure import absolute, per_call_us

CALLS, BURSTS = 300, 45


class _Nowhere:
    """A span exporter that lets go of what it is given: the making of spans is measured, not a network."""

    def export(self, spans: Any) -> Any:
        from opentelemetry.sdk.trace.export import SpanExportResult

        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        return None

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


async def _measure(home: Path, tracing: bool) -> tuple[list[float], list[float], float]:
    from plugins.builtin.metering.ledger import UsageLedger

    runtime = open_runtime(Settings(home=home))
    asked, data = manifest("wrap"), component("wrap")
    digest = hashlib.sha256(data).hexdigest()
    await runtime.prepare(digest, data, asked)
    guests, activations, telemetry = Guests(runtime), Activations(), Telemetry()
    guests.add(GuestRelease(asked, digest))
    ledger = UsageLedger()
    guests.gate(ledger.admit)
    guests.watch(ledger.note)
    guests.watch(telemetry.guest_call)
    activations.load([ActivationRecord("acme", asked.id, "1.0.0")])
    hooks = Dispatcher(activations, guests, on_trace=telemetry.dispatch)
    spans = start_tracing(telemetry, _Nowhere()) if tracing else None
    context, draft = Context("acme"), UserDraft(email="ada@example.com", name="Ada", attributes={"text": "a" * 900})
    # A breaker that has counted a failure is consulted at every call; a fresh one is not even made.
    for implementation in hooks.ready("acme", "user_creating"):
        implementation.breaker = Breaker()
    if (await hooks.filter("user_creating", draft, context)).payload != draft:
        raise RuntimeError("the guest does not answer what it was given")
    bare, payload = Bare("wrap"), draft.model_dump_json()

    async def burst() -> tuple[float, float]:
        began = time.perf_counter()
        for _ in range(CALLS):
            await hooks.filter("user_creating", draft, context)
        whole = (time.perf_counter() - began) / CALLS * 1e6
        if spans is not None:
            spans.force_flush()
        return whole, per_call_us(lambda: bare.fresh(payload), CALLS)

    rounds = [await burst() for _ in range(BURSTS)][5:]
    bare.close()
    await runtime.close()
    span_us = 0.0
    if spans is not None:
        spans.force_flush()
        trace = hooks.traces.find(context.correlation_id)[0]
        span_us = per_call_us(lambda: (spans.note(trace), spans._make()), CALLS)
        await asyncio.get_running_loop().run_in_executor(None, spans.shutdown)
    return [w for w, _ in rounds], [b for _, b in rounds], span_us


def rows() -> list[dict[str, Any]]:
    """Microseconds that the platform adds to a bare fresh call, without and with spans."""
    found = []
    for name, tracing in (("sandbox.hook_untraced", False), ("sandbox.hook", True)):
        with tempfile.TemporaryDirectory() as folder:
            whole, bare, span_us = asyncio.run(_measure(Path(folder), tracing))
        over = [w - b for w, b in zip(whole, bare, strict=True)]
        found.append(
            absolute(name, values=over, unit="us over the bare call", target="<= 30 us", met=lambda v: v <= 30)
            | {"whole": [round(w, 2) for w in whole], "bare": [round(b, 2) for b in bare], "span_us": round(span_us, 2)}
        )
    return found


if __name__ == "__main__":
    print(rows())
