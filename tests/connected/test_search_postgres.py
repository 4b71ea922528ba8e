"""The search suite on PostgreSQL, and what its copy of the catalogue goes through."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from marketplace.registry.search import SqliteIndex
from marketplace.registry.search.feed import Feed
from marketplace.registry.search.postgres import SharedSearch
from marketplace.registry.search.query import Facets
from marketplace.registry.tables import Tables
from plugin_sdk.services import MarketplaceEntry, SearchFilters
from tests.contract.suites.market_search import SearchSuite, Shop, catalogue

__all__ = ["catalogue"]
pytestmark = pytest.mark.connected
ROOT = b"the first root"


class Nobody:
    """The index that must not be asked."""

    def search(self, query: str, limit: int, filters: SearchFilters | None = None) -> list[MarketplaceEntry]:
        raise AssertionError(f"{query!r} was not answered by PostgreSQL")

    def facets(self, query: str, filters: SearchFilters | None = None) -> Facets:
        raise AssertionError(f"{query!r} was not answered by PostgreSQL")


def until(done: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Wait for something."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def caught_up(shared: SharedSearch, tables: Tables) -> None:
    """Wait until the copy has what the registry has, and answers."""
    shared.wake()
    newest = Feed(tables).newest()
    until(lambda: shared.position == newest and shared.answered_by == "postgresql", shared.answered_by)


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Tables]:
    found = Tables(tmp_path)
    found.create()
    yield found
    found.close()


@pytest.fixture
def shop(tables: Tables, database_url: str) -> Iterator[Shop]:
    shared = SharedSearch(database_url, Feed(tables), ROOT, Nobody())
    yield Shop(tables, shared, lambda: caught_up(shared, tables))
    shared.close()


class TestSearch(SearchSuite):
    pass
