"""Group commit: changes that arrive while a commit is under way are committed together by the next one.

Publishing under load costs one signature per touched bin and one snapshot per commit, not per release.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar, cast

from kernel.ports import Clock
from marketplace.moments import utc_text
from marketplace.registry.batches import Batches
from marketplace.registry.change import Change, Pending, Touched
from marketplace.registry.changes import save_receipts
from marketplace.registry.handover import present_key
from marketplace.registry.indexes import render_indexes
from marketplace.registry.log import LogRows
from marketplace.registry.metadata import MetadataRows
from marketplace.registry.receipts import Receipt, sign_receipt
from marketplace.registry.tables import Tables, ask
from marketplace.tuf_repository import RepositoryKeys, TufRepository

MAX_BATCH = 1_024
LULL_SECONDS, GATHER_SECONDS = 0.06, 0.5
"""While others are being scanned, a commit waits for them as long as they keep coming, and never longer than so."""
T = TypeVar("T")


class Committer:
    """Applies changes to one registry, batch by batch, each in one transaction. For one event loop.

    ``busy`` says whether somebody is about to come with another change.
    """

    def __init__(
        self,
        tables: Tables,
        keys: RepositoryKeys,
        repository: TufRepository,
        clock: Clock,
        on_step: Callable[[str], None],
        busy: Callable[[], bool],
    ) -> None:
        self._tables, self._keys, self._repository = tables, keys, repository
        self._clock, self._on_step, self._busy = clock, on_step, busy
        self._batches: Batches[Change[Any], Any] = Batches(self._apply, MAX_BATCH, gather=self._gather)

    async def stop(self) -> None:
        """Finish the commit under way."""
        await self._batches.finish()

    async def commit(self, change: Change[T]) -> T:
        """Apply a change together with those that wait; it is durable and signed when this returns.

        Raises what the change raises.
        """
        return cast(T, await self._batches.do(change))

    async def _gather(self) -> None:
        """Wait for those who are about to come: a commit costs the same for one release as for many."""
        loop = asyncio.get_running_loop()
        seen, until = 0, loop.time() + GATHER_SECONDS
        while seen < self._batches.waiting < MAX_BATCH and self._busy() and loop.time() < until:
            seen = self._batches.waiting
            await asyncio.sleep(LULL_SECONDS)

    def _apply(self, changes: list[Change[Any]]) -> list[Any]:
        """One transaction for all ``changes``; one that is refused leaves the others alone."""
        now = self._clock.now()
        moment = utc_text(now)
        touched, outcomes, receipts = Touched(), list[Any](), list[Receipt]()
        with self._tables.write() as connection:
            self._on_step("transaction-begun")
            for change in changes:
                ask(connection, "SAVEPOINT change")
                try:
                    outcomes.append(change.apply(connection, moment, touched))
                except Exception as error:
                    ask(connection, "ROLLBACK TO change")
                    outcomes.append(error)
                ask(connection, "RELEASE change")
            self._on_step("changes-written")
            documents = {path: make(connection) for path, make in touched.documents.items()}
            documents |= render_indexes(connection, touched.plugins, now)
            self._on_step("documents-rendered")
            first = snapshot = 0
            if touched.entries:
                log = LogRows(connection, now)
                first = log.append(touched.entries, touched.statements, present_key(connection, self._keys, "log"))
                self._on_step("logged")
            if documents:
                snapshot = self._repository.commit(MetadataRows(connection, now), documents)
                self._on_step("metadata-signed")
            pending = [(at, outcome) for at, outcome in enumerate(outcomes) if isinstance(outcome, Pending)]
            key = present_key(connection, self._keys, "receipts") if pending else None
            for at, outcome in pending:
                assert key is not None
                logged = None if outcome.position is None else first + outcome.position
                shown = snapshot if outcome.values["state"] in ("live", "yanked") else 0
                outcomes[at] = sign_receipt(key, {**outcome.values, "snapshot": shown, "log_index": logged})
                receipts.append(outcomes[at])
            save_receipts(connection, receipts)
            self._on_step("committing")
        self._on_step("committed")
        return outcomes
