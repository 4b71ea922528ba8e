"""The marketplace in this machine's data folder, for whoever has it: its keys are what gives the right to change it.

Another process may serve the same folder meanwhile; it sees each change at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar, cast

from kernel.errors import NotFound
from kernel.settings import Settings
from marketplace.connect import max_package_bytes, registry_folder
from marketplace.registry import Registry, RegistryReader
from marketplace.registry.tables import FILE_NAME

T = TypeVar("T")


def present_folder(settings: Settings) -> Path:
    """The folder of the registry in the data folder. Raises NotFound if there is none."""
    folder = registry_folder(settings)
    if not (folder / FILE_NAME).exists():
        raise NotFound(
            "There is no marketplace in this data folder.",
            file=str(folder),
            fix="Run the command where the marketplace runs, with its KEELSTONE_HOME.",
        )
    return folder


@contextmanager
def reading(settings: Settings) -> Iterator[RegistryReader]:
    """A reader of the registry in the data folder. Raises NotFound if there is none."""
    reader = cast(RegistryReader, RegistryReader.open(present_folder(settings), settings.marketplace_severity))
    try:
        yield reader
    finally:
        reader.close()


def change(settings: Settings, work: Callable[[Registry], Awaitable[T]]) -> T:
    """What ``work`` does to the registry in the data folder, under the operator's rules.

    Raises NotFound if there is none, what opening it raises, and what ``work`` raises.
    """
    folder = present_folder(settings)

    async def run() -> T:
        registry = await asyncio.to_thread(
            Registry.open,
            folder,
            max_package_bytes=max_package_bytes(settings),
            rules=settings.marketplace_rules,
            threshold=settings.marketplace_severity,
        )
        try:
            return await work(registry)
        finally:
            await registry.close()

    return asyncio.run(run())
