"""What every store of breakers must do (``kernel.ports.BreakerStore``)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kernel.adapters.sql import SqlDatabase
from kernel.ports import BreakerRecord, BreakerStore
from plugin_sdk.testing.fakes import FakeBreakerStore

OPEN = BreakerRecord(
    "acme/aa", "1.0.0", "acme", "user_creating", "open", 5, 2, 4.5, 1_800_000_000.25, 1_799_999_990.0, "guest-trap: no"
)
"""A breaker with every field set; moments with a fraction that any database keeps."""


class BreakerSuite:
    @pytest.fixture(params=["real", "fake"])
    def store(self, request: pytest.FixtureRequest, database: SqlDatabase) -> BreakerStore:
        return database.breakers if request.param == "real" else FakeBreakerStore()

    async def test_an_open_breaker_comes_back_as_it_was(self, store: BreakerStore) -> None:
        await store.save([OPEN])
        assert await store.load() == [OPEN]

    async def test_the_last_word_counts_and_a_closed_one_is_forgotten(self, store: BreakerStore) -> None:
        other = replace(OPEN, tenant="globex")
        await store.save([OPEN, other])
        longer = replace(OPEN, openings=3, wait=9.0)
        await store.save([longer])
        assert sorted(await store.load(), key=lambda r: r.tenant) == [longer, other]
        await store.save([replace(longer, state="closed"), replace(other, hook="never_seen", state="closed")])
        assert await store.load() == [other]

    async def test_a_breaker_that_is_being_probed_counts_as_open(self, store: BreakerStore) -> None:
        await store.save([replace(OPEN, state="half_open")])
        assert [r.state for r in await store.load()] == ["open"]
