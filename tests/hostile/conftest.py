"""A door for every test; what it compiles is kept for the session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from kernel.adapters.sql import SqlDatabase
from tests.hostile.door import Door, open_door, shape_of

Opener = Callable[..., AbstractAsyncContextManager[Door]]


@pytest.fixture(scope="session")
def hostile_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with its tables, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "keelstone.db"

    async def migrate() -> None:
        database = SqlDatabase(f"sqlite+aiosqlite:///{path}")
        await database.start()
        await database.migrate([])
        await database.close()

    asyncio.run(migrate())
    return path


@pytest.fixture(params=["auto", "package", "apart"])
def lane(request: pytest.FixtureRequest) -> str:
    """Nothing here depends on which way into wasmtime is taken, nor on whose process it is."""
    return str(request.param)


@pytest.fixture
def doors(hostile_home: Path, migrated: Path, tmp_path: Path, lane: str) -> Opener:
    """Opens a door with the given settings: ``async with doors(sandbox_threads=4) as door``."""

    def opened(**changes: Any) -> AbstractAsyncContextManager[Door]:
        return open_door(hostile_home, migrated, tmp_path, **(shape_of(lane) | changes))

    return opened


@pytest.fixture
async def door(doors: Opener) -> AsyncIterator[Door]:
    async with doors() as opened:
        yield opened
