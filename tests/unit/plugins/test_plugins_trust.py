"""When an update is held: the rules, without a platform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from plugin_sdk import Conflict, KeelstoneError, NewEvent
from plugin_sdk.services import ReleaseOrigin
from plugins.builtin.catalog.domain import Activation
from plugins.builtin.catalog.news import Teller
from plugins.builtin.catalog.trust.domain import Hold, Windows, doubts, held, latest
from plugins.builtin.catalog.trust.owners import OwnerKeeper

THEN = datetime(2026, 5, 1, 12, tzinfo=UTC)
MINE = ReleaseOrigin(signers=("a" * 64,), lineage=("a" * 64,))
WINDOWS = Windows()


def kinds(old: ReleaseOrigin | None, new: ReleaseOrigin | None) -> list[str]:
    return [doubt.kind for doubt in doubts(old, new, WINDOWS)]


def test_the_same_keys_or_proper_successors_are_no_news() -> None:
    assert kinds(MINE, MINE) == []
    assert kinds(MINE, ReleaseOrigin(signers=("b" * 64,), lineage=("a" * 64, "b" * 64))) == []


def test_where_it_is_not_known_who_signed_what_runs_nothing_is_compared() -> None:
    assert kinds(None, MINE) == []


@pytest.mark.parametrize("new", [None, ReleaseOrigin(), ReleaseOrigin(signers=("b" * 64,), lineage=("b" * 64,))])
def test_a_signer_without_succession_is_told(new: ReleaseOrigin | None) -> None:
    assert kinds(MINE, new) == ["signer"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, None, []),
        (None, "repository acme/guard", []),
        ("repository acme/guard", "repository acme/guard", []),
        ("repository acme/guard", None, ["provenance"]),
        ("repository acme/guard", "repository evil/guard", ["provenance"]),
    ],
)
def test_provenance_that_is_lost_or_another_is_told(before: str | None, after: str | None, expected: list[str]) -> None:
    assert kinds(replace(MINE, provenance=before), replace(MINE, provenance=after)) == expected


@pytest.mark.parametrize(("recovered", "days"), [(False, 7), (True, 30)])
def test_a_new_owner_opens_a_window_which_is_longer_after_a_recovery(recovered: bool, days: int) -> None:
    new = replace(MINE, owner=2, owned_since=THEN, recovered=recovered)
    (doubt,) = found = doubts(MINE, new, WINDOWS)
    assert (doubt.kind, latest(found)) == ("owner", THEN + timedelta(days=days))
    assert doubts(new, new, WINDOWS) == (), "once it runs, it is what the next one is compared with"


def test_the_error_says_what_changed_and_who_may_allow_it_from_when() -> None:
    found = doubts(MINE, replace(MINE, owner=2, owned_since=THEN), WINDOWS)
    hold = Hold("acme", "acme/guard", "1.0.0", "1.1.0", "d" * 64, found, "held", THEN)
    error = held(hold, THEN, "acme")
    assert "belongs to somebody else since 2026-05-01 12:00 UTC" in error.detail
    assert str(error.fix).startswith("From 2026-05-08 12:00 UTC on, ")
    assert "keelstone tenant allow acme acme/guard 1.1.0" in str(error.fix)
    assert str(held(hold, THEN + timedelta(days=8), "acme").fix).startswith("If you trust it, ")


class _Scope:
    """A transaction and the database that opens it, for what only reads a few rows and emits."""

    def __init__(self) -> None:
        self.emitted: list[tuple[str, NewEvent]] = []

    def read(self, scope: object) -> _Scope:
        return self

    def write(self, tenant: str, context: object) -> _Scope:
        return self

    async def __aenter__(self) -> _Scope:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def emit(self, stream: str, event: NewEvent) -> None:
        self.emitted.append((stream, event))


async def test_a_plugin_that_cannot_be_asked_about_keeps_no_news_of_others_back() -> None:
    scope, origin = _Scope(), ReleaseOrigin(signers=("a",), lineage=("a",))
    active = [("acme", Activation(plugin, "1.0.0", "active")) for plugin in ("gone/x", "broken/x", "sold/x", "same/x")]
    active.append(("globex", Activation("sold/x", "1.0.0", "disabled")))
    told: set[tuple[str, ...]] = set()

    class Store:
        async def all_activations(self, transaction: object) -> list[tuple[str, Activation]]:
            return active

        async def find(self, transaction: object, plugin: str, version: str) -> object:
            return SimpleNamespace(origin=origin, digest="d")

        async def all(self, transaction: object) -> set[Any]:
            return {("acme", *each) for each in told}

        async def add(self, transaction: object, plugin: str, version: str, matter: str, at: datetime) -> bool:
            told.add((plugin, version, matter))
            return True

        async def stand_behind(self, plugins: Sequence[str]) -> dict[str, ReleaseOrigin | KeelstoneError]:
            assert list(plugins) == ["broken/x", "gone/x", "same/x", "sold/x"], "asked for all at once"
            sold = replace(origin, owner=2, owned_since=THEN)
            return {"broken/x": Conflict("Its index cannot be verified."), "sold/x": sold, "same/x": origin}

    store: Any = Store()
    database: Any = scope
    owners = OwnerKeeper(
        lambda: store, database, store, store, Teller(database, store, lambda: THEN), Windows(), lambda: THEN
    )
    for _ in range(2):
        with pytest.raises(Conflict, match="cannot be verified"):
            await owners.look()
        assert [(stream, event.type) for stream, event in scope.emitted] == [("release:sold/x", "plugin.owner_changed")]
    assert [(news.tenant, news.plugin) for news in await owners.new_owners(None)] == [("acme", "sold/x")]
    assert await owners.new_owners("globex") == [], "it is off there"
