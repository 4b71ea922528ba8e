"""Search finds what was meant, best first, and stays bounded on common words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from marketplace.registry.search import CANDIDATES, search, update_search
from marketplace.registry.tables import Tables
from plugin_sdk.services import MarketplaceEntry

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
    for n in range(2 * CANDIDATES):
        id = f"crowd/common-{n}"
        update_search(catalogue, id, entry(id, f"Plugin {n}", "A common thing.", ()), "common " * 5)
    update_search(catalogue, "acme/common", entry("acme/common", "Common", "The one.", ()), "nothing")
    found = ids(catalogue, "thing")
    assert len(found) == 20
    assert ids(catalogue, "The one common")[0] == "acme/common"
