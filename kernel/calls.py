"""One guarded call of one implementation: breaker, bulkhead, deadline, and errors that say where.

Not async where it need not be: most implementations never suspend, and this is the hottest path.
"""

from __future__ import annotations

import asyncio
from types import CoroutineType
from typing import Any

from kernel.context import Context
from kernel.errors import (
    BreakerOpen,
    BudgetSpent,
    BulkheadFull,
    DeadlineExceeded,
    KeelstoneError,
    PluginFailed,
    PluginQuarantined,
    Rejected,
)
from kernel.hookspecs import HookSpec
from kernel.implementations import HookRegistry, Implementation
from kernel.resilience import finish_within

TOO_LARGE = 413
"""Status of an error that is about the payload: it is the caller's to mend, so it is passed on as it is."""
_INFINITE = float("inf")


class GuardedCalls:
    """Calls implementations. What goes wrong comes out as a KeelstoneError that names the place."""

    def __init__(self, registry: HookRegistry) -> None:
        self._registry = registry

    def call(self, impl: Implementation, spec: HookSpec, payload: Any, context: Context) -> Any:
        """Call one implementation under its breaker and bulkhead.

        Gives its value, or, if it suspended, a coroutine that finishes it under its deadline. Raises
        BreakerOpen, BulkheadFull, DeadlineExceeded, Rejected or what the implementation came to.
        """
        breaker = impl.breaker
        era = 0
        if breaker is not None:
            if breaker.state != "closed" and not breaker.allow():
                raise self._rested(impl, spec, context)
            era = breaker.era
        if impl.active >= impl.limit:
            raise self._full(impl, spec, context, era)
        impl.active += 1
        try:
            value = impl.call(payload, context)
            if type(value) is CoroutineType:
                try:
                    awaited = value.send(None)
                except StopIteration as done:
                    value = done.value
                else:
                    # It suspended: what is left of it gets a timer of its own.
                    impl.active += 1
                    return self._finish(impl, spec, value, awaited, context, era)
        except asyncio.CancelledError:
            if breaker is not None:
                breaker.abandon(era)
            raise
        except (Exception, SystemExit) as error:
            raise self._failed(impl, spec, context, error, era) from error
        finally:
            impl.active -= 1
        if breaker is not None and (breaker.failures or breaker.state != "closed"):
            breaker.success(era)
        return value

    async def _finish(
        self, impl: Implementation, spec: HookSpec, coroutine: Any, awaited: Any, context: Context, era: int
    ) -> Any:
        breaker = impl.breaker
        try:
            seconds = impl.seconds
            if context.deadline != _INFINITE:
                seconds = min(seconds, context.remaining())
            value = await finish_within(coroutine, awaited, seconds)
        except asyncio.CancelledError:
            if breaker is not None:
                breaker.abandon(era)
            raise
        except (Exception, SystemExit) as error:
            raise self._failed(impl, spec, context, error, era) from error
        finally:
            impl.active -= 1
        if breaker is not None:
            breaker.success(era)
        return value

    def _rested(self, impl: Implementation, spec: HookSpec, context: Context) -> BreakerOpen:
        failures = impl.breaker.failures if impl.breaker is not None else 0
        return BreakerOpen(
            f"{impl.plugin} failed {failures} times in a row and is being rested.",
            plugin=impl.plugin,
            hook=spec.name,
            tenant=context.tenant,
            fix="It is tried again by itself; see the plugin's log for the first failure.",
        )

    def _full(self, impl: Implementation, spec: HookSpec, context: Context, era: int) -> BulkheadFull:
        if impl.breaker is not None:
            impl.breaker.abandon(era)
        return BulkheadFull(
            f"{impl.plugin} already has {impl.active} calls under way.",
            plugin=impl.plugin,
            hook=spec.name,
            tenant=context.tenant,
            expected=f"at most {impl.limit}",
            found=impl.active,
        )

    def _failed(
        self, impl: Implementation, spec: HookSpec, context: Context, error: BaseException, era: int
    ) -> KeelstoneError:
        if isinstance(error, Rejected):
            # A refusal is an answer, not a failure.
            if impl.breaker is not None:
                impl.breaker.success(era)
            return _placed(error, impl, spec, context)
        if _blameless(error, context):
            if impl.breaker is not None:
                impl.breaker.abandon(era)
        else:
            breaker = self._registry.breaker_of(impl, context.tenant, spec.name)
            breaker.error = _summary(error)
            breaker.failure(era)
        if isinstance(error, KeelstoneError):
            return _placed(error, impl, spec, context)
        return PluginFailed(
            f"{impl.plugin} raised {type(error).__name__}: {error}",
            plugin=impl.plugin,
            hook=spec.name,
            tenant=context.tenant,
            fix="See the plugin's log; other plugins and tenants are not affected.",
        )


def _summary(error: BaseException) -> str:
    """What a breaker remembers of a failure: enough to know it by, too little to hold a payload."""
    if isinstance(error, KeelstoneError):
        text = f"{error.code}: {error.detail}"[:300]
    else:
        text = f"{PluginFailed.code}: {type(error).__name__}: {error}"[:300]
    # Late, for it is needed only when something fails, and brings the whole of telemetry along.
    from kernel.telemetry import mask

    # It goes into the database and into an event: no address or token, and clean text.
    return str(mask(text)).replace("\0", "").encode("utf-8", "replace").decode()


_NOT_ITS_FAULT = (BulkheadFull, BudgetSpent, PluginQuarantined)


def _blameless(error: BaseException, context: Context) -> bool:
    """A full sandbox, a spent budget, a withdrawal, the caller's own deadline or too large a payload say
    nothing about the plugin's health."""
    if not isinstance(error, KeelstoneError):
        return False
    late = error.status == DeadlineExceeded.status and context.remaining() <= 0
    return late or isinstance(error, _NOT_ITS_FAULT) or error.status == TOO_LARGE


def _placed(error: KeelstoneError, impl: Implementation, spec: HookSpec, context: Context) -> KeelstoneError:
    error.plugin = error.plugin or impl.plugin
    error.hook = error.hook or spec.name
    error.tenant = error.tenant or context.tenant
    return error
