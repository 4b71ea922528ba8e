"""The search suite on PostgreSQL, and what its copy of the catalogue goes through."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest

from marketplace.keys import generate_key
from marketplace.namespaces import make_key_set
from marketplace.registry import Registry
from marketplace.registry.search import Listing, SearchIndex, SqliteIndex, update_listings
from marketplace.registry.search.feed import Feed
from marketplace.registry.search.postgres import SharedSearch, layout
from marketplace.registry.search.postgres import shared as shared_module
from marketplace.registry.search.query import Facets
from marketplace.registry.tables import Tables
from marketplace.service import create_app
from marketplace.testing import make_signed, write_plugin
from plugin_sdk.services import MarketplaceEntry, SearchFilters
from tests.benchmarks.guests import component
from tests.contract.suites.market_search import NOW, SearchSuite, Shop, catalogue, entry
from tests.support.documents import ROOT as REPOSITORY

__all__ = ["catalogue"]
pytestmark = pytest.mark.connected
ROOT = b"the first root"
OpenShared = Callable[..., SharedSearch]


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
    shared.start()
    yield Shop(tables, shared, lambda: caught_up(shared, tables))
    shared.close()


class TestSearch(SearchSuite):
    pass


def filled(tables: Tables, count: int, word: str = "invoice") -> None:
    """List many plugins."""
    with tables.write() as connection:
        listings = [
            Listing(f"crowd/{word}-{number}", entry(f"crowd/{word}-{number}", f"{word} {number}", "A tool."), "text")
            for number in range(count)
        ]
        update_listings(connection, listings, NOW)


@pytest.fixture
def open_shared(tables: Tables, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenShared]:
    """Opens the copy of the registry as another process would."""
    monkeypatch.setattr(shared_module, "RETRY_SECONDS", 0.1)
    opened: list[SharedSearch] = []

    def one(own: SearchIndex | None = None) -> SharedSearch:
        opened.append(SharedSearch(database_url, Feed(tables), ROOT, own or Nobody()))
        opened[-1].start()
        return opened[-1]

    yield one
    for each in opened:
        each.close()


@contextmanager
def shared_of(tables: Tables, url: str, root: bytes = ROOT) -> Iterator[SharedSearch]:
    """The copy of a registry, for a while."""
    shared = SharedSearch(url, Feed(tables), root, Nobody())
    shared.start()
    try:
        yield shared
    finally:
        shared.close()


def ask(url: str, statement: str) -> list[tuple[object, ...]]:
    """Ask PostgreSQL past everything."""

    async def run() -> list[tuple[object, ...]]:
        connection = await asyncpg.connect(url)
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    return asyncio.run(run())


DYING = """
import os, signal, sys, time
from pathlib import Path
from marketplace.registry.search import SqliteIndex
from marketplace.registry.search.feed import Feed
from marketplace.registry.search.postgres import SharedSearch, projection
from marketplace.registry.tables import Tables

folder, url, batches = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
projection.BATCH, make, made = 50, projection._records, []

def records(changed):
    made.append(1)
    if len(made) > batches:
        os.kill(os.getpid(), signal.SIGKILL)
    return make(changed)

