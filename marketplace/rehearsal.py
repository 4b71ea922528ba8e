"""A rehearsal of the worst days, on a copy: what is done about each, and what a real client then sees.

The copy has the registry's documents under keys made for the rehearsal, so that no real key is touched or needed.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa
from tuf.api.metadata import Metadata, Timestamp

from kernel.errors import KeelstoneError
from kernel.ports import Clock
from marketplace.ceremony import Ceremony
from marketplace.client import MarketplaceClient
from marketplace.errors import KeyMissing, VerificationFailed
from marketplace.keys import SigningKey
from marketplace.registry.blobs import FolderBlobs
from marketplace.registry.metadata import MetadataRows
from marketplace.registry.reader import RegistryReader
from marketplace.registry.tables import Tables, tuf_targets
from marketplace.transport import RegistryTransport
from marketplace.tuf_repository import MetadataTable, RepositoryKeys

_AT_ONCE = 20_000
_AHEAD = 100
"""Versions that a thief skips, so that a client that believes him refuses the true ones as older."""


@dataclass(frozen=True, slots=True)
class Step:
    """One moment of the rehearsal: what happened, what clients see, and whether that is as it must be."""

    day: str
    happened: str
    seen: str
    as_expected: bool


class _Road(RegistryTransport):
    """The copy's transport, on which a thief may put a timestamp of his own."""

    forged: bytes | None = None

    def stream(self, path: str) -> Iterator[bytes]:
        if path == "metadata/timestamp.json" and self.forged is not None:
            yield self.forged
        else:
            yield from super().stream(path)


class _Earlier:
    """A clock that is some days behind another."""

    def __init__(self, clock: Clock, days: float) -> None:
        self._clock, self._behind = clock, days * 86_400

    def now(self) -> float:
        return self._clock.now() - self._behind


def rehearse(folder: Path, clock: Clock, report: Callable[[Step], None] = lambda step: None) -> list[Step]:
    """Play it for the registry in ``folder``, telling each step as it is done. Blocks for seconds to minutes."""
    with TemporaryDirectory(prefix="keelstone-rehearsal-") as scratch:
        rehearsal = _Rehearsal(Path(scratch), clock, report)
        try:
            rehearsal.copy(folder)
            rehearsal.play()
        finally:
            rehearsal.close()
        return rehearsal.steps


