"""What a copy of the catalogue is fed from, and what answers where there is none."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.errors import ConfigurationError
from marketplace.registry import Registry
from marketplace.registry.search import Listing, SqliteIndex, Standing, refresh_standings, update_listings
from marketplace.registry.search.feed import Feed
from marketplace.registry.search.postgres import SharedSearch
from marketplace.registry.search.postgres.projection import MOST_TEXT_BYTES, _bounded, facet_key
from marketplace.registry.tables import Tables
from tests.contract.suites.market_search import NOW, at, entry
from tests.services.base import free_port


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Tables]:
    found = Tables(tmp_path)
    found.create()
    yield found
    found.close()


def put(tables: Tables, *names: str, there: bool = True) -> None:
    with tables.write() as connection:
        listings = [
            Listing(f"acme/{name}", entry(f"acme/{name}", name, "A tool.") if there else None, name, Standing(at(1)))
            for name in names
        ]
        update_listings(connection, listings, NOW)


def told(feed: Feed, after: int, most: int = 99) -> list[tuple[int, str, bool]]:
    return [(each.change, each.plugin, each.slot is not None) for each in feed.after(after, most)]


def test_each_change_has_the_next_number_and_a_plugin_its_latest(tables: Tables) -> None:
    feed = Feed(tables)
    assert (feed.newest(), told(feed, 0)) == (0, [])
    put(tables, "a", "b", "c")
    assert told(feed, 0) == [(1, "acme/a", True), (2, "acme/b", True), (3, "acme/c", True)]
    put(tables, "b")
    put(tables, "a", there=False)
    assert told(feed, 3) == [(4, "acme/b", True), (5, "acme/a", False)]
    assert told(feed, 0, most=2) == [(3, "acme/c", True), (4, "acme/b", True)]
    assert feed.newest() == 5
    assert [each.plugin for part in feed.listed(1) for each in part] == ["acme/b", "acme/c"]
    assert {word for part in feed.spellings(2) for _, word in part} == {"acme"}


def test_a_change_of_standing_is_told_and_one_that_is_undone_is_not(tables: Tables) -> None:
    feed = Feed(tables)
    put(tables, "a", "b")
    with tables.write() as connection:
        moved = refresh_standings(connection, NOW + 900 * 86_400)
    assert (moved, told(feed, 2)) == (2, [(3, "acme/a", True), (4, "acme/b", True)])

    def undone() -> None:
        with tables.write() as connection:
            update_listings(connection, [Listing("acme/a", None, None)], NOW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        undone()
    assert feed.newest() == 4


def test_two_histories_of_one_length_are_told_apart(tmp_path: Path) -> None:
    sums = []
    for name, plugins in (("one", ("a", "b", "a")), ("two", ("a", "b", "b"))):
        (tmp_path / name).mkdir()
        tables = Tables(tmp_path / name)
        tables.create()
        for plugin in plugins:
            put(tables, plugin)
        put(tables, "a" if name == "one" else "b", there=False)
        sums.append(Feed(tables).sums())
        tables.close()
    assert sums[0][0] == sums[1][0] == 4
    assert sums[0] != sums[1]


def test_a_text_is_bounded_as_postgresql_bounds_it() -> None:
    words = [f"word{number:06}" for number in range(200_000)]
    assert sum(len(word) for word in _bounded([*words, *words])) <= MOST_TEXT_BYTES
    assert _bounded(["short", "x" * 4_000, "short", "ü" * 200]) == ["short"]
    assert facet_key("keyword", "A\x00B\ud800") == "keyword:ab"


@pytest.mark.parametrize("url", ["mysql://user:hidden@host/db", "user:hidden@host", ""])
def test_an_address_that_is_none_is_refused_at_the_start(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Registry.open(tmp_path, search_url=url)
    assert "hidden" not in str(refused.value.__dict__) + str(refused.value)


def test_where_nobody_answers_the_registry_does_and_a_warning_says_so(
    tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    put(tables, "guard")
    url = f"postgresql://keelstone:hidden@127.0.0.1:{free_port()}/none"
    shared = SharedSearch(url, Feed(tables), b"root", SqliteIndex(tables))
    assert shared.answered_by == "sqlite: the copy in PostgreSQL is not made yet"
    shared.start()
    deadline = time.monotonic() + 30
    while not caplog.records and time.monotonic() < deadline:
        assert [each.id for each in shared.search("guard", 9)] == ["acme/guard"]
        time.sleep(0.01)
    (warning,) = [each for each in caplog.records if each.name == "keelstone.marketplace.search"]
    assert warning.levelno == logging.WARNING
    assert "hidden" not in warning.getMessage()
    assert shared.answered_by.startswith("sqlite: ")
    assert shared.facets("guard").counted == 1
    shared.close()


def test_what_is_never_started_answers_and_ends(tables: Tables) -> None:
    put(tables, "guard")
    shared = SharedSearch("postgresql://127.0.0.1:1/none", Feed(tables), b"root", SqliteIndex(tables))
    shared.wake()
    assert [each.id for each in shared.search("guard", 9)] == ["acme/guard"]
    shared.close()
