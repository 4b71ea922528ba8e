"""What a dispatch came to, and how the effects of guests are saved: together with the caller's own work."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from kernel.errors import ConcurrencyConflict
from kernel.ports import Effects, KvConflict, KvStore, Transaction

P = TypeVar("P", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class GuestAnswer:
    """A guest's answer, lifted to what a built-in would return, with the effects to save."""

    value: Any
    effects: Effects


@dataclass(slots=True)
class Outcome(Generic[P]):
    """What a filter or decide dispatch came to.

    ``payload`` is the filtered payload (or the decision, or None). Save the guests' effects in the
    use case's own transaction with :meth:`save`, so that they are kept only if the work is.
    """

    payload: P
    tenant: str
    effects: list[tuple[str, Effects]] = field(default_factory=list)
    kv: KvStore | None = None

    async def save(self, transaction: Transaction) -> None:
        """Write the guests' effects. Raises ConcurrencyConflict if their state moved meanwhile."""
        for plugin, effects in self.effects:
            await save_effects(transaction, self.kv, self.tenant, plugin, effects)


async def save_effects(
    transaction: Transaction, kv: KvStore | None, tenant: str, plugin: str, effects: Effects
) -> None:
    """Save what one guest call wants kept: its KV writes and events. Raises ConcurrencyConflict."""
    if kv is not None and effects.kv_writes:
        try:
            await kv.apply(transaction, tenant, plugin, effects)
        except KvConflict as error:
            raise ConcurrencyConflict(
                f"The stored state of {plugin} was changed by another call meanwhile.",
                plugin=plugin,
                tenant=tenant,
                fix="Try again.",
            ) from error
    if effects.events:
        transaction.emit(f"plugin:{plugin}", *effects.events, tenant=tenant)
