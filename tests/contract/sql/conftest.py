"""The SQL suites on SQLite."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contract.suites.fixtures import database, open_database

__all__ = ["database", "database_url", "open_database"]


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'keelstone.db'}?synchronous=normal"
