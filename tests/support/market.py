"""A marketplace with believable contents: for the storefront's tests in a browser, its picture, and for looking.

``python -m tests.support.market FOLDER`` fills a data folder, which ``keelstone marketplace serve`` then serves.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from joserfc import jws
from joserfc.jwk import OKPKey

from marketplace.keys import SigningKey, generate_key
from marketplace.namespaces import make_key_set
from marketplace.registry import Registry
from marketplace.registry.platforms import Told
from marketplace.signing import sign_answer, sign_deprecation, sign_yank
from marketplace.testing import make_signed, write_plugin
from plugin_sdk.reporting import FIGURES, RATING, pseudonym
from tests.services.base import free_port
from tests.support.guests import guest
from tests.support.pictures import png

DAY = 86_400.0


class MovingClock:
    """A clock that is moved through the marketplace's past up to now."""

    def __init__(self, days_ago: float) -> None:
        self.at = time.time() - days_ago * DAY

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.at


@dataclass(frozen=True)
class Made:
    """One plugin of the stage: its versions, oldest first, each with the days ago that it was published."""

    id: str
    name: str
    summary: str
    keywords: str
    versions: Mapping[str, float]
    more: Mapping[str, str] = field(default_factory=dict)
    """What each version has at its manifest's end; a version without takes that of the one before."""
    readme: str = ""
    icon: str = ""
    lately: int = 0
    """Downloads a day, about."""
    screenshots: tuple[str, ...] = ()
    """What each shows."""


def _icon(colour: str, shape: str) -> str:
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" rx="14" '
        f'fill="{colour}"/>{shape}</svg>'
    )


_LINE = 'fill="none" stroke="#fff" stroke-width="5" stroke-linecap="round" stroke-linejoin="round"'
_HTTP = '[capabilities.http]\nwhy = "{why}"\nhosts = [{hosts}]\nmethods = ["GET", "POST"]\n'
_KV = '[capabilities.kv]\nwhy = "Remembers what was synchronised last, so that nothing is sent twice."\n'
_LOG = '[capabilities.log]\nwhy = "Notes what it did and why, for whoever looks after it."\n'
_NOTIFY = (
    '[capabilities.notify]\nwhy = "Tells the people on duty when something needs a decision."\nchannels = ["email"]\n'
)

