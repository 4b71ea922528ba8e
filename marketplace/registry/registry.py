"""The registry: takes releases in, keeps them, signs what it has, and never shows half a publish.

The order of writes is what makes that so. A package's blob is stored first, under its digest, where
nothing points to it. Then one transaction adds the release, renders the documents that changed and
signs bins, snapshot and timestamp. Killed before the commit, the registry is as it was (an orphan
blob is swept later); killed after it, the release is live, and asking again gives the same receipt.

Changes that arrive while a commit is under way are committed together by the next one: publishing
under load costs one signature per touched bin and one snapshot per commit, not per release.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from kernel.ports import Clock
from marketplace.errors import NamespacesClosed, SignatureInvalid, SignatureMissing, SignerUnknown
from marketplace.index import index_path
from marketplace.namespaces import read_key_set, target_path
from marketplace.package import DEFAULT_MAX_BYTES, Package, read_package
from marketplace.registry.blobs import FolderBlobs
from marketplace.registry.changes import (
    Change,
    Deprecate,
    Pending,
    Publish,
    RegisterNamespace,
    Touched,
    YankRelease,
    find_receipt,
    render,
    save_receipt,
)
from marketplace.registry.metadata import MetadataRows
from marketplace.registry.reader import RegistryReader
from marketplace.registry.receipts import (
    KEYS_TARGET,
    DeprecationRecord,
    NamespaceRecord,
    Receipt,
    keys_document,
    sign_receipt,
)
from marketplace.registry.tables import Tables, releases
from marketplace.rules.rule import ComponentInspector, ContractChecker, Mode
from marketplace.signing import DEPRECATION, YANK, Statement, open_statement, peek_statement, verify_release
from marketplace.tuf_repository import Lifetimes, Renewal, RepositoryKeys, TufRepository
from marketplace.validator import RuleState, Validation, Validator

MAX_BATCH = 256
ROOT_FILE = "root.json"
RENEW_SECONDS = 3_600.0
OnStep = Callable[[str], None]
CLOCK_SKEW = 300.0
"""Seconds that a publisher's clock may be ahead."""
Outcome = Receipt | NamespaceRecord | DeprecationRecord | Exception


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
        on_step: OnStep,
    ) -> None:
        self.reader = RegistryReader(tables, blobs)
        self.max_package_bytes = max_package_bytes
        self.warnings: tuple[str, ...] = ()
        """What an operator must do soon, as of the start; :meth:`keep_fresh` reports it."""
        self._tables, self._blobs, self._keys, self._repository = tables, blobs, keys, repository
        self._validator, self._looking_only = validator, validator.looking_only()
        self._clock, self._on_step = clock, on_step
        self._open_namespaces = open_namespaces
        self._waiting: list[tuple[Change, asyncio.Future[Outcome]]] = []
        self._committer: asyncio.Task[None] | None = None

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
        clock: Clock | None = None,
        lifetimes: Lifetimes | None = None,
        on_step: OnStep = lambda step: None,
    ) -> Registry:
        """Open the registry in ``folder``, making it (with its keys) at first, and finish what a kill left.

        ``inspect_component`` looks inside components (the sandbox can), ``check_contract`` tries their
        hooks; ``rules`` gives validator rules another mode; ``open_namespaces`` lets strangers register
        namespaces; ``on_step`` is told of each durable step of a change. Blocks for some 100 ms at
        first. Raises RegistryDamaged, KeyMissing, KeyUnusable or ConfigurationError.
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
            rows = MetadataRows(connection, self._clock.now())
            if rows.read("timestamp.json") is None:
                self._keys.create_missing()
                self._repository.create(rows)
                self._repository.commit(rows, {KEYS_TARGET: keys_document(self._keys.online("receipts"))})
                self._on_step("created")
            else:
                self.warnings = tuple(self._repository.renew(rows).warnings)
                rows.prune()
            kept = set(connection.execute(releases.select().with_only_columns(releases.c.digest)).scalars())
        self._blobs.sweep(kept)
        root = folder / ROOT_FILE
        if not root.exists():
            root.write_bytes(self.trusted_root)

    @property
    def trusted_root(self) -> bytes:
        """The first root metadata, from which clients follow every later one. Pin it."""
        return cast(bytes, self.reader.metadata("1.root.json"))

    async def close(self) -> None:
        """Finish the commit under way and close the database."""
        if self._committer is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._committer
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
        examined, findings, known = await asyncio.to_thread(self._examine, package, envelope)
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
        change = await asyncio.to_thread(self._examine_yank, envelope)
        return cast(Receipt, await self._commit(change))

    async def deprecate(self, envelope: bytes) -> DeprecationRecord:
        """Advise against choosing a plugin, or take it back, by a statement of its publisher
        (``signing.DEPRECATION``). Idempotent.

        Raises NotFound, Conflict (a newer statement is here), NamespaceUnknown or a signature error.
        """
        change = await asyncio.to_thread(self._examine_deprecation, envelope)
        return cast(DeprecationRecord, await self._commit(change))

    async def renew(self) -> Renewal:
        """Sign anew what is about to expire, and forget what nobody asks for any more."""
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
        return await asyncio.to_thread(self._validate, package)

    def rules(self) -> list[RuleState]:
        """The rules that releases must pass here."""
        return self._validator.rules()

    def _validate(self, data: bytes) -> Validation:
        package = read_package(data, max_bytes=self.max_package_bytes)
        return self._looking_only.validate(self.reader.submission(package))

    def _examine(self, data: bytes, envelope: bytes | None) -> tuple[Package, list[dict[str, Any]], Receipt | None]:
        """The package if nothing stands in its way, what else was found, and its receipt if it is here already."""
        package = read_package(data, max_bytes=self.max_package_bytes)
        manifest = package.manifest
        if not envelope:
            verify_release(package, None, {})
        key_set = self.reader.key_set(manifest.publisher)
        verify_release(package, envelope, key_set.keys, key_set.threshold)
        with self._tables.read() as connection:
            known = find_receipt(connection, manifest.id, manifest.version, package.digest)
        findings = [] if known is not None else self._validator.check(self.reader.submission(package))
        return package, [asdict(each) for each in findings], known

    def _examine_yank(self, envelope: bytes) -> YankRelease:
        statement = self._publishers_word(envelope, YANK)
        said = statement.predicate
        try:
            (digest,) = statement.subjects.values()
            return YankRelease(str(said["plugin"]), str(said["version"]), digest, str(said["reason"])[:500])
        except (KeyError, ValueError) as error:
            raise SignatureInvalid(
                "The statement does not say which release is withdrawn, and why.",
                expected="plugin, version and reason, about one package",
            ) from error

    def _examine_deprecation(self, envelope: bytes) -> Deprecate:
        said = self._publishers_word(envelope, DEPRECATION).predicate
        try:
            reason, successor, at = said["reason"], said["successor"], datetime.fromisoformat(said["at"])
            if at.tzinfo is None or at.timestamp() > self._clock.now() + CLOCK_SKEW:
                raise ValueError("a moment that has not come")
        except (KeyError, ValueError, TypeError) as error:
            raise SignatureInvalid(
                "The statement does not say what is advised against, why, and since when.",
                expected="plugin, reason, successor, and at: ISO 8601 in UTC, not in the future",
            ) from error
        moment = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        told = None if reason is None else (str(reason).strip() or "no reason given")[:500]
        named = str(successor) if successor and told is not None else None
        return Deprecate(str(said["plugin"]), told, named, moment)

    def _publishers_word(self, envelope: bytes, kind: str) -> Statement:
        """A statement about a plugin, signed by the keys of its namespace."""
        claimed = str(peek_statement(envelope, kind).predicate.get("plugin", ""))
        key_set = self.reader.key_set(claimed.partition("/")[0])
        try:
            return open_statement(envelope, kind, key_set.keys, key_set.threshold)
        except (SignatureInvalid, SignatureMissing, SignerUnknown) as error:
            error.plugin = claimed
            raise

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
                documents[index_path(plugin)] = render(connection, plugin, readme).to_bytes()
            self._on_step("documents-rendered")
            if documents:
                snapshot = self._repository.commit(MetadataRows(connection, now), documents)
                self._on_step("metadata-signed")
                for at, outcome in enumerate(outcomes):
                    if isinstance(outcome, Pending):
                        receipt = sign_receipt(self._keys.online("receipts"), {**outcome.values, "snapshot": snapshot})
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
        return renewal
