"""The rows of the marketplace but ``market.kill`` and ``market.resolve``: what finding, publishing and trust cost.

Search: the 95th percentile over realistic, misspelt and very common words in a catalogue of 100,000 plugins,
against the bare full-text index asked for one rare word. Publish: from handing a release in to having it installed
from a cache that knew nothing, beside 100,000 plugins that are in search and in the signed metadata. Verify: a
package's whole chain offline, against the bare check of its signature. Update check: what a platform that is up to
date sends for, by requests and bytes. Publish rate: releases a second handed in at once (which are signed in
batches), against one after another.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from marketplace.client import MarketplaceClient
from marketplace.index import index_path
from marketplace.keys import SigningKey, generate_key
from marketplace.namespaces import make_key_set
from marketplace.publishing import SignedPackage
from marketplace.registry import Registry
from marketplace.registry.metadata import MetadataRows
from marketplace.registry.search import Standing, update_search
from marketplace.signing import canonical_json, verify_release
from marketplace.testing import make_signed, write_plugin
from marketplace.transport import RegistryTransport
from plugin_sdk.services import MarketplaceEntry, SearchFilters
from tests.benchmarks.guests import component
from tests.benchmarks.measure import absolute, alternate, row

PLUGINS = 100_000
ALONE, TOGETHER = 32, 512
ROUNDS = 5
_COMMON = ("sync", "data", "user", "report", "mail", "crm", "guard", "team", "export", "alert")
_SYLLABLES = ("ka", "lo", "mi", "ter", "vo", "ran", "sel", "du", "pix", "nor", "que", "ba")


class _Counting:
    """A transport that counts what it is asked for and what it hands over."""

    def __init__(self, inner: RegistryTransport) -> None:
        self._inner, self.requests, self.bytes = inner, 0, 0

    def stream(self, path: str) -> Iterator[bytes]:
        self.requests += 1
        for piece in self._inner.stream(path):
            self.bytes += len(piece)
            yield piece

    def search(self, query: str, limit: int, filters: SearchFilters) -> list[str]:
        return self._inner.search(query, limit, filters)

    def close(self) -> None:
        self._inner.close()


def _signed(folder: Path, key: SigningKey, plugin: str) -> SignedPackage:
    return make_signed(write_plugin(folder, plugin), key, component("wrap"))


async def _trust(home: Path) -> list[dict[str, Any]]:
    key, registry = generate_key(), Registry.open(home / "registry")
    await registry.register_namespace(make_key_set("acme", [key]).document)
    signed = _signed(home / "source", key, "acme/guard")
    await registry.publish(signed.package.data, signed.envelope)
    road = _Counting(RegistryTransport(registry.reader))
    client = MarketplaceClient(road, home / "cache", registry.trusted_root)
    await client.verify(signed.package.data, signed.envelope)
    keys = registry.reader.key_set("acme").keys

    async def whole() -> float:
        began = time.perf_counter()
        await client.verify(signed.package.data, signed.envelope, offline=True)
        return (time.perf_counter() - began) * 1e3

    def bare() -> float:
        began = time.perf_counter()
        verify_release(signed.package, signed.envelope, keys)
        return (time.perf_counter() - began) * 1e3

    await whole()
    bare()
    pairs = [(await whole(), bare()) for _ in range(25)]
    ours, baseline = [a for a, _ in pairs], [b for _, b in pairs]
    verify = row(
        "market.verify",
        ours=ours,
        baseline=baseline,
        unit="ms",
        target="<= 50 ms",
        met=lambda _: statistics.median(ours) <= 50,
    )
    road.requests = road.bytes = 0
    await client.index("acme/guard")
    requests, size = road.requests, road.bytes
    check = absolute(
        "market.update_check",
        values=[float(size)],
        unit=f"bytes in {requests} requests",
        target="<= 10 kB in <= 2",
        met=lambda value: value <= 10_000 and requests <= 2,
    )
    await client.close()
    await registry.close()
    return [verify, check]


async def _rate(home: Path) -> dict[str, Any]:
    key, registry = generate_key(), Registry.open(home / "registry")
    await registry.register_namespace(make_key_set("acme", [key]).document)
    number = iter(range(1_000_000))

    def releases(count: int) -> list[SignedPackage]:
        return [_signed(home / "source", key, f"acme/p{next(number)}x") for _ in range(count)]

    together, alone = [], []
    for _ in range(3):
        lot = releases(ALONE)
        began = time.perf_counter()
        for each in lot:
            await registry.publish(each.package.data, each.envelope)
        alone.append(ALONE / (time.perf_counter() - began))
        lot = releases(TOGETHER)
        began = time.perf_counter()
        await asyncio.gather(*(registry.publish(each.package.data, each.envelope) for each in lot))
        together.append(TOGETHER / (time.perf_counter() - began))
    await registry.close()
    return row(
        "market.publish_rate",
        ours=together,
        baseline=alone,
        unit="releases/s at once",
        target=">= 20x one at a time",
        met=lambda ratio: ratio >= 20,
        higher_is_better=True,
    )


def _word(dice: random.Random) -> str:
    return "".join(dice.choice(_SYLLABLES) for _ in range(dice.randint(2, 4)))


def _fill(registry: Registry, dice: random.Random) -> list[str]:
    """The catalogue; the titles' words. Some words are in every tenth text, as they are in real ones."""
    words = [_word(dice) for _ in range(4_000)]
    with registry._tables.write() as connection:
        for number in range(PLUGINS):
            chosen = [dice.choice(words), dice.choice(_COMMON)]
            name = " ".join(chosen).title()
            plugin = f"{dice.choice(words)}/{'-'.join(chosen)}-{number}"
            text = " ".join(dice.choice(words) for _ in range(20)) + " " + " ".join(dice.sample(_COMMON, 3))
            entry = MarketplaceEntry(
                plugin, name, f"Does {dice.choice(_COMMON)} for {dice.choice(words)}.", "1.0.0", ("1.0.0",),
                "Apache-2.0", plugin.partition("/")[0], (dice.choice(_COMMON),),
            )  # fmt: skip
            released = f"20{dice.randint(20, 26)}-01-01T00:00:00Z"
            standing = Standing(released, dice.randint(0, 2), int(dice.paretovariate(0.5)))
            update_search(connection, plugin, entry, text, standing=standing)
        connection.exec_driver_sql(
            "INSERT INTO plugin_text(rowid, about) VALUES (?, 'zyzzyva')",
            (1 << 50,),
        )
    return words


