"""Data folders for whole platforms: made once a session, copied for each module or test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.stage import Stage, copied, make_home


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an operator and the admins of acme and globex, not running."""
    return make_home(tmp_path_factory.mktemp("seeded") / "home")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(seeded: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """A running platform that the module's tests share."""
    async with Stage(copied(seeded, tmp_path_factory.mktemp("stage") / "home")) as running:
        yield running
