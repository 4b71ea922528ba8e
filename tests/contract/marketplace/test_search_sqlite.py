"""The search suite on the index in the registry's own file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from marketplace.registry.search import SqliteIndex
from marketplace.registry.tables import Tables
from tests.contract.suites.market_search import SearchSuite, Shop, catalogue

__all__ = ["catalogue"]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    tables = Tables(tmp_path)
    tables.create()
    yield Shop(tables, SqliteIndex(tables))
    tables.close()


class TestSearch(SearchSuite):
    pass