class _Rehearsal:
    def __init__(self, scratch: Path, clock: Clock, report: Callable[[Step], None]) -> None:
        self._scratch, self._clock, self._report = scratch, clock, report
        self.steps: list[Step] = []
        self._tables = Tables(scratch)
        self._tables.create()
        self._keys = RepositoryKeys(scratch / "keys")
        self._road = _Road(RegistryReader(self._tables, FolderBlobs(scratch / "packages")))
        self._media = tuple(scratch / "media" / name for name in "abc")
        self._root, self._clients = b"", 0

    def close(self) -> None:
        self._tables.close()

    def copy(self, folder: Path) -> None:
        """The registry's present documents, signed by keys of the rehearsal's own."""
        self._keys.create_missing()
        source = Tables(folder)
        try:
            with self._ceremony() as (ceremony, table), source.read() as connection:
                ceremony.create(table)
                query = sa.select(tuf_targets.c.path, tuf_targets.c.body).where(tuf_targets.c.superseded.is_(None))
                for rows in connection.execute(query).partitions(_AT_ONCE):
                    ceremony.commit(table, {row.path: row.body for row in rows})
        finally:
            source.close()
        self._root = self._road._reader.metadata("1.root.json") or b""

    def play(self) -> None:
        """Every day in turn; each begins where the one before ended well."""
        self._old = self._client()
        self._look("the ceremony", "The registry was copied under keys of the rehearsal.")
        with self._ceremony() as (ceremony, table):
            root = ceremony.status(table)[0]
            ceremony.rotate_root(table, root.keys, self._media)
            ceremony.rotate_targets(table, self._scratch / "media" / "targets")
        shutil.rmtree(self._scratch / "keys" / "offline")
        self._look("the ceremony", "Root and targets keys were made anew, each on its own medium.")
        self._lose_a_root_key()
        self._steal_an_online_key()
        self._lose_the_machine()
        self._let_the_timestamp_expire()

    def _lose_a_root_key(self) -> None:
        day = "a root key is lost"
        with self._ceremony() as (ceremony, table):
            everyone = set(ceremony.status(table)[0].at_hand)
        shutil.rmtree(self._media[2])
        with self._ceremony() as (ceremony, table):
            root = ceremony.status(table)[0]
            (lost,) = everyone - set(root.at_hand)
            ceremony.rotate_root(table, [lost], [self._scratch / "media" / "d"])
        self._look(day, "The two others replaced it; the new root is signed by both thresholds.")
        self._media = (self._media[0], self._media[1], self._scratch / "media" / "d")
        everything, self._media = self._media, self._media[:1]
        try:
            with self._ceremony() as (ceremony, table):
                ceremony.rotate_online(table, "timestamp")
            self._tell(day, "One root key alone changed a role.", "it could: that must never be", expected=False)
        except KeyMissing as error:
            self._tell(day, "One root key alone tried to change a role.", f"it cannot: {error.detail}", expected=True)
        self._media = everything

    def _steal_an_online_key(self) -> None:
        day = "an online key is stolen"
        body = self._road._reader.metadata("timestamp.json") or b""
        stolen = self._keys.online_of("timestamp", Metadata[Timestamp].from_bytes(body).signatures)
        self._road.forged = _forged(body, stolen)
        seen, refused = self._see(self._client())
        self._tell(day, "The thief signs a timestamp.", f"until the rotation: {seen}", expected=not refused)
        deceived = self._client()
        self._see(deceived)
        with self._ceremony() as (ceremony, table):
            ceremony.rotate_all(table)
        seen, refused = self._see(self._old)
        self._tell(day, "All online keys were rotated; the thief goes on.", seen, expected=refused == "timestamp")
        self._road.forged = None
        self._look(day, "The thief is off the line.")
        seen, refused = self._see(deceived)
        self._tell(day, "A client that had believed the thief comes back.", seen, expected=not refused)

    def _lose_the_machine(self) -> None:
        shutil.rmtree(self._scratch / "keys" / "online")
        self._keys = RepositoryKeys(self._scratch / "keys")
        with self._ceremony() as (ceremony, table):
            ceremony.rotate_all(table)
        self._look(
            "the machine is lost", "From a backup of the database and the offline keys, new online keys were made."
        )

    def _let_the_timestamp_expire(self) -> None:
        day = "the timestamp expired"
        late = Ceremony(self._keys, _Earlier(self._clock, 8), self._media)
        with self._tables.write() as connection:
            late.freshen(MetadataRows(connection, self._clock.now()))
        seen, refused = self._see(self._old)
        self._tell(day, "Nobody signed it for a week.", seen, expected=refused == "timestamp")
        with self._ceremony() as (ceremony, table):
            ceremony.renew(table)
        self._look(day, "The registry was started again, and signed it.")

    # -------------------------------------------------------------------------- looking

    def _look(self, day: str, happened: str) -> None:
        """Somebody who has followed all along, and a newcomer with the first root: both must see the registry."""
        seen = [self._see(self._old), self._see(self._client())]
        words = f"who followed: {seen[0][0]}; a newcomer: {seen[1][0]}"
        self._tell(day, happened, words, expected=not any(refused for _, refused in seen))

    def _tell(self, day: str, happened: str, seen: str, *, expected: bool) -> None:
        self.steps.append(Step(day, happened, seen, expected))
        self._report(self.steps[-1])

    def _see(self, client: MarketplaceClient) -> tuple[str, str]:
        """What a client sees, and the link at which it refuses ('' if it does not)."""
        try:
            asyncio.run(client.revocations())
        except VerificationFailed as error:
            return f"refuses at {error.link}", error.link
        except KeelstoneError as error:
            return f"fails: {error.detail}", error.code
        return "trusts it", ""

    def _client(self) -> MarketplaceClient:
        self._clients += 1
        return MarketplaceClient(self._road, self._scratch / f"client-{self._clients}", self._root, clock=self._clock)

    @contextmanager
    def _ceremony(self) -> Iterator[tuple[Ceremony, MetadataTable]]:
        media = (*self._media, self._scratch / "media" / "targets")
        with self._tables.write() as connection:
            yield Ceremony(self._keys, self._clock, media), MetadataRows(connection, self._clock.now())


def _forged(body: bytes, stolen: SigningKey) -> bytes:
    metadata = Metadata[Timestamp].from_bytes(body)
    metadata.signed.version += _AHEAD
    metadata.sign(stolen.signer)
    return metadata.to_bytes()
