"""What searching costs in PostgreSQL, with the catalogue of ``market.search`` and its questions.

Not one of ``make bench``'s rows, for it needs a server: ``python -m tests.benchmarks.search_postgres [plugins]`` takes
the one of the connected tests. It prints the median and the 95th percentile over all questions and over very common
words, for SQLite and for PostgreSQL, and how long it took to make the copy and to follow what changed.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from marketplace.registry import Registry
from marketplace.registry.search import SearchIndex, SqliteIndex
from marketplace.registry.search.feed import Feed, note_changes
from marketplace.registry.search.postgres import SharedSearch
from plugin_sdk.services import SearchFilters
from tests.benchmarks import bench_market
from tests.services import postgres_server

ROUNDS = 3
CLIENTS = 4


class _Nobody:
    """Answers nothing, so that only PostgreSQL is measured."""

    def search(self, query: str, limit: int, filters: SearchFilters | None = None) -> Any:
        raise RuntimeError(f"PostgreSQL did not answer {query!r}")

    facets = search


def _times(index: SearchIndex, asked: Sequence[str], filters: SearchFilters | None = None) -> list[float]:
    taken = []
    for query in asked:
        began = time.perf_counter()
        index.search(query, 20, filters)
        taken.append((time.perf_counter() - began) * 1e3)
    return sorted(taken)


def _said(name: str, index: SearchIndex, asked: Sequence[str], filters: SearchFilters | None = None) -> None:
    _times(index, asked, filters)
    rounds = [_times(index, asked, filters) for _ in range(ROUNDS)]
    p50 = statistics.median(taken[len(taken) // 2] for taken in rounds)
    p95 = statistics.median(taken[len(taken) * 95 // 100] for taken in rounds)
    print(f"{name:<48} p50 {p50:7.2f} ms   p95 {p95:7.2f} ms   most {max(t[-1] for t in rounds):7.2f} ms")


def _together(name: str, index: SearchIndex, asked: Sequence[str]) -> None:
    with ThreadPoolExecutor(CLIENTS) as threads:
        began = time.perf_counter()
        list(threads.map(lambda some: _times(index, some), [asked] * CLIENTS))
        print(f"{name:<48} {len(asked) * CLIENTS / (time.perf_counter() - began):7.0f} searches/s, {CLIENTS} at once")


def _until(done: Callable[[], bool]) -> float:
    began = time.perf_counter()
    while not done():
        time.sleep(0.01)
    return time.perf_counter() - began


def main() -> None:
    """Print it."""
    bench_market.PLUGINS = int(sys.argv[1]) if len(sys.argv) > 1 else bench_market.PLUGINS
    dice = random.Random(4)
    with tempfile.TemporaryDirectory() as home, postgres_server() as server:
        registry = Registry.open(Path(home) / "registry")
        words = bench_market._fill(registry, dice)
        asyncio.run(registry.renew())
        common = list(bench_market._COMMON)
        asked = [f"{dice.choice(words)} {dice.choice(common)}" for _ in range(40)]
        asked += [dice.choice(words) for _ in range(20)] + [word[:-2] + word[-1] for word in words[:20]]
        asked += [*common, "data user report", "sync mail"]
        tables = registry._tables
        feed, own = Feed(tables), SqliteIndex(tables)
        print(f"{bench_market.PLUGINS} plugins, {server.what}")
        shared = SharedSearch(server.url, feed, registry.trusted_root, _Nobody())
        shared.start()
        try:
            took = _until(lambda: shared.position == feed.newest() and shared.answered_by == "postgresql")
            print(f"{'copy made in':<48} {took:7.1f} s")
            narrow = SearchFilters(license="apache-2.0", contracts=("1.0.0",))
            indexes: list[tuple[str, SearchIndex]] = [("SQLite", own), ("PostgreSQL", shared)]
            for name, index in indexes:
                _said(f"{name}, all questions", index, asked)
                _said(f"{name}, very common words", index, [*common, "data user report", "sync mail"])
                _said(f"{name}, beginnings and parts of words", index, [w[:3] for w in words[:20]] + ["kalo", "uelo"])
                _said(f"{name}, narrowed, compatible only", index, asked, narrow)
                _together(name, index, asked)
            with tables.write() as connection:
                known = (
                    connection.exec_driver_sql("SELECT id FROM plugins ORDER BY random() LIMIT 1000").scalars().all()
                )
                note_changes(connection, known)
            shared.wake()
            took = _until(lambda: shared.position == feed.newest())
            print(f"{'1000 changes followed in':<48} {took:7.2f} s")
        finally:
            shared.close()
        asyncio.run(registry.close())


if __name__ == "__main__":
    main()