PLUGINS = (
    Made(
        "northwind/invoice-bridge",
        "Invoice bridge",
        "Sends paid orders to your bookkeeping as invoices, and comes back with their numbers.",
        "billing",
        {"1.0.0": 78, "1.1.0": 51, "1.2.0": 20, "2.0.0": 3},
        {
            "1.0.0": _LOG + _HTTP.format(why="Posts each invoice to your bookkeeping.", hosts='"api.books.example"'),
            "1.2.0": _LOG
            + _KV
            + _HTTP.format(why="Posts each invoice to your bookkeeping.", hosts='"api.books.example"'),
            "2.0.0": _LOG
            + _KV
            + _NOTIFY
            + _HTTP.format(
                why="Posts each invoice to your bookkeeping and looks VAT numbers up.",
                hosts='"api.books.example", "vat.example"',
            ),
        },
        "# Invoice bridge\n\nEvery order that is paid becomes an invoice within a minute. If your bookkeeping is down, "
        "it waits and tries again; **nothing is invoiced twice**.\n\n## What it sends\n\n| field | from |\n|---|---|\n"
        "| customer | the order's buyer |\n| lines | the order's items, with VAT |\n| number | comes back |\n\n"
        "## Set up\n\n1. Enter the API key of your bookkeeping.\n2. Choose the ledger.\n\n```json\n"
        '{"ledger": "sales", "currency": "EUR"}\n```\n\n> VAT numbers are looked up before an invoice is sent.\n',
        _icon("#0f766e", f'<path d="M20 14h24v36l-6-4-6 4-6-4-6 4zM27 25h10M27 34h10" {_LINE}/>'),
        320,
        ("The list of invoices that were sent today", "One invoice beside its order", "Where the ledger is chosen"),
    ),
    Made(
        "northwind/stock-watch",
        "Stock watch",
        "Says when something runs low, by how fast it has been selling.",
        "inventory",
        {"0.9.0": 40, "1.0.0": 12},
        {"0.9.0": _LOG + _NOTIFY},
        icon=_icon("#b45309", f'<path d="M14 46V30M26 46V20M38 46V34M50 46V24" {_LINE}/>'),
        lately=96,
    ),
    Made(
        "harbour/address-check",
        "Address check",
        "Corrects postal addresses as people type them in.",
        "quality",
        {"1.4.2": 30, "1.4.3": 9},
        {"1.4.2": _HTTP.format(why="Asks the post's register for the address.", hosts='"register.post.example"')},
        icon=_icon("#1d4ed8", f'<path d="M32 52s16-14 16-26a16 16 0 10-32 0c0 12 16 26 16 26z" {_LINE}/>'),
        lately=210,
    ),
    Made(
        "harbour/greeting", "Greeting", "Welcomes people who register, in their language.", "onboarding", {"1.0.0": 25}
    ),
    Made(
        "harbour/duplicate-finder",
        "Duplicate finder",
        "Refuses to register somebody twice, however the name is written.",
        "quality",
        {"2.1.0": 16, "2.1.1": 2},
        {"2.1.0": _KV},
        icon=_icon("#be185d", f'<path d="M18 18h20v20H18zM26 26h20v20H26z" {_LINE}/>'),
        lately=150,
    ),
    Made(
        "lumen/translate",
        "Translate",
        "Translates messages between the languages of your people.",
        "language",
        {"0.3.0": 60, "0.4.0": 33, "0.5.0": 6},
        {
            "0.3.0": '[capabilities.ai]\nwhy = "Translates what people write to one another."\nmodels = ["chat"]\n'
            + _LOG
        },
        icon=_icon(
            "#6d28d9",
            f'<path d="M14 20h20M24 14v6c0 10-6 16-10 18M18 26c4 8 10 11 16 12M34 50l8-20 8 20M37 43h10" {_LINE}/>',
        ),
        lately=410,
    ),
    Made("lumen/summary", "Summary", "Sums long threads up in three sentences.", "language", {"1.0.0": 45}, lately=60),
    Made("lumen/tone", "Tone", "Notices when a message sounds angrier than it is meant.", "language", {"0.1.0": 55}),
    Made(
        "old-mill/csv-export",
        "CSV export",
        "Writes people and orders as tables, every night.",
        "export",
        {"1.0.0": 70},
        {"1.0.0": _HTTP.format(why="Uploads the table to your storage.", hosts='"*.storage.example"')},
        lately=30,
    ),
    Made(
        "old-mill/table-export",
        "Table export",
        "Writes people and orders as tables, whenever asked.",
        "export",
        {"1.0.0": 28},
    ),
)


