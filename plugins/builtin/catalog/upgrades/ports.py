"""What the use cases of upgrades need from their storage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from plugin_sdk.services import Transaction
from plugins.builtin.catalog.upgrades.domain import Upgrade
from plugins.builtin.catalog.upgrades.windows import Window


class UpgradeRepository(Protocol):
    """Where upgrades (their owner's), figures (the tenant's they are about) and windows are kept."""

    async def add(self, transaction: Transaction, upgrade: Upgrade) -> None: ...

    async def save(self, transaction: Transaction, upgrade: Upgrade) -> bool:
        """False if somebody else changed it since it was read."""
        ...

    async def find(
        self, transaction: Transaction, *, plugin: str | None = None, states: Iterable[str] = (), limit: int = 200
    ) -> list[Upgrade]: ...

    async def get(self, transaction: Transaction, id: str) -> Upgrade | None: ...

    async def put_figures(
        self, transaction: Transaction, upgrade: str, instance: str, arm: str, data: Mapping[str, Any]
    ) -> None: ...

    async def figures(self, transaction: Transaction, upgrade: str) -> list[tuple[str, str, Mapping[str, Any]]]:
        """(tenant, arm, figures) of every process."""
        ...

    async def forget(self, transaction: Transaction, plugin: str) -> None: ...

    async def windows(self, transaction: Transaction) -> dict[str, Window]: ...

    async def put_window(self, transaction: Transaction, window: Window | None) -> None: ...
