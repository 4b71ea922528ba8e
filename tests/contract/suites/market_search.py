"""What every search index of a marketplace must find, in which order, and survive. The fixture ``shop`` is one."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from marketplace.registry.search import Listing, SearchIndex, Standing, refresh_standings, update_listings
from marketplace.registry.search.query import EXACT, OPENING, PLACES
from marketplace.registry.search.ranking import LEVELS, level
from marketplace.registry.tables import Tables
from plugin_sdk.services import MarketplaceEntry, SearchFilters

NOW = 1_790_000_000.0
CATALOGUE = [
    (
        "acme/email-guard",
        "E-mail guard",
        "Refuses throw-away addresses.",
        ("signup", "spam"),
        "Blocks disposable domains.",
    ),
    ("acme/lead-scorer", "Lead scorer", "Gives each new user a score.", ("sales",), "Watches user events."),
    ("globex/chat-notifier", "Chat notifier", "Posts events to a webhook.", ("alerts", "chat"), "Slack and others."),
    ("globex/guard", "Guard", "Keeps the door.", ("security",), "For e-mail gates see acme."),
    ("initech/über-notes", "Über notes", "Ärger mit Umläuten.", (), "Nötig."),
    ("initech/the-who", "The who", "Who is it, and what for?", (), "To be or not to be."),
    ("hooli/日本語", "日本語 ガイド", "翻訳", ("訳",), "3d 1e5 0x1f v2.0 ²"),
]
JUDGED = [
    ("guard", "globex/guard"),  # a title that is exactly the query comes before one that contains it
    ("acme/email-guard", "acme/email-guard"),
    ("e-mail guard", "acme/email-guard"),
    ("guards", "globex/guard"),  # stemmed
    ("spam", "acme/email-guard"),  # keyword
    ("webhooks", "globex/chat-notifier"),  # summary, stemmed
    ("disposable domain", "acme/email-guard"),  # text
    ("noti", "globex/chat-notifier"),  # beginning of a word
    ("LEAD", "acme/lead-scorer"),
    ("notifer", "globex/chat-notifier"),  # typos
    ("gaurd", "globex/guard"),
    ("scoerr", "acme/lead-scorer"),
    ("gaurd email", "acme/email-guard"),
    ("tifie", "globex/chat-notifier"),  # part of a word
    ("uber", "initech/über-notes"),  # without the umlaut
    ("nötig", "initech/über-notes"),
    ("the who", "initech/the-who"),  # words that mean little are words
    ("to be or not to be", "initech/the-who"),
    ("日本語", "hooli/日本語"),
    ("訳", "hooli/日本語"),
    ("1e5 3d", "hooli/日本語"),
    ("v2", "hooli/日本語"),
]
HOSTILE = [
    '"',
    "a AND",
    "NEAR(",
    "title:guard OR",
    "*",
    "{x}:",
    "'; DROP TABLE plugins; --",
    "\x00",
    "gu\x00ard",
    "^",
    "-",
    "a' & 'b",
    "guard:*",
    "!guard",
    "\\",
    "a\\' <-> b",
    "%_",
    "$1",
    "\u202e\u200f",
    "x" * 200,
    "a " * 100,
    "\ud800",
]


def entry(id: str, name: str, summary: str, keywords: tuple[str, ...] = ()) -> MarketplaceEntry:
    """An entry with what does not matter filled in."""
    return MarketplaceEntry(id, name, summary, "1.0.0", ("1.0.0",), "Apache-2.0", id.partition("/")[0], keywords)


def at(days_ago: float) -> str:
    """A moment before ``NOW``."""
    return datetime.fromtimestamp(NOW - days_ago * 86_400, UTC).isoformat()


class Shop:
    """A registry's tables and an index over them; ``settle`` waits until the index has what they have."""

    def __init__(self, tables: Tables, index: SearchIndex, settle: Callable[[], None] = lambda: None) -> None:
        self.tables, self.index, self._settle = tables, index, settle
        self._changed = True

    def put(
        self,
        found: MarketplaceEntry,
        body: str | None = "",
        standing: Standing | None = None,
        kernels: Sequence[str] = (),
    ) -> None:
        """List a plugin, or list it otherwise."""
        self.put_all([Listing(found.id, found, body, standing or Standing(), kernels)])

    def put_all(self, listings: Sequence[Listing]) -> None:
        """List many in one transaction."""
        with self.tables.write() as connection:
            update_listings(connection, listings, NOW)
        self._changed = True

    def take_out(self, plugin: str) -> None:
        """List a plugin no more."""
        self.put_all([Listing(plugin, None, None)])

    def refresh(self, now: float) -> None:
        """Put every plugin where it belongs at ``now``."""
        more = True
        while more:
            with self.tables.write() as connection:
                more = refresh_standings(connection, now) > 0
        self._changed = True

    def settle(self) -> None:
        """Wait until what was changed can be found."""
        if self._changed:
            self._settle()
            self._changed = False

    def ids(self, query: str, limit: int = 20, filters: SearchFilters | None = None) -> list[str]:
        """The ids of what is found, best first."""
        self.settle()
        return [found.id for found in self.index.search(query, limit, filters)]