async def fill(folder: Path) -> Registry:
    """The open registry in ``folder``, filled."""
    clock = MovingClock(80)
    registry = Registry.open(folder, clock=clock)
    keys: dict[str, SigningKey] = {}
    for publisher in sorted({plugin.id.partition("/")[0] for plugin in PLUGINS}):
        keys[publisher] = generate_key()
        await registry.register_namespace(make_key_set(publisher, [keys[publisher]]).document)
    releases = sorted(
        ((days, plugin, version) for plugin in PLUGINS for version, days in plugin.versions.items()),
        key=lambda each: -each[0],
    )
    digests: dict[tuple[str, str], str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for days, plugin, version in releases:
            clock.at = time.time() - days * DAY
            source = _source(Path(scratch), plugin, version)
            signed = make_signed(source, keys[plugin.id.partition("/")[0]])
            receipt = await registry.publish(signed.package.data, signed.envelope)
            digests[plugin.id, version] = receipt.digest
    clock.at = time.time() - DAY
    for plugin in PLUGINS:
        for version, days in plugin.versions.items():
            for _ in range(int(plugin.lately * min(days, 30) / 30)):
                registry.downloaded(digests[plugin.id, version])
    await registry.renew()
    await registry.yank(
        sign_yank(
            "harbour/address-check",
            "1.4.2",
            digests["harbour/address-check", "1.4.2"],
            "Confuses two streets of the same name.",
            keys["harbour"],
        )
    )
    said = "2026-01-05T00:00:00Z"
    await registry.deprecate(
        sign_deprecation(
            "old-mill/csv-export", "It is no longer cared for.", "old-mill/table-export", said, keys["old-mill"]
        )
    )
    await registry.revoke("lumen/translate", "0.4.0", "Sent messages to a stranger's server.")
    clock.at = time.time()
    await registry.renew()
    await registry.advise(json.dumps(ADVISORY).encode())
    await _reports(registry, keys, digests)
    with tempfile.TemporaryDirectory() as scratch:
        # A fix of an old line: a rule holds it for a person.
        held = next(plugin for plugin in PLUGINS if plugin.id == "northwind/stock-watch")
        source = _source(Path(scratch), replace(held, versions={"0.10.0": 0.0}, more={"0.10.0": _LOG + _KV}), "0.10.0")
        # A real guest: an approval asks the rules again, and the server looks inside.
        signed = make_signed(source, keys["northwind"], guest(kv=("watched", "{}")))
        receipt = await registry.publish(signed.package.data, signed.envelope)
        assert receipt.state == "quarantined"
    _past_downloads(folder)
    return registry


class Platform:
    """A platform's signer, with a key of its own."""

    def __init__(self) -> None:
        self._key = OKPKey.generate_key("Ed25519", {"kid": "stage"})

    def sign(self, kind: str, statement: Mapping[str, Any]) -> str:
        """See ``StatementSigner``."""
        header = {"alg": "Ed25519", "kid": "stage", "typ": kind}
        return jws.serialize_compact(header, json.dumps(statement).encode(), self._key, algorithms=["Ed25519"])

    def public_keys(self) -> dict[str, Any]:
        """See ``StatementSigner``."""
        return {"keys": [self._key.as_dict(private=False)]}

    def told(self, kind: str, statement: Mapping[str, Any]) -> Told:
        """A statement as it is handed in."""
        return Told(self.sign(kind, statement), self.public_keys())


ADVISORY = {
    "schema_version": "1.6.0",
    "id": "STAGE-2026-0001",
    "modified": "2026-10-01T00:00:00Z",
    "summary": "Invoices of one tenant could be posted to another's ledger",
    "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:U/C:H/I:L/A:N"}],
    "affected": [
        {
            "package": {"ecosystem": "Keelstone", "name": "northwind/invoice-bridge"},
            "ranges": [{"type": "SEMVER", "events": [{"introduced": "1.0.0"}, {"fixed": "1.2.0"}]}],
        }
    ],
}
SAID = (
    (5, "Since March not one invoice by hand. The VAT check alone was worth it."),
    (4, "Works as told. The ledger has to be chosen again after each change of year."),
    (5, ""),
    (3, "Good, but slow on the first of the month.\nWe moved the run to the night, since then it is fine."),
    (4, "Set up in ten minutes."),
)


async def _reports(registry: Registry, keys: Mapping[str, SigningKey], digests: Mapping[tuple[str, str], str]) -> None:
    """What seven platforms say: figures of two plugins, ratings of one, and an answer."""
    now = datetime.fromtimestamp(registry.now(), UTC)
    first = ""
    for number in range(7):
        platform = Platform()
        rows = [
            _figures("northwind/invoice-bridge", "2.0.0", 25, 41_000 + number, 60 + number, (1, 30, 50, 15, 3, 1)),
            _figures("northwind/invoice-bridge", "1.2.0", 10, 12_000, 310, (1, 12, 38, 30, 14, 5)),
            _figures("lumen/translate", "0.5.0", 5, 900, 70, (0, 0, 2, 8, 30, 60)),
        ]
        rows += [_figures("northwind/invoice-bridge", "1.0.0", 1, 40, 0, (1, 1, 1, 1, 1, 1))] if number < 2 else []
        report = {"day": now.date().isoformat(), "part": "00" * 8, "rows": rows}
        registry.reader.figures.take(platform.told(FIGURES, report), registry.now())
        if number < len(SAID):
            stars, text = SAID[number]
            plugin, version = "northwind/invoice-bridge", "2.0.0" if number % 2 == 0 else "1.2.0"
            rating = {
                "plugin": plugin,
                "version": version,
                "digest": digests[plugin, version],
                "tenant": pseudonym(platform, plugin, "acme"),
                "stars": stars,
                "text": text,
                "at": (now - timedelta(hours=3 * number + 1)).isoformat(timespec="seconds"),
            }
            taken = registry.reader.ratings.take(platform.told(RATING, rating), registry.now())
            first = first or (taken.id if number == 1 else "")
    said = sign_answer(
        "northwind/invoice-bridge",
        first,
        "Thank you. 2.0.1 will remember it.",
        now.isoformat(timespec="seconds"),
        keys["northwind"],
    )
    registry.reader.ratings.answer(*registry.read_answer(said))


