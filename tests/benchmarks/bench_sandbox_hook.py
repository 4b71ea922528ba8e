"""``sandbox.hook``: the whole dispatch of one sandboxed filter against the bare fresh call of the same guest.

The whole is what a request pays: snapshot, ready tuple, breaker, bulkhead, deadline, the payload to JSON,
the choice of where to run, the fresh call, the reply checked against its schema, effects, the ledger's
sums, explain, metrics and a span made by the OpenTelemetry SDK. The row is the difference of the two.
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
from tests.benchmarks.measure import absolute, alternate, per_call_us

CALLS = 1_000


class _Nowhere:
    """A span exporter that lets go of what it is given: the making of spans is measured, not a network."""

    def export(self, spans: Any) -> Any:
        from opentelemetry.sdk.trace.export import SpanExportResult

        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        return None

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


async def _measure(home: Path, tracing: bool) -> tuple[list[float], list[float]]:
    from plugins.builtin.catalog.ledger import ExecutionLedger

    runtime = open_runtime(Settings(home=home))
    asked, data = manifest("wrap"), component("wrap")
    digest = hashlib.sha256(data).hexdigest()
    await runtime.prepare(digest, data, asked)
    guests, activations, telemetry = Guests(runtime), Activations(), Telemetry()
    guests.add(GuestRelease(asked, digest))
    guests.watch(ExecutionLedger(None).note)
    activations.load([ActivationRecord("acme", asked.id, "1.0.0")])
    hooks = Dispatcher(activations, guests, on_trace=telemetry.dispatch)
    provider = start_tracing(telemetry, _Nowhere()) if tracing else None
    context, draft = Context("acme"), UserDraft(email="ada@example.com", name="Ada", attributes={"text": "a" * 900})
    # A breaker that has counted a failure is consulted at every call; a fresh one is not even made.
    for implementation in hooks.ready("acme", "user_creating"):
        implementation.breaker = Breaker()
    if (await hooks.filter("user_creating", draft, context)).payload != draft:
        raise RuntimeError("the guest does not answer what it was given")
    bare, payload = Bare("wrap"), draft.model_dump_json()
    loop = asyncio.get_running_loop()

    async def dispatched() -> float:
        began = time.perf_counter()
        for _ in range(CALLS):
            await hooks.filter("user_creating", draft, context)
        return (time.perf_counter() - began) / CALLS * 1e6

    rounds: tuple[list[float], list[float]] = ([], [])
    for _ in range(9):
        rounds[0].append(await dispatched())
        rounds[1].append(per_call_us(lambda: bare.fresh(payload), CALLS))
    bare.close()
    await runtime.close()
    if provider is not None:
        await loop.run_in_executor(None, provider.shutdown)
    return rounds[0][2:], rounds[1][2:]


def rows() -> list[dict[str, Any]]:
    """Microseconds that the platform adds to a bare fresh call, without and with spans."""
    found = []
    for name, tracing in (("sandbox.hook_untraced", False), ("sandbox.hook", True)):
        with tempfile.TemporaryDirectory() as folder:
            whole, bare = asyncio.run(_measure(Path(folder), tracing))
        over = [w - b for w, b in zip(whole, bare, strict=True)]
        found.append(
            absolute(name, values=over, unit="us over the bare call", target="<= 30 us", met=lambda v: v <= 30)
            | {"whole": [round(w, 2) for w in whole], "bare": [round(b, 2) for b in bare]}
        )
    return found


if __name__ == "__main__":
    print(rows())
