"""Search finds what was meant, best first, and stays bounded on common words."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from marketplace.registry.search import (
    Standing,
    count_facets,
    merge_index,
    note_downloads,
    parted,
    refresh_standings,
    search,
    update_search,
)
from marketplace.registry.search.query import EXACT, OPENING, PLACES
from marketplace.registry.search.ranking import LEVELS, level
from marketplace.registry.tables import Tables
from plugin_sdk.services import MarketplaceEntry, SearchFilters

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
]


def entry(id: str, name: str, summary: str, keywords: tuple[str, ...]) -> MarketplaceEntry:
    return MarketplaceEntry(id, name, summary, "1.0.0", ("1.0.0",), "Apache-2.0", id.partition("/")[0], keywords)


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[sa.Connection]:
    tables = Tables(tmp_path)
    tables.create()
    with tables.write() as connection:
        for id, name, summary, keywords, body in CATALOGUE:
            update_search(connection, id, entry(id, name, summary, keywords), body)
        yield connection
    tables.close()


def ids(connection: sa.Connection, query: str, limit: int = 20) -> list[str]:
    return [e.id for e in search(connection, query, limit)]


@pytest.mark.parametrize(
    ("query", "first"),
    [
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
    ],
)
def test_the_best_answer_comes_first(catalogue: sa.Connection, query: str, first: str) -> None:
    assert ids(catalogue, query)[:1] == [first]


def test_all_words_must_be_there(catalogue: sa.Connection) -> None:
    assert ids(catalogue, "chat webhook") == ["globex/chat-notifier"]
    assert ids(catalogue, "zzzz qqqq") == []


@pytest.mark.parametrize(
    "query", ['"', "a AND", "NEAR(", "title:guard OR", "*", "{x}:", "'; DROP TABLE plugins; --", "\x00", "^", "-"]
)
def test_no_query_is_an_error(catalogue: sa.Connection, query: str) -> None:
    ids(catalogue, query)
    assert len(ids(catalogue, "")) == len(CATALOGUE)


def test_without_words_the_newest_come_first(catalogue: sa.Connection) -> None:
    assert ids(catalogue, "", 2) == ["initech/über-notes", "globex/guard"]


def test_changing_an_entry_changes_what_finds_it(catalogue: sa.Connection) -> None:
    changed = entry("globex/guard", "Sentinel", "Keeps the door.", ())
    update_search(catalogue, "globex/guard", changed, None)
    assert ids(catalogue, "sentinel") == ["globex/guard"]
    assert "globex/guard" in ids(catalogue, "gates")  # the text was kept
    update_search(catalogue, "globex/guard", None, None)
    assert ids(catalogue, "sentinel") == []
    update_search(catalogue, "globex/guard", changed, "fresh words")
    assert ids(catalogue, "fresh") == ["globex/guard"]


def test_a_very_common_word_is_bounded_and_still_finds_the_exact_title(catalogue: sa.Connection) -> None:
    for n in range(300):
        id = f"crowd/common-{n}"
        update_search(catalogue, id, entry(id, f"Plugin {n}", "A common thing.", ()), "common " * 5)
    update_search(catalogue, "acme/common", entry("acme/common", "Common", "The one.", ()), "nothing")
    found = ids(catalogue, "thing")
    assert len(found) == 20
    assert ids(catalogue, "The one common")[0] == "acme/common"


NOW = 1_790_000_000.0


def at(days_ago: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(NOW - days_ago * 86_400, UTC).isoformat()


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


def test_of_equal_words_the_better_plugin_comes_first(catalogue: sa.Connection) -> None:
    for name, downloads in (("plain", 0), ("loved", 9_000), ("known", 40)):
        found = entry(f"crowd/{name}", "Invoice maker", "Makes invoices.", ())
        update_search(catalogue, found.id, found, "", standing=Standing(at(1), 0, downloads), now=NOW)
    old = replace(entry("crowd/old", "Invoice maker", "Makes invoices.", ()), deprecated="Nobody looks after it.")
    update_search(catalogue, old.id, old, "", standing=Standing(at(1), 0, 9_000), now=NOW)
    assert ids(catalogue, "invoice") == ["crowd/loved", "crowd/known", "crowd/plain", "crowd/old"]


def test_downloads_move_a_plugin_up_and_count_for_a_season(catalogue: sa.Connection) -> None:
    for name in ("first", "second"):
        found = entry(f"crowd/{name}", "Invoice maker", "Makes invoices.", ())
        update_search(catalogue, found.id, found, "", standing=Standing(at(1)), now=NOW)
    values = "('crowd/second', '1.0.0', 'd1', 1, '*', '', '{}', '{}')"
    columns = "plugin, version, digest, size, kernel, published, manifest, envelope"
    catalogue.exec_driver_sql(f"INSERT INTO releases({columns}) VALUES {values}")
    assert ids(catalogue, "invoice") == ["crowd/first", "crowd/second"]
    note_downloads(catalogue, {"d1": 700, "unknown": 9}, NOW)
    note_downloads(catalogue, {"d1": 700}, NOW)
    assert refresh_standings(catalogue, NOW) > 0
    assert ids(catalogue, "invoice") == ["crowd/second", "crowd/first"]
    assert refresh_standings(catalogue, NOW) == 0
    note_downloads(catalogue, {}, NOW + 91 * 86_400)
    refresh_standings(catalogue, NOW + 91 * 86_400)
    assert ids(catalogue, "invoice") == ["crowd/first", "crowd/second"]


def test_filters_narrow_down_and_facets_say_to_what(catalogue: sa.Connection) -> None:
    mit = replace(
        entry("globex/mit", "Mit guard", "Guards.", ("security", "spam")), license="MIT", capabilities=("http", "kv")
    )
    update_search(catalogue, mit.id, mit, "", kernels=[">=2"])
    everything = SearchFilters()
    for filters, found in (
        (replace(everything, license="mit"), ["globex/mit"]),
        (replace(everything, publisher="globex", keyword="security"), ["globex/guard", "globex/mit"]),
        (replace(everything, capability="http"), ["globex/mit"]),
        (replace(everything, publisher="glob"), []),
        (replace(everything, contracts=("1.0.0", "1.1.0")), ["globex/guard", "acme/email-guard"]),
        (replace(everything, contracts=("1.1.0", "2.0.0")), ["globex/guard", "globex/mit", "acme/email-guard"]),
    ):
        assert sorted(e.id for e in search(catalogue, "guard", 9, filters)) == sorted(found)
    assert [e.id for e in search(catalogue, "", 9, replace(everything, publisher="acme"))] == [
        "acme/lead-scorer",
        "acme/email-guard",
    ]
    facets = count_facets(catalogue, "guard")
    assert facets.counted == 3
    assert facets.values["license"] == {"Apache-2.0": 2, "MIT": 1}
    assert facets.values["capability"] == {"http": 1, "kv": 1}
    assert facets.values["publisher"] == {"globex": 2, "acme": 1}


def test_a_filter_finds_what_better_plugins_would_hide(catalogue: sa.Connection) -> None:
    for number in range(12):
        found = entry(f"crowd/named-{number}", "Invoice", "Makes invoices.", ())
        update_search(catalogue, found.id, found, "", standing=Standing(at(1), 0, 500), now=NOW)
        begun = entry(f"crowd/begun-{number}", "Invoice maker", "Makes invoices.", ())
        update_search(catalogue, begun.id, begun, "", standing=Standing(at(1), 0, 500), now=NOW)
    for id, name in (("tiny/title", "Paper invoice"), ("tiny/begun", "Invoice maker"), ("tiny/named", "Invoice")):
        update_search(catalogue, id, entry(id, name, "Makes invoices.", ()), "", now=NOW)
    only = SearchFilters(publisher="tiny")
    assert [e.id for e in search(catalogue, "invoice", 3, only)] == ["tiny/named", "tiny/begun", "tiny/title"]


def test_what_does_not_run_here_takes_no_place_from_what_does(catalogue: sa.Connection) -> None:
    for number in range(30):
        found = entry(f"crowd/new-{number}", "Invoice maker", "Makes invoices.", ())
        kernels = [">=1"] if number == 29 else [">=2"]
        update_search(catalogue, found.id, found, "", kernels=kernels)
    only = SearchFilters(contracts=("1.1.0",))
    assert [e.id for e in search(catalogue, "invoice", 3, only)] == ["crowd/new-29"]


def test_the_best_are_the_best_of_all_that_match(tmp_path: Path) -> None:
    """Against scoring the whole catalogue, which search never reads."""
    dice, words = random.Random(7), ["ledger", "mirror", "parcel", "harbor", "window"]
    tables, plugins = Tables(tmp_path), []
    tables.create()
    with tables.write() as connection:
        for number in range(400):
            name, summary, body = (" ".join(dice.sample(words, dice.randint(1, 3))) for _ in range(3))
            keywords = tuple(dice.sample(words, dice.randint(0, 2)))
            standing = Standing(at(dice.randint(0, 3_000)), dice.randint(0, 3), int(dice.paretovariate(0.4)))
            found = entry(f"crowd/p{number}", name, summary, keywords)
            update_search(connection, found.id, found, body, standing=standing, now=NOW)
            quality = 1 - level(standing, NOW, deprecated=False) / LEVELS
            plugins.append((name.split(), [*keywords, *summary.split()], body.split(), quality))

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
                got = [scores[int(e.id.removeprefix("crowd/p"))] for e in search(connection, " ".join(asked), limit)]
                assert got == pytest.approx(best)
    tables.close()


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