def _figures(plugin: str, version: str, tenants: int, calls: int, errors: int, shape: Sequence[int]) -> dict[str, Any]:
    latency = [0, 0, 0, *(calls * each // sum(shape) for each in shape), 0, 0, 0, 0]
    return {
        "plugin": plugin,
        "version": version,
        "tenants": tenants,
        "calls": calls,
        "errors": errors,
        "latency": latency,
    }


def _source(scratch: Path, plugin: Made, version: str) -> Path:
    order = list(plugin.versions)
    more = next((plugin.more[v] for v in reversed(order[: order.index(version) + 1]) if v in plugin.more), "")
    shots = {f"screenshots/{n}.png": shows for n, shows in enumerate(plugin.screenshots, 1)}
    more += "".join(f'\n[[screenshots]]\nfile = "{file}"\nshows = "{shows}"\n' for file, shows in shots.items())
    folder = write_plugin(
        scratch / plugin.id / version,
        plugin.id,
        version,
        name=plugin.name,
        summary=plugin.summary,
        keywords=plugin.keywords,
        more=more,
        readme=plugin.readme or f"# {plugin.name}\n\n{plugin.summary}\n\nIt needs no setting up: switch it on.\n",
    )
    changes = "".join(f"## {each}\n\n- What was asked for most since the last one.\n\n" for each in reversed(order))
    (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n{changes}", encoding="utf-8")
    for number, file in enumerate(shots):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(png(960, 600, (96 + 40 * number, 140, 200 - 40 * number)))
    if plugin.icon:
        (folder / "icon.svg").write_text(plugin.icon, encoding="utf-8")
    return folder


def _past_downloads(folder: Path) -> None:
    """Days of the past cannot be downloaded in, so they are written down."""
    import math
    import sqlite3
    from datetime import UTC, datetime, timedelta

    today = datetime.now(UTC).date()
    with sqlite3.connect(folder / "registry.db") as connection:
        for plugin in PLUGINS:
            oldest = max(plugin.versions.values())
            for days in range(1, int(min(oldest, 89))):
                week = 0.55 if (today - timedelta(days=days)).weekday() > 4 else 1.0
                count = int(plugin.lately * week * (1.2 - days / 110) * (1 + 0.15 * math.sin(days * 1.7)))
                connection.execute(
                    "INSERT OR REPLACE INTO downloads(plugin, day, count) VALUES (?, ?, ?)",
                    (plugin.id, (today - timedelta(days=days)).isoformat(), count),
                )
    connection.close()


@dataclass(frozen=True)
class Store:
    """A marketplace that serves its pages."""

    url: str
    home: Path

    def link(self) -> str:
        """A link to the operator's pages, as the command line prints it."""
        command = [sys.executable, "-m", "api.cli", "marketplace", "pages", "--at", self.url.removeprefix("http://")]
        done = subprocess.run(command, env=_environment(self.home), capture_output=True, text=True, check=True)
        return done.stdout.strip()


@contextmanager
def served(home: Path) -> Iterator[Store]:
    """The filled marketplace in a process of its own."""
    import httpx

    asyncio.run(_make(home))
    port = free_port()
    command = [sys.executable, "-m", "api.cli", "marketplace", "serve", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, env=_environment(home), stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(f"{url}/healthz").raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None, (home / "serve.log").read_text()
                time.sleep(0.1)
        yield Store(url, home)
    finally:
        process.terminate()
        process.wait(30)


def _environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEELSTONE_")}
    return {**kept, "KEELSTONE_HOME": str(home)}


async def _make(home: Path) -> None:
    await (await fill(home / "marketplace")).close()


if __name__ == "__main__":
    asyncio.run(_make(Path(sys.argv[1])))
