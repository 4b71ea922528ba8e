"""The host around a guest that is not a component: its source, run in this process.

For authors' tests and for the first moments of ``keelstone plugin dev``, where building takes longer
than looking. The gate, the limits of host calls, the effects and the recordings are the very ones of
:mod:`sandbox.hostcalls`; what a component adds (memory, isolation, an end to endless loops) is not
there. Never for strangers' code.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from kernel.manifest import PluginManifest
from kernel.ports import GuestCall, GuestResult, LogLine
from kernel.settings import Settings
from sandbox.contract import GENERATIONS, KEELSTONE
from sandbox.errors import (
    GuestError,
    GuestInputTooLarge,
    GuestOutputTooLarge,
    GuestTimeLimit,
    GuestTrapped,
    SandboxError,
)
from sandbox.hostcalls import HostCalls, HostServices
from sandbox.policy import effective_limits

Ask = Callable[..., Any]
"""``ask("kv", "get", "key")``: the host's answer, or an ``Err`` with the failure record."""
Native = Callable[[GuestCall, Ask], tuple[bool, str]]
"""Runs a call: whether the guest answers (or reports a failure), and its text."""
LogSink = Callable[[GuestCall, LogLine], None]


class NativeRuntime:
    """Implements :class:`kernel.ports.GuestRuntime` over ``native``. Calls run in threads."""

    def __init__(self, settings: Settings, services: HostServices, native: Native, log: LogSink | None = None) -> None:
        self._settings = settings
        self._services = services
        self._native = native
        self._log_sink = log

    async def prepare(self, digest: str, component: bytes, manifest: PluginManifest) -> None:
        """Nothing needs to be made ready."""

    def prepared(self, digest: str) -> bool:
        """Always."""
        return True

    async def forget(self, digest: str) -> None:
        """There is nothing kept."""

    async def close(self) -> None:
        """There is nothing to let go of."""

    async def call(self, call: GuestCall) -> GuestResult:
        """Run one call. Raises SandboxError's subclasses, as the sandbox does."""
        limits = effective_limits(call.manifest.limits, self._settings)
        if len(call.payload.encode("utf-8", "replace")) > limits.input:
            raise GuestInputTooLarge("The payload is larger than the plugin takes.", plugin=call.plugin, hook=call.hook)
        host = HostCalls(call, limits, self._services, asyncio.get_running_loop())
        seconds = min(limits.time_ms / 1_000, call.context.remaining())
        host.deadline = time.monotonic() + seconds
        generation = list(GENERATIONS)[-1]
        began, cpu = time.perf_counter_ns(), time.process_time_ns()
        ask = partial(_ask, host, generation)
        try:
            answered, text = await asyncio.wait_for(asyncio.to_thread(_run, self._native, call, ask), seconds)
        except TimeoutError as error:
            host.cancel()
            raise GuestTimeLimit(
                "The plugin did not answer in time.",
                plugin=call.plugin,
                hook=call.hook,
                tenant=call.context.tenant,
                expected=f"at most {limits.time_ms} ms (limits.time_ms)",
            ) from error
        except SandboxError as error:
            error.recording = host.recording
            raise
        finally:
            host.finish()
            if self._log_sink is not None:
                for line in host.logs:
                    self._log_sink(call, line)
        if not answered:
            failed = GuestError(
                f"The plugin reported a failure: {text or '(no message)'}",
                plugin=call.plugin,
                hook=call.hook,
                tenant=call.context.tenant,
                fix="The message is the plugin's own; its log may say more.",
            )
            failed.recording = host.recording
            raise failed
        if len(text.encode()) > limits.output:
            raise GuestOutputTooLarge("The plugin answered too much.", plugin=call.plugin, hook=call.hook)
        wall, used = time.perf_counter_ns() - began, time.process_time_ns() - cpu
        return GuestResult(
            output=text,
            effects=host.effects,
            usage=host.usage(wall // 1_000, used // 1_000, 0),
            logs=tuple(host.logs),
            recording=host.recording,
        )


class _Ended(BaseException):
    """The call is over: nothing in the guest can catch it, as nothing can go on after a trap."""

    def __init__(self, error: SandboxError) -> None:
        super().__init__(error)
        self.error = error


def _ask(host: HostCalls, generation: str, interface: str, function: str, *arguments: Any) -> Any:
    try:
        return _answer(host, generation, interface, function, arguments)
    except SandboxError as error:
        raise _Ended(error) from None


def _answer(host: HostCalls, generation: str, interface: str, function: str, arguments: tuple[Any, ...]) -> Any:
    name = f"{generation}/{interface}"
    answer = host.host(name, function)(*arguments)
    # A function without a result cannot tell of its refusal: the border drops it.
    return None if KEELSTONE[name][function].result is None else answer


def _run(native: Native, call: GuestCall, ask: Ask) -> tuple[bool, str]:
    try:
        return native(call, ask)
    except _Ended as end:
        raise end.error from None
    except Exception as error:
        raise GuestTrapped(
            f"The plugin crashed: {type(error).__name__}: {error}.",
            plugin=call.plugin,
            hook=call.hook,
            tenant=call.context.tenant,
            found=f"{type(error).__name__}: {error}",
        ) from error