@pytest.fixture
def catalogue(shop: Shop) -> Shop:
    """The shop with a small catalogue."""
    for id, name, summary, keywords, body in CATALOGUE:
        shop.put(entry(id, name, summary, keywords), body, Standing())
    return shop


class SearchSuite:
    """Every index finds the same, in the same order."""

    def test_the_best_answer_comes_first(self, catalogue: Shop) -> None:
        firsts = {query: catalogue.ids(query)[:1] for query, _ in JUDGED}
        assert firsts == {query: [first] for query, first in JUDGED}

    def test_all_words_must_be_there(self, catalogue: Shop) -> None:
        assert catalogue.ids("chat webhook") == ["globex/chat-notifier"]
        assert catalogue.ids("zzzz qqqq") == []

    def test_no_query_is_an_error(self, catalogue: Shop) -> None:
        for query in HOSTILE:
            catalogue.ids(query)
            catalogue.index.facets(query, SearchFilters(keyword=query.strip("\ud800"), contracts=("1.0.0",)))
        assert len(catalogue.ids("")) == len(CATALOGUE)

    def test_an_entry_comes_back_as_it_was_put_in(self, catalogue: Shop) -> None:
        id, name, summary, keywords, _ = CATALOGUE[0]
        said = replace(
            entry(id, name, summary, keywords), capabilities=("http",), domain="acme.example", deprecated="x"
        )
        catalogue.put(said)
        catalogue.settle()
        assert catalogue.index.search("acme/email-guard", 1) == [said]

    def test_without_words_the_newest_come_first_page_by_page(self, catalogue: Shop) -> None:
        newest = [id for id, *_ in reversed(CATALOGUE)]
        assert [catalogue.ids("", limit) for limit in (1, 3, 5)] == [newest[:1], newest[:3], newest[:5]]

    def test_a_longer_page_begins_as_a_shorter_one(self, shop: Shop) -> None:
        for number in range(60):
            standing = Standing(at(number % 7 * 300), number % 3, number * 37 % 500)
            shop.put(entry(f"crowd/p{number}", f"Invoice {number}", "Makes invoices."), "", standing)
        whole = shop.ids("invoice", 60)
        assert len(set(whole)) == 60
        assert [shop.ids("invoice", limit) for limit in (1, 10, 30)] == [whole[:1], whole[:10], whole[:30]]

    def test_changing_an_entry_changes_what_finds_it(self, catalogue: Shop) -> None:
        changed = entry("globex/guard", "Sentinel", "Keeps the door.")
        catalogue.put(changed, None)
        assert catalogue.ids("sentinel") == ["globex/guard"]
        assert "globex/guard" in catalogue.ids("gates")  # the text was kept
        catalogue.take_out("globex/guard")
        assert catalogue.ids("sentinel") == []
        catalogue.put(changed, "fresh words")
        assert catalogue.ids("fresh") == ["globex/guard"]

    def test_of_equal_words_the_better_plugin_comes_first(self, shop: Shop) -> None:
        for name, standing in (
            ("plain", Standing(at(1))),
            ("loved", Standing(at(1), 0, 9_000)),
            ("old", Standing(at(2_000))),
            ("known", Standing(at(1), 0, 40)),
            ("proven", Standing(at(1), verified=1.0)),
            ("faulty", Standing(at(1), 6)),
        ):
            shop.put(entry(f"crowd/{name}", "Invoice maker", "Makes invoices."), "", standing)
        warned = replace(entry("crowd/warned", "Invoice maker", "Makes invoices."), deprecated="Nobody looks after it.")
        shop.put(warned, "", Standing(at(1), 0, 9_000))
        best = [
            "crowd/loved",
            "crowd/known",
            "crowd/proven",
            "crowd/plain",
            "crowd/faulty",
            "crowd/old",
            "crowd/warned",
        ]
        assert shop.ids("invoice") == best

    def test_a_plugin_that_ages_moves_down(self, shop: Shop) -> None:
        shop.put(entry("crowd/early", "Invoice maker", "Makes invoices."), "", Standing(at(1), 0, 0, 1.0))
        shop.put(entry("crowd/late", "Invoice maker", "Makes invoices."), "", Standing(at(-700)))
        assert shop.ids("invoice") == ["crowd/early", "crowd/late"]
        shop.refresh(NOW + 700 * 86_400)
        assert shop.ids("invoice") == ["crowd/late", "crowd/early"]

    def test_filters_narrow_down_and_facets_say_to_what(self, catalogue: Shop) -> None:
        mit = replace(
            entry("globex/mit", "Mit guard", "Guards.", ("security", "spam")),
            license="MIT",
            capabilities=("http", "kv"),
        )
        catalogue.put(mit, kernels=[">=2"])
        everything = SearchFilters()
        for filters, found in (
            (replace(everything, license="mit"), ["globex/mit"]),
            (replace(everything, publisher="globex", keyword="security"), ["globex/guard", "globex/mit"]),
            (replace(everything, capability="http"), ["globex/mit"]),
            (replace(everything, publisher="glob"), []),
            (replace(everything, publisher="level:1"), []),
            (replace(everything, contracts=("1.0.0", "1.1.0")), ["globex/guard", "acme/email-guard"]),
            (replace(everything, contracts=("1.1.0", "2.0.0")), ["globex/guard", "globex/mit", "acme/email-guard"]),
        ):
            assert sorted(catalogue.ids("guard", 9, filters)) == sorted(found)
        assert catalogue.ids("", 9, replace(everything, publisher="acme")) == ["acme/lead-scorer", "acme/email-guard"]
        assert catalogue.ids("gaurd", 9, replace(everything, license="MIT")) == ["globex/mit"]
        assert catalogue.ids("tifie", 9, replace(everything, publisher="acme")) == []
        facets = catalogue.index.facets("guard")
        assert facets.counted == 3
        assert facets.values["license"] == {"Apache-2.0": 2, "MIT": 1}
        assert facets.values["capability"] == {"http": 1, "kv": 1}
        assert facets.values["publisher"] == {"globex": 2, "acme": 1}

    def test_a_filter_finds_what_better_plugins_would_hide(self, shop: Shop) -> None:
        for number in range(12):
            good = Standing(at(1), 0, 500)
            shop.put(entry(f"crowd/named-{number}", "Invoice", "Makes invoices."), "", good)
            shop.put(entry(f"crowd/begun-{number}", "Invoice maker", "Makes invoices."), "", good)
        for id, name in (("tiny/title", "Paper invoice"), ("tiny/begun", "Invoice maker"), ("tiny/named", "Invoice")):
            shop.put(entry(id, name, "Makes invoices."))
        assert shop.ids("invoice", 3, SearchFilters(publisher="tiny")) == ["tiny/named", "tiny/begun", "tiny/title"]

    def test_what_does_not_run_here_takes_no_place_from_what_does(self, shop: Shop) -> None:
        for number in range(30):
            kernels = [">=1"] if number == 29 else [">=2"]
            shop.put(entry(f"crowd/new-{number}", "Invoice maker", "Makes invoices."), "", None, kernels)
        assert shop.ids("invoice", 3, SearchFilters(contracts=("1.1.0",))) == ["crowd/new-29"]

    def test_a_very_common_word_is_bounded_and_still_finds_the_exact_title(self, shop: Shop) -> None:
        standings = [Standing(at(number), 0, number * number) for number in range(300)]
        shop.put_all(
            [
                Listing(id, entry(id, f"Plugin {number}", "A common thing."), "common " * 5, standing)
                for number, standing in enumerate(standings * 10)
                for id in [f"crowd/common-{number}"]
            ]
        )
        shop.put(entry("acme/common", "Common", "The one."), "nothing")
        assert shop.ids("The one common")[0] == "acme/common"
        worth = [(level(standing, NOW, deprecated=False), number) for number, standing in enumerate(standings * 10)]
        best = [f"crowd/common-{number}" for _, number in sorted(worth)]
        assert shop.ids("thing") == best[:20]
        assert shop.ids("thing", 300) == best[:300]
        assert shop.ids("thing", 7, SearchFilters(publisher="crowd", contracts=("1.0.0",))) == best[:7]

    def test_the_best_are_the_best_of_all_that_match(self, shop: Shop) -> None:
        """Against scoring the whole catalogue, which search never reads."""
        dice, words = random.Random(7), ["ledger", "mirror", "parcel", "harbor", "window"]
        plugins, listings = [], []
        for number in range(400):
            name, summary, body = (" ".join(dice.sample(words, dice.randint(1, 3))) for _ in range(3))
            keywords = tuple(dice.sample(words, dice.randint(0, 2)))
            standing = Standing(at(dice.randint(0, 3_000)), dice.randint(0, 3), int(dice.paretovariate(0.4)))
            found = entry(f"crowd/p{number}", name, summary, keywords)
            listings.append(Listing(found.id, found, body, standing))
            quality = 1 - level(standing, NOW, deprecated=False) / LEVELS
            plugins.append((name.split(), [*keywords, *summary.split()], body.split(), quality))
        shop.put_all(listings)

        def score(asked: list[str], name: list[str], about: list[str], body: list[str], quality: float) -> float:
            have, (title, near, anywhere) = set(asked), (weight for *_, weight in PLACES)
            if name == asked:
                return EXACT * quality
            if len(asked) == 1 and name[0] == asked[0]:
                return OPENING * quality
            places = ((title, set(name)), (near, {*name, *about}), (anywhere, {*name, *about, *body}))
            return next((weight * quality for weight, place in places if have <= place), 0.0)

        for asked in (["ledger"], ["mirror", "parcel"], ["harbor", "window", "ledger"], ["parcel", "harbor"]):
            for limit in (1, 5, 40):
                scores = [score(asked, *each) for each in plugins]
                best = sorted((s for s in scores if s), reverse=True)[:limit]
                got = [scores[int(id.removeprefix("crowd/p"))] for id in shop.ids(" ".join(asked), limit)]
                assert got == pytest.approx(best)