def _sign(registry: Registry) -> None:
    """Let the metadata list every plugin of the catalogue."""
    with registry._tables.write() as connection:
        known = connection.exec_driver_sql("SELECT plugin FROM plugins").scalars()
        documents = {index_path(plugin): canonical_json({"format": 1, "plugin": plugin}) for plugin in known}
        registry._repository.commit(MetadataRows(connection, time.time()), documents)


def _publish(home: Path, registry: Registry) -> dict[str, Any]:
    key, taken = generate_key(), []

    async def publish() -> None:
        await registry.register_namespace(make_key_set("keelmark", [key]).document)
        for number in range(ROUNDS):
            signed = _signed(home / "source", key, f"keelmark/lantern{number}x")
            road = RegistryTransport(registry.reader)
            client = MarketplaceClient(road, home / f"cache{number}", registry.trusted_root)
            began = time.perf_counter()
            await registry.publish(signed.package.data, signed.envelope)
            await client.fetch(signed.package.manifest.id, signed.package.manifest.version)
            taken.append(time.perf_counter() - began)

    asyncio.run(publish())
    return absolute(
        "market.publish",
        values=taken,
        unit="s, handed in to installable",
        target="<= 2 s",
        met=lambda value: value <= 2,
    )


def _search(home: Path) -> list[dict[str, Any]]:
    dice = random.Random(4)
    registry = Registry.open(home / "registry")
    words = _fill(registry, dice)
    _sign(registry)
    published = _publish(home, registry)
    # As every hour, while it serves.
    asyncio.run(registry.renew())
    queries = [f"{dice.choice(words)} {dice.choice(_COMMON)}" for _ in range(40)]
    queries += [dice.choice(words) for _ in range(20)] + [word[:-2] + word[-1] for word in words[:20]]
    queries += [*_COMMON, "data user report", "sync mail"]

    def p95(ask: Any, asked: list[str]) -> float:
        taken = []
        for query in asked:
            began = time.perf_counter()
            ask(query)
            taken.append((time.perf_counter() - began) * 1e3)
        return sorted(taken)[len(taken) * 95 // 100]

    def bare(_query: str) -> None:
        with registry.reader._tables.read() as connection:
            connection.exec_driver_sql("SELECT rowid FROM plugin_text WHERE plugin_text MATCH 'zyzzyva'").fetchall()

    ours, baseline = alternate(lambda: p95(registry.reader.search, queries), lambda: p95(bare, queries), ROUNDS)
    asyncio.run(registry.close())
    searched = row(
        "market.search",
        ours=ours,
        baseline=baseline,
        unit="ms p95",
        target="<= 30 ms and <= 10x",
        met=lambda ratio: ratio <= 10 and statistics.median(ours) <= 30,
    )
    return [published, searched]


def rows() -> list[dict[str, Any]]:
    """The five rows."""
    found = []
    with tempfile.TemporaryDirectory() as home:
        found += asyncio.run(_trust(Path(home)))
    with tempfile.TemporaryDirectory() as home:
        found.append(asyncio.run(_rate(Path(home))))
    with tempfile.TemporaryDirectory() as home:
        found += _search(Path(home))
    return found


if __name__ == "__main__":
    for each in rows():
        print(each)
