"""What the registry's own index has beside what every search index does (tests/contract/suites/market_search.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from marketplace.registry.search import (
    Standing,
    merge_index,
    note_downloads,
    parted,
    refresh_standings,
    search,
    update_search,
)
from marketplace.registry.search.ranking import LEVELS, level
from marketplace.registry.tables import Tables
from tests.contract.suites.market_search import NOW, at, entry


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sa.Connection]:
    tables = Tables(tmp_path)
    tables.create()
    with tables.write() as connection:
        yield connection
    tables.close()


def ids(connection: sa.Connection, query: str, limit: int = 20) -> list[str]:
    return [e.id for e in search(connection, query, limit)]


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (Standing(at(1), downloads=5_000), Standing(at(1), downloads=20)),
        (Standing(at(10)), Standing(at(900))),
        (Standing(at(1)), Standing(at(1), findings=4)),
        (Standing(at(900), findings=9), Standing(None, findings=9)),
        (Standing(at(10), verified=1.0), Standing(at(10))),
        (Standing(at(10), verified=1.0), Standing(at(10), verified=0.5)),
        (Standing(at(10), verified=0.5), Standing(at(10))),
    ],
)
def test_what_is_used_fresh_and_healthy_ranks_higher(better: Standing, worse: Standing) -> None:
    assert 0 <= level(better, NOW, deprecated=False) < level(worse, NOW, deprecated=False) <= LEVELS
    assert level(better, NOW, deprecated=True) > level(worse, NOW, deprecated=False)


def test_downloads_move_a_plugin_up_and_count_for_a_season(connection: sa.Connection) -> None:
    for name in ("first", "second"):
        found = entry(f"crowd/{name}", "Invoice maker", "Makes invoices.", ())
        update_search(connection, found.id, found, "", standing=Standing(at(1)), now=NOW)
    values = "('crowd/second', '1.0.0', 'd1', 1, '*', '', '{}', '{}')"
    columns = "plugin, version, digest, size, kernel, published, manifest, envelope"
    connection.exec_driver_sql(f"INSERT INTO releases({columns}) VALUES {values}")
    assert ids(connection, "invoice") == ["crowd/first", "crowd/second"]
    note_downloads(connection, {"d1": 700, "unknown": 9}, NOW)
    note_downloads(connection, {"d1": 700}, NOW)
    assert refresh_standings(connection, NOW) > 0
    assert ids(connection, "invoice") == ["crowd/second", "crowd/first"]
    assert refresh_standings(connection, NOW) == 0
    note_downloads(connection, {}, NOW + 91 * 86_400)
    refresh_standings(connection, NOW + 91 * 86_400)
    assert ids(connection, "invoice") == ["crowd/first", "crowd/second"]


def test_an_index_in_many_parts_is_merged_and_finds_the_same(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.create()
    with tables.write() as connection:
        # Each transaction is a part; SQLite itself merges only from 16 parts of one size on.
        connection.exec_driver_sql("INSERT INTO plugin_text(plugin_text, rank) VALUES ('automerge', 0)")
    for n in range(12):
        with tables.write() as connection:
            id = f"crowd/tool-{n}"
            update_search(connection, id, entry(id, f"Tool {n}", "A common thing.", ()), f"word{n} " * 50)
    queries = ["thing", "word7", "tool 3", "wrod11"]
    with tables.read() as connection:
        assert "plugin_text" in parted(connection)
        before = [ids(connection, query) for query in queries]
    begin = more = True
    calls = 0
    while more:
        with tables.write() as connection:
            more, begin = merge_index(connection, "plugin_text", begin=begin), False
        calls += 1
        assert calls < 100
    with tables.read() as connection:
        assert "plugin_text" not in parted(connection)
        assert [ids(connection, query) for query in queries] == before
        assert before[1] == ["crowd/tool-7"]
        connection.exec_driver_sql("INSERT INTO plugin_text(plugin_text) VALUES ('integrity-check')")
    tables.close()
