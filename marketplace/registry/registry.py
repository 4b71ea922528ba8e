"""The registry: takes releases in, keeps them, signs what it has, and never shows half a publish.

The order of writes is what makes that so. A package's blob is stored first, under its digest, where
nothing points to it. Then one transaction adds the release, renders the documents that changed and
signs the log's checkpoint, bins, snapshot and timestamp. Killed before the commit, the registry is as it was (an orphan
blob is swept later); killed after it, the release is live, and asking again gives the same receipt.

Changes that arrive while a commit is under way are committed together by the next one: publishing
under load costs one signature per touched bin and one snapshot per commit, not per release.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import sqlalchemy as sa

from kernel.ports import Clock
from marketplace.errors import NamespacesClosed
from marketplace.index import index_path
from marketplace.log.key import log_origin
from marketplace.log.note import VerifierKey
from marketplace.log.witness import read_cosigned
from marketplace.namespaces import read_key_set, target_path
from marketplace.package import DEFAULT_MAX_BYTES
from marketplace.registry.blobs import FolderBlobs
from marketplace.registry.changes import (
    Change,
    Pending,
    Publish,
    RegisterNamespace,
    Touched,
    rebuild_search,
    render,
    save_receipt,
)
from marketplace.registry.examiner import Examiner
from marketplace.registry.history import past_changes
from marketplace.registry.log import LogRows
from marketplace.registry.metadata import MetadataRows
from marketplace.registry.reach import all_revocations
from marketplace.registry.reader import RegistryReader
from marketplace.registry.receipts import (
    KEYS_TARGET,
    DeprecationRecord,
    NamespaceRecord,
    Receipt,
    keys_document,
    sign_receipt,
)
from marketplace.registry.search import note_downloads, refresh_standings
from marketplace.registry.tables import Tables, releases
from marketplace.revocations import REVOCATIONS_TARGET, revocations_document
from marketplace.rules.rule import ComponentInspector, ContractChecker, Mode
from marketplace.tuf_repository import Lifetimes, Renewal, RepositoryKeys, TufRepository
from marketplace.validator import RuleState, Validation, Validator
from plugin_sdk.services import Revocation

MAX_BATCH = 256
ROOT_FILE = "root.json"
RENEW_SECONDS = 3_600.0
OnStep = Callable[[str], None]
Outcome = Receipt | NamespaceRecord | DeprecationRecord | Revocation | Exception


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        return time.time()


class Registry:
    """One marketplace's registry in one folder. Make it with :meth:`open`, end it with :meth:`close`.

    Use it from one event loop; several processes may open the same folder.
    """

    def __init__(
        self,
        tables: Tables,
        blobs: FolderBlobs,
        keys: RepositoryKeys,
        repository: TufRepository,
        validator: Validator,
        clock: Clock,
        *,
        max_package_bytes: int,
        open_namespaces: bool,
        witnesses: Sequence[VerifierKey],
        on_step: OnStep,
    ) -> None:
        self.reader = RegistryReader(tables, blobs)
        self.max_package_bytes = max_package_bytes
        self.warnings: tuple[str, ...] = ()
        """What an operator must do soon, as of the start; :meth:`keep_fresh` reports it."""
        self._tables, self._blobs, self._keys, self._repository = tables, blobs, keys, repository
        self._validator = validator
        self._examiner = Examiner(self.reader, validator, clock, max_package_bytes)
        self._clock, self._on_step = clock, on_step
        self._open_namespaces, self._witnesses = open_namespaces, tuple(witnesses)
        self._waiting: list[tuple[Change, asyncio.Future[Outcome]]] = []
        self._committer: asyncio.Task[None] | None = None
        self._downloaded: Counter[str] = Counter()
        self._counting = threading.Lock()

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        max_package_bytes: int = DEFAULT_MAX_BYTES,
        inspect_component: ComponentInspector | None = None,
        check_contract: ContractChecker | None = None,
        rules: Mapping[str, Mode] | None = None,
        open_namespaces: bool = True,
        witnesses: Sequence[VerifierKey] = (),
        clock: Clock | None = None,
        lifetimes: Lifetimes | None = None,
        on_step: OnStep = lambda step: None,
    ) -> Registry:
        """Open the registry in ``folder``, making it (with its keys) at first, and finish what a kill left.

        ``inspect_component`` looks inside components (the sandbox can), ``check_contract`` tries their
        hooks; ``rules`` gives validator rules another mode; ``open_namespaces`` lets strangers register
        namespaces; ``witnesses`` may cosign the log; ``on_step`` is told of each durable step of a change.
        Blocks for some 100 ms at first. Raises RegistryDamaged, KeyMissing, KeyUnusable or ConfigurationError.
        """
        folder.mkdir(parents=True, exist_ok=True)
        clock = clock or SystemClock()
        tables, keys = Tables(folder), RepositoryKeys(folder / "keys")
        registry = cls(
            tables,
            FolderBlobs(folder / "packages"),
            keys,
            TufRepository(keys, clock, lifetimes),
            Validator(inspect_component, check_contract, rules),
            clock,
            max_package_bytes=max_package_bytes,
            open_namespaces=open_namespaces,
            witnesses=witnesses,
            on_step=on_step,
        )
        try:
            registry._prepare(folder)
        except BaseException:
            tables.close()
            raise
        return registry

    def _prepare(self, folder: Path) -> None:
        self._tables.create()
        with self._tables.write() as connection:
            rebuild_search(connection, self._clock.now())
            rows = MetadataRows(connection, self._clock.now())
            if rows.read("timestamp.json") is None:
                self._keys.create_missing()
                self._repository.create(rows)
                self._begin_log(connection, rows)
                self._on_step("created")
            else:
                if not LogRows(connection).exists():
                    self._begin_log(connection, rows)
                    self._on_step("log-begun")
                self.warnings = tuple(self._repository.renew(rows).warnings)
                rows.prune()
            kept = set(connection.execute(releases.select().with_only_columns(releases.c.digest)).scalars())
        self._blobs.sweep(kept)
        root = folder / ROOT_FILE
        if not root.exists():
            root.write_bytes(self.trusted_root)

    def _begin_log(self, connection: sa.Connection, rows: MetadataRows) -> None:
        """Begin the log with what was changed before there was one, and let TUF vouch for its key."""
        key, origin = self._keys.create_online("log"), log_origin(cast(bytes, rows.read("1.root.json")))
        log = LogRows(connection, self._clock.now())
        log.begin(origin, key)
        log.append(past_changes(connection), {}, key)
        self._repository.commit(rows, {KEYS_TARGET: keys_document(self._keys.online("receipts"), key, origin)})

    @property
    def trusted_root(self) -> bytes:
        """The first root metadata, from which clients follow every later one. Pin it."""
        return cast(bytes, self.reader.metadata("1.root.json"))

    async def close(self) -> None:
        """Finish the commit under way and close the database."""
        if self._committer is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._committer
        if self._downloaded:
            await asyncio.to_thread(self._rank)
        self._tables.close()

    # -------------------------------------------------------------------------- changes

    async def register_namespace(self, document: bytes, *, by_operator: bool = False) -> NamespaceRecord:
        """Bind a namespace to the keys in a signed key set (``namespaces.make_key_set``).

        First come, first served, with proof of possession. Raises NamespaceTaken, NamespacesClosed
        (unless ``by_operator``), ValidationFailed or a signature error.
        """
        if not self._open_namespaces and not by_operator:
            raise NamespacesClosed(
                "This marketplace does not register namespaces for everybody.",
                fix="Ask its operator to register yours.",
            )
        key_set = await asyncio.to_thread(read_key_set, document)
        return cast(NamespaceRecord, await self._commit(RegisterNamespace(key_set)))

    async def publish(self, package: bytes, envelope: bytes | None) -> Receipt:
        """Take one release in; it is installable when this returns. Idempotent by digest.

        Raises what reading, verifying and validating a package raise, NamespaceUnknown, and
        VersionTaken if the version exists with other bytes.
        """
        examined, findings, known = await asyncio.to_thread(self._examiner.publish, package, envelope)
        self._on_step("examined")
        await self._blobs.put(package)
        self._on_step("blob-stored")
        if known is not None:
            return known
        return cast(Receipt, await self._commit(Publish(examined, cast(bytes, envelope), findings)))

    async def yank(self, envelope: bytes) -> Receipt:
        """Withdraw a release, by a statement of its publisher (``signing.YANK``).

        Raises NotFound, NamespaceUnknown or a signature error.
        """
        change = await asyncio.to_thread(self._examiner.yank, envelope)
        return cast(Receipt, await self._commit(change))

    async def deprecate(self, envelope: bytes) -> DeprecationRecord:
        """Advise against choosing a plugin, or take it back, by a statement of its publisher
        (``signing.DEPRECATION``). Idempotent.

        Raises NotFound, Conflict (a newer statement is here), NamespaceUnknown or a signature error.
        """
        change = await asyncio.to_thread(self._examiner.deprecation, envelope)
        return cast(DeprecationRecord, await self._commit(change))

    async def revoke(self, plugin: str, version: str, reason: str) -> Revocation:
        """End a release everywhere: nobody installs it any more, and platforms that run it quarantine it within
        seconds. There is no way back. Idempotent. Raises NotFound or ValidationFailed.
        """
        key = self._keys.online("receipts")
        change = await asyncio.to_thread(self._examiner.revocation, plugin, version, reason, key)
        return cast(Revocation, await self._commit(change))

    async def cosign(self, body: bytes) -> tuple[int, list[str]]:
        """Take in a witness' signature under one of the log's checkpoints (a signed note): its size, and whose.

        Raises SignerUnknown unless a witness that the operator named signed it, SignatureInvalid or NotFound.
        """
        checkpoint, signed = await asyncio.to_thread(read_cosigned, body, self._witnesses, self._clock.now())

        def keep() -> None:
            with self._tables.write() as connection:
                for witness, signature in signed.items():
                    LogRows(connection).cosign(checkpoint, witness, signature)

        await asyncio.to_thread(keep)
        return checkpoint.size, sorted(witness.name for witness in signed)

    def downloaded(self, digest: str) -> None:
        """A package was fetched: it counts for its plugin's place in search, from the next :meth:`renew` on."""
        with self._counting:
            self._downloaded[digest] += 1

    async def renew(self) -> Renewal:
        """Sign anew what is about to expire, forget what nobody asks for any more, and rank anew."""
        return await asyncio.to_thread(self._renew)

    async def keep_fresh(self, report: Callable[[str], None] = lambda warning: None) -> None:
        """Renew every hour until cancelled; warnings (offline keys needed soon) go to ``report``."""
        warnings: Sequence[str] = self.warnings
        while True:
            for warning in warnings:
                report(warning)
            await asyncio.sleep(RENEW_SECONDS)
            warnings = (await self.renew()).warnings

    # -------------------------------------------------------------------------- examination

    async def validate(self, package: bytes) -> Validation:
        """What publishing the package would find, signature aside. Stores nothing. Raises what reading it raises.

        Anybody may ask, so the hooks of an unsigned stranger are not tried: authors do that themselves.
        """
        return await asyncio.to_thread(self._examiner.validate, package)

    def rules(self) -> list[RuleState]:
        """The rules that releases must pass here."""
        return self._validator.rules()

    # -------------------------------------------------------------------------- group commit

    async def _commit(self, change: Change) -> Outcome:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        self._waiting.append((change, future))
        if self._committer is None or self._committer.done():
            self._committer = loop.create_task(self._drain())
        outcome = await future
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _drain(self) -> None:
        """Commit what is waiting, batch by batch. A task of its own: a caller who leaves takes nobody along."""
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            outcomes: list[Outcome]
            try:
                outcomes = await asyncio.to_thread(self._apply, [change for change, _ in batch])
            except Exception as error:
                outcomes = [error] * len(batch)
            except BaseException:
                # The process is ending (or its loop is): whoever waits must not wait for ever.
                for _, future in [*batch, *self._waiting]:
                    future.cancel()
                raise
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)

    def _apply(self, changes: list[Change]) -> list[Outcome]:
        """One transaction for all ``changes``; one that is refused leaves the others alone."""
        now = self._clock.now()
        moment = datetime.fromtimestamp(int(now), UTC).isoformat().replace("+00:00", "Z")
        touched, outcomes = Touched(), list[Outcome | Pending]()
        with self._tables.write() as connection:
            self._on_step("transaction-begun")
            for change in changes:
                try:
                    with connection.begin_nested():
                        outcomes.append(change.apply(connection, moment, touched))
                except Exception as error:
                    outcomes.append(error)
            self._on_step("changes-written")
            documents = {target_path(name): document for name, document in touched.namespaces.items()}
            for plugin, readme in touched.plugins.items():
                documents[index_path(plugin)] = render(connection, plugin, readme, self._clock.now()).to_bytes()
            if touched.revoked:
                documents[REVOCATIONS_TARGET] = revocations_document(all_revocations(connection))
            self._on_step("documents-rendered")
            if documents:
                log = LogRows(connection, now)
                first = log.append(touched.entries, touched.statements, self._keys.online("log"))
                self._on_step("logged")
                snapshot = self._repository.commit(MetadataRows(connection, now), documents)
                self._on_step("metadata-signed")
                for at, outcome in enumerate(outcomes):
                    if isinstance(outcome, Pending):
                        values = {**outcome.values, "snapshot": snapshot, "log_index": first + outcome.position}
                        receipt = sign_receipt(self._keys.online("receipts"), values)
                        save_receipt(connection, receipt)
                        outcomes[at] = receipt
            self._on_step("committing")
        self._on_step("committed")
        return cast("list[Outcome]", outcomes)

    def _renew(self) -> Renewal:
        with self._tables.write() as connection:
            rows = MetadataRows(connection, self._clock.now())
            renewal = self._repository.renew(rows)
            rows.prune()
            LogRows(connection, self._clock.now()).prune()
        self._rank()
        return renewal

    def _rank(self) -> None:
        """Count what was downloaded, and put plugins where they now belong in search, some at a time: nobody who
        publishes waits long."""
        with self._counting:
            counted, self._downloaded = self._downloaded, Counter()
        with self._tables.write() as connection:
            note_downloads(connection, counted, self._clock.now())
        more = True
        while more:
            with self._tables.write() as connection:
                more = refresh_standings(connection, self._clock.now()) > 0