projection._records = records
tables = Tables(folder)
SharedSearch(url, Feed(tables), b"the first root", SqliteIndex(tables)).start()
time.sleep(60)
"""


def die(tables: Tables, url: str, batches: int) -> None:
    """Keep the copy up in another process, which is killed after so many batches."""
    command = [sys.executable, "-c", DYING, str(tables.folder), url, str(batches)]
    assert subprocess.run(command, cwd=REPOSITORY, timeout=60, check=False).returncode == -signal.SIGKILL


def test_a_copy_whose_making_was_killed_is_made_by_the_next(
    tables: Tables, database_url: str, open_shared: OpenShared
) -> None:
    filled(tables, 400)
    die(tables, database_url, 3)
    shared = open_shared()
    caught_up(shared, tables)
    assert len(shared.search("invoice", 500)) == 400
    left = ask(database_url, "SELECT tablename FROM pg_tables WHERE tablename ~ '^(listing|spelling)_'")
    assert sorted(name for (name,) in left) == ["listing_1", "spelling_1"], "what the killed one made is gone"


def test_a_copy_left_behind_by_a_kill_catches_up_without_being_made_anew(
    tables: Tables, database_url: str, open_shared: OpenShared
) -> None:
    filled(tables, 100)
    first = open_shared()
    caught_up(first, tables)
    first.close()
    filled(tables, 400, "ledger")
    die(tables, database_url, 4)
    schema = first.schema
    assert ask(database_url, f"SELECT position FROM {schema}.state") == [(300,)], "four batches of fifty, each whole"
    assert ask(database_url, f"SELECT count(*) FROM {schema}.listing_1") == [(300,)]
    second = open_shared()
    caught_up(second, tables)
    assert len(second.search("ledger", 500)) == 400
    assert (second.projection.rebuilt, second.projection.replayed) == (0, 200)


def test_several_processes_share_one_copy_and_do_each_thing_once(tables: Tables, open_shared: OpenShared) -> None:
    filled(tables, 50)
    together = [open_shared() for _ in range(4)]
    for shared in together:
        caught_up(shared, tables)
    for number in range(20):
        filled(tables, number + 1, f"word{number}x")
        together[number % 4].wake()
    for shared in together:
        caught_up(shared, tables)
        assert [len(shared.search(f"word{number}x", 50)) for number in range(20)] == list(range(1, 21))
    assert sum(shared.projection.rebuilt for shared in together) == 1
    assert sum(shared.projection.replayed for shared in together) == sum(range(1, 21))


def test_searches_go_on_while_the_copy_is_made_anew(tables: Tables, database_url: str, open_shared: OpenShared) -> None:
    filled(tables, 300)
    one, other = open_shared(), open_shared()
    for shared in (one, other):
        caught_up(shared, tables)
    stop, wrong, asked = threading.Event(), list[object](), [0]

    def keep_asking() -> None:
        while not stop.is_set():
            try:
                found = len(one.search("invoice", 400))
                asked[0] += 1
            except AssertionError as error:
                wrong.append(error)
            else:
                if found != 300:
                    wrong.append(found)

    askers = [threading.Thread(target=keep_asking) for _ in range(3)]
    for each in askers:
        each.start()
    for build in (2, 3, 4):
        ask(database_url, f"UPDATE {one.schema}.state SET position = {2**62}")
        until(lambda b=build: ask(database_url, f"SELECT build FROM {one.schema}.state") == [(b,)], "made anew")  # type: ignore[misc]
        caught_up(one, tables)
    stop.set()
    for each in askers:
        each.join()
    assert wrong == []
    assert asked[0] > 20


def test_while_postgresql_is_away_the_registry_answers_and_publishing_goes_on(
    tables: Tables, database_url: str, open_shared: OpenShared, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tables, 5)
    shared = open_shared(SqliteIndex(tables))
    caught_up(shared, tables)
    base, _, name = database_url.rpartition("/")
    ask(f"{base}/postgres", f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    ask(f"{base}/postgres", f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    until(lambda: shared.answered_by.startswith("sqlite: "), "it is away")
    filled(tables, 7, "ledger")
    assert len(shared.search("ledger", 20)) == 7
    assert shared.facets("ledger").counted == 7
    assert len([each for each in caplog.records if each.levelname == "WARNING"]) == 1, "it is said once"
    ask(f"{base}/postgres", f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    caught_up(shared, tables)
    shared._own = Nobody()
    assert len(shared.search("ledger", 20)) == 7


async def test_a_postgresql_that_hangs_is_waited_for_once(
    tables: Tables, database_url: str, open_shared: OpenShared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_module, "SEARCH_SECONDS", 0.5)
    filled(tables, 5)
    shared = open_shared(SqliteIndex(tables))
    await asyncio.to_thread(caught_up, shared, tables)
    holder = await asyncpg.connect(database_url)
    holding = holder.transaction()
    await holding.start()
    await holder.execute(f"LOCK TABLE {shared.schema}.state IN ACCESS EXCLUSIVE MODE")
    assert len(await asyncio.to_thread(shared.search, "invoice", 9)) == 5
    assert shared.answered_by.startswith("sqlite: ")
    waited: list[object] = []
    monkeypatch.setattr(shared, "_wait", lambda work: waited.append(work))
    assert len(await asyncio.to_thread(shared.search, "invoice", 9)) == 5
    assert waited == []
    monkeypatch.undo()
    await holding.rollback()
    await holder.close()
    await asyncio.to_thread(caught_up, shared, tables)


def test_a_registry_from_an_older_backup_is_copied_anew(
    tables: Tables, open_shared: OpenShared, tmp_path: Path
) -> None:
    filled(tables, 20)
    backup = tmp_path / "backup"
    backup.mkdir()
    source, target = sqlite3.connect(tables.folder / "registry.db"), sqlite3.connect(backup / "registry.db")
    source.backup(target)
    source.close()
    target.close()
    filled(tables, 30, "ledger")
    first = open_shared()
    caught_up(first, tables)
    first.close()
    restored = Tables(backup)
    for other, expected in ((0, 0), (30, 30)):  # behind the copy; then at its very number, with another history
        filled(restored, other, "parcel")
        with shared_of(restored, first._url) as shared:
            caught_up(shared, restored)
            assert (len(shared.search("ledger", 99)), len(shared.search("parcel", 99))) == (0, expected)
    restored.close()


def test_without_trigrams_parts_of_words_are_found_too(
    tables: Tables, open_shared: OpenShared, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(connection: object) -> None:
        return None

    monkeypatch.setattr(layout, "_trigrams", none)
    filled(tables, 3)
    shared = open_shared()
    caught_up(shared, tables)
    assert len(shared.search("nvoic", 9)) == 3
    assert len(shared.search("nvoic", 9, SearchFilters(publisher="crowd"))) == 3
    assert len(shared.search("invoiec", 9)) == 3
    assert shared.search("nvoic", 9, SearchFilters(publisher="none")) == []


def test_a_copy_that_was_dropped_is_made_anew(tables: Tables, database_url: str, open_shared: OpenShared) -> None:
    filled(tables, 5)
    shared = open_shared(SqliteIndex(tables))
    caught_up(shared, tables)
    ask(database_url, f"DROP SCHEMA {shared.schema} CASCADE")
    assert len(shared.search("invoice", 9)) == 5
    until(lambda: shared.projection.rebuilt == 2, "made anew")
    filled(tables, 3, "ledger")
    caught_up(shared, tables)
    shared._own = Nobody()
    assert len(shared.search("ledger", 9)) == 3


def test_a_database_that_cannot_keep_all_letters_is_not_used(
    tables: Tables, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    base, _, name = database_url.rpartition("/")
    ask(f"{base}/postgres", f"CREATE DATABASE {name}_latin ENCODING LATIN1 LOCALE 'C' TEMPLATE template0")
    try:
        shared = SharedSearch(f"{base}/{name}_latin", Feed(tables), ROOT, SqliteIndex(tables))
        shared.start()
        until(lambda: bool(caplog.records), "a warning")
        assert "cannot keep all letters" in shared.answered_by
        shared.close()
    finally:
        ask(f"{base}/postgres", f"DROP DATABASE {name}_latin WITH (FORCE)")


def test_registries_do_not_meet_in_one_database(tables: Tables, database_url: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    theirs = Tables(other)
    theirs.create()
    filled(tables, 3)
    filled(theirs, 2, "ledger")
    with shared_of(tables, database_url) as one, shared_of(theirs, database_url, b"another root") as two:
        caught_up(one, tables)
        caught_up(two, theirs)
        assert [len(one.search(word, 9)) for word in ("invoice", "ledger")] == [3, 0]
        assert [len(two.search(word, 9)) for word in ("invoice", "ledger")] == [0, 2]
    theirs.close()


async def test_what_is_published_can_be_found_and_the_service_says_where(tmp_path: Path, database_url: str) -> None:
    key = generate_key()
    registry = Registry.open(tmp_path / "registry", search_url=database_url)
    transport = httpx.ASGITransport(create_app(registry))
    keeper = asyncio.create_task(registry.keep_fresh())
    async with httpx.AsyncClient(transport=transport, base_url="http://market") as http:
        await registry.register_namespace(make_key_set("acme", [key]).document)
        signed = make_signed(write_plugin(tmp_path / "source", "acme/guard"), key, component("wrap"))
        await registry.publish(signed.package.data, signed.envelope)
        shared = registry.reader.search_index
        assert isinstance(shared, SharedSearch)
        shared._own = Nobody()
        await asyncio.to_thread(caught_up, shared, registry._tables)
        found = (await http.get("/search", params={"q": "gaurd", "facets": True})).json()
        assert [each["id"] for each in found["results"]] == ["acme/guard"]
        assert found["facets"]["values"]["publisher"] == {"acme": 1}
        assert (await http.get("/healthz")).json() == {"status": "ok", "search": "postgresql"}
        await registry.revoke("acme/guard", signed.package.manifest.version, "It is bad.")
        await asyncio.to_thread(caught_up, shared, registry._tables)
        assert (await http.get("/search", params={"q": "guard"})).json()["results"] == []
    keeper.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeper
    await registry.close()
