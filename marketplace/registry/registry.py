"""The registry: takes releases in, keeps them, signs what it has, and never shows half a publish.

The order of writes is what makes that so. A package's blob is stored first, under its digest, where nothing points to
it. Then one transaction adds the release, renders the documents that changed and signs the log's checkpoint, bins,
snapshot and timestamp. Killed before the commit, the registry is as it was (an orphan blob is swept later); killed
after it, the release is live, and asking again gives the same receipt. Long: it is the door to all of the registry.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import sqlalchemy as sa

from kernel.errors import KeelstoneError, NotFound, ValidationFailed
from kernel.ports import Clock
from marketplace.binding import Binding
from marketplace.dns import TxtLookup, look_up
from marketplace.errors import NamespacesClosed
from marketplace.jobs import JobList
from marketplace.keys import SigningKey
from marketplace.log.key import log_origin
from marketplace.log.note import VerifierKey
from marketplace.log.witness import read_cosigned
from marketplace.moments import utc_text
from marketplace.oidc.issuers import Issuer, Issuers, audience_of
from marketplace.osv.index import Imported
from marketplace.osv.severity import Severity
from marketplace.package import DEFAULT_MAX_BYTES
from marketplace.registry.blobs import FolderBlobs
from marketplace.registry.change import Change
from marketplace.registry.committing import Committer
from marketplace.registry.domains import VerifiedDomain, VerifyDomain
from marketplace.registry.examiner import Examiner
from marketplace.registry.handover import receipts_key
from marketplace.registry.history import past_changes
from marketplace.registry.indexes import rebuild_search
from marketplace.registry.inherited import Inherit, inherited
from marketplace.registry.log import LogRows
from marketplace.registry.metadata import MetadataRows
from marketplace.registry.parts import THRESHOLD
from marketplace.registry.publishers import ChangeKeys, change_of, recovery_of
from marketplace.registry.reader import RegistryReader
from marketplace.registry.receipts import KEYS_TARGET, DeprecationRecord, NamespaceRecord, Receipt, keys_document
from marketplace.registry.scanning import PATIENCE, Scans
from marketplace.registry.search.feed import Feed
from marketplace.registry.search.postgres import SharedSearch
from marketplace.registry.submissions import kept_waiting
from marketplace.registry.tables import Tables, in_parts, releases
from marketplace.registry.upkeep import Upkeep
from marketplace.rules.rule import ComponentInspector, ContractChecker, Mode
from marketplace.tuf_repository import Lifetimes, Renewal, RepositoryKeys, TufRepository
from marketplace.validator import RuleState, Validation, Validator
from plugin_sdk.services import Advisory, Revocation

ROOT_FILE = "root.json"
RENEW_SECONDS = 3_600.0
MATCHED_AT_ONCE = 50
"""Advisories in one commit, of those that follow from parts."""
OnStep = Callable[[str], None]
T = TypeVar("T")


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
        patience: float,
        look_up: TxtLookup,
        threshold: Severity,
        issuers: Issuers,
        on_step: OnStep,
    ) -> None:
        self.reader = RegistryReader(tables, blobs, threshold)
        self.max_package_bytes = max_package_bytes
        self.warnings: tuple[str, ...] = ()
        """What an operator must do soon, as of the start; :meth:`keep_fresh` reports it."""
        self._tables, self._blobs, self._keys, self._repository = tables, blobs, keys, repository
        self._validator = validator
        self._examiner = Examiner(self.reader, validator, clock, max_package_bytes)
        self._clock, self._on_step = clock, on_step
        self._scans = Scans(self._examiner, self._blobs, self.commit, on_step, patience)
        self._committer = Committer(tables, keys, repository, clock, on_step, lambda: self._scans.busy > 0)
        self._look_up, self.issuers = look_up, issuers
        self._open_namespaces, self._witnesses = open_namespaces, tuple(witnesses)
        self._upkeep = Upkeep(tables, repository, clock)
        self._shared: SharedSearch | None = None

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
        patience: float = PATIENCE,
        look_up: TxtLookup = look_up,
        threshold: Severity = THRESHOLD,
        issuers: Sequence[Issuer] = (),
        issuers_authority: Path | None = None,
        search_url: str | None = None,
        clock: Clock | None = None,
        lifetimes: Lifetimes | None = None,
        on_step: OnStep = lambda step: None,
    ) -> Registry:
        """Open the registry in ``folder``, making it (with its keys) at first, and finish what a kill left.

        ``inspect_component`` looks inside components (the sandbox can), ``check_contract`` tries their
        hooks; ``rules`` gives validator rules another mode; ``open_namespaces`` lets strangers register
        namespaces; ``witnesses`` may cosign the log; ``patience`` is how many seconds a publish
        waits for its scan before it answers that it is under way; ``look_up`` asks DNS; from
        ``threshold`` on a weakness of a part is grave; CI jobs of ``issuers`` may release if their publishers let
        them, and ``issuers_authority`` is a file of certificates that vouch for them beside the usual ones;
        ``search_url`` is a PostgreSQL that searches are answered from; ``on_step`` is told of each durable step of a
        change.
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
            patience=patience,
            look_up=look_up,
            threshold=threshold,
            issuers=Issuers(issuers, clock, issuers_authority),
            on_step=on_step,
        )
        try:
            registry._prepare(folder)
            if search_url is not None:
                registry._share_search(search_url)
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
            kept = set(connection.execute(sa.select(releases.c.digest)).scalars()) | kept_waiting(connection)
        self._blobs.sweep(kept)
        root = folder / ROOT_FILE
        if not root.exists():
            root.write_bytes(self.trusted_root)

    def _share_search(self, url: str) -> None:
        reader = self.reader
        self._shared = SharedSearch(url, Feed(self._tables), self.trusted_root, reader.search_index)
        reader.search_index = self._shared

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
        await self._scans.stop()
        await self._committer.stop()
        await asyncio.to_thread(self._upkeep.finish)
        if self._shared is not None:
            await asyncio.to_thread(self._shared.close)
        self.reader.close()

    # -------------------------------------------------------------------------- changes

    async def register_namespace(self, document: bytes, *, by_operator: bool = False) -> NamespaceRecord:
        """Bind a namespace to the keys in a signed key set (``namespaces.make_key_set``).

        First come, first served, with proof of possession; from then on its keys say who follows them, see
        ``publishers.ChangeKeys``. Raises NamespaceTaken, NamespacesClosed (a new one, unless ``by_operator``),
        KeySetRefused, ValidationFailed or a signature error.
        """
        change = await asyncio.to_thread(change_of, document)
        if isinstance(change, ChangeKeys):
            return await self.commit(change)
        if not self._open_namespaces and not by_operator:
            raise NamespacesClosed(
                "This marketplace does not register namespaces for everybody.",
                fix="Ask its operator to register yours.",
            )
        return await self.commit(change)

    async def recover_namespace(self, document: bytes, reason: str) -> NamespaceRecord:
        """Put a new key set in place of one whose keys are lost, by the operator. The log says so, and platforms hold
        what its keys sign. Raises as :meth:`register_namespace`, and ValidationFailed without a reason.
        """
        told = " ".join(reason.split())[:500]
        if not told:
            raise ValidationFailed("A recovery must say why.", expected="a reason")
        return await self.commit(await asyncio.to_thread(recovery_of, document, told, await self.receipts_key()))

    async def publish(self, package: bytes, envelope: bytes | None) -> Receipt:
        """Take one release in. Idempotent by digest: asked again, it gives the receipt of the state it is in now.

        It is installable when this returns ``live``. A rule may hold it for a reviewer (``quarantined``), and where
        scanning takes long the answer is ``received`` or ``scanning``: ask again. Raises what reading, verifying and
        validating a package raise, NamespaceUnknown, and VersionTaken if the version exists with other bytes.
        """
        return await self._scans.publish(package, envelope)

    async def decide(self, digest: str, *, approved: bool, reason: str, reviewer: str) -> Receipt:
        """A reviewer's verdict on a held release: it goes live, or is turned down for ever. Idempotent.

        Raises NotFound, Conflict (another verdict is there), ValidationFailed or a signature error.
        """
        key = await self.receipts_key()
        change = await asyncio.to_thread(
            self._examiner.verdict, digest, approved=approved, reason=reason, reviewer=reviewer, key=key
        )
        return await self.commit(change)

    async def resume(self, report: Callable[[str], None] = lambda warning: None) -> None:
        """Scan what was being scanned when the registry last stopped; what cannot be goes to ``report``."""
        for digest, envelope in await asyncio.to_thread(self.reader.reviews.unfinished):
            try:
                data = await self._blobs.get(digest)
                if data is None:
                    raise NotFound("A package that was being scanned is gone. Its publisher can publish it again.")
                await asyncio.to_thread(self._examiner.open, data, envelope)
            except KeelstoneError as error:
                report(f"{error} (sha256 {digest})")
            else:
                self._scans.begin(data, envelope)

    async def yank(self, envelope: bytes) -> Receipt:
        """Withdraw a release, by a statement of its publisher (``signing.YANK``).

        Raises NotFound, NamespaceUnknown or a signature error.
        """
        change = await asyncio.to_thread(self._examiner.yank, envelope)
        return await self.commit(change)

    async def deprecate(self, envelope: bytes) -> DeprecationRecord:
        """Advise against choosing a plugin, or take it back, by a statement of its publisher
        (``signing.DEPRECATION``). Idempotent.

        Raises NotFound, Conflict (a newer statement is here), NamespaceUnknown or a signature error.
        """
        change = await asyncio.to_thread(self._examiner.deprecation, envelope)
        return await self.commit(change)

    async def revoke(self, plugin: str, version: str, reason: str) -> Revocation:
        """End a release everywhere: nobody installs it any more, and platforms that run it quarantine it within
        seconds. There is no way back. Idempotent. Raises NotFound or ValidationFailed.
        """
        key = await self.receipts_key()
        change = await asyncio.to_thread(self._examiner.revocation, plugin, version, reason, key)
        return await self.commit(change)

    def read_answer(self, envelope: bytes) -> tuple[str, str, str | None, str]:
        """A publisher's verified answer to a rating: plugin, rating, text, moment. Raises as :meth:`deprecate`."""
        return self._examiner.answer(envelope)

    def now(self) -> float:
        """The registry's clock, in epoch seconds."""
        return self._clock.now()

    async def advise(self, said: bytes, *, by_publisher: bool = False) -> Advisory:
        """Publish an advisory: the operator's (an OSV document), or a publisher's (a signed statement of one).

        Idempotent. Raises ValidationFailed, NotFound, Forbidden, Conflict (a newer word is here) or a signature error.
        """
        if by_publisher:
            return await self.commit(await asyncio.to_thread(self._examiner.advisory, said))
        key = await self.receipts_key()
        return await self.commit(await asyncio.to_thread(self._examiner.operators_advisory, said, key))

    async def import_weaknesses(self, documents: Iterable[Any]) -> Imported:
        """Take in what an OSV export says (``read_export``), and see whom it affects. Raises what reading it raises."""
        index, now = self.reader.parts.index, utc_text(self._clock.now())
        imported = await asyncio.to_thread(index.take, documents, now)
        await self.match_parts()
        return imported

    async def match_parts(self) -> int:
        """Say in advisories which published releases have parts with grave weaknesses; how many are new or changed."""

        def work_out() -> list[tuple[Advisory, Advisory | None]]:
            reader, now = self.reader, utc_text(self._clock.now())
            return inherited(reader.parts.affected(), reader.advisories.all(), reader.parts.listed, now)

        news = await asyncio.to_thread(work_out)
        key = await self.receipts_key()
        # Some at a time: a weakness of what everybody links must not keep publishers waiting.
        return sum([await self.commit(Inherit(some, key)) for some, _ in in_parts(news, MATCHED_AT_ONCE)])

    async def verify_domain(self, envelope: bytes) -> VerifiedDomain:
        """Bind a domain to a namespace whose publisher names it (``DOMAIN``), if the domain says the same.

        Raises DomainNotVerified, BackendUnavailable, NamespaceUnknown, ValidationFailed or a signature error.
        """

        def ask() -> VerifyDomain:
            publisher, domain = self._examiner.domain(envelope)
            return self.reader.domains.ask(publisher, domain, envelope, self._look_up, self._clock.now())

        return await self.commit(await asyncio.to_thread(ask))

    async def let_jobs(self, envelope: bytes) -> JobList:
        """Let CI jobs release a namespace's plugins, by its publisher's signed list (``signing.JOBS``): the whole list,
        in place of the one before. Idempotent.

        Raises Conflict, NamespaceUnknown, ValidationFailed or a signature error.
        """
        return await self.commit(await asyncio.to_thread(self._examiner.jobs, envelope))

    @property
    def audience(self) -> str:
        """Whom the identity tokens of CI jobs must be for."""
        return audience_of(log_origin(self.trusted_root))

    async def bind_job(self, token: str, plugin: str, key: Mapping[str, Any], proof: bytes) -> Binding:
        """Give a CI job's ``key`` minutes to release ``plugin``, for its identity token (used up by that) and a
        ``proof`` that it has the key (``binding.prove_key``).

        Raises JobNotTrusted, NamespaceUnknown, Conflict, ValidationFailed, BackendUnavailable or a signature error.
        """
        identity = await self.issuers.check(token, self.audience)
        by = await self.receipts_key()
        change = await asyncio.to_thread(self._examiner.job_key, identity, token, plugin, key, proof, self.audience, by)
        return await self.commit(change)

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
        self._upkeep.downloaded(digest)

    async def renew(self) -> Renewal:
        """Sign anew what is about to expire, forget what nobody asks for any more, and rank anew."""
        renewal = await asyncio.to_thread(self._upkeep.renew)
        for gone in await asyncio.to_thread(self.reader.domains.recheck, self._look_up, self._clock.now()):
            await self.commit(gone)
        return renewal

    async def keep_fresh(self, report: Callable[[str], None] = lambda warning: None) -> None:
        """Renew every hour, until cancelled; warnings go to ``report``. Who does this serves: it also keeps the copy
        for searches."""
        if self._shared is not None:
            self._shared.start()
        for warning in self.warnings:
            report(warning)
        await self.resume(report)
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            for warning in (await self.renew()).warnings:
                report(warning)
            await self.match_parts()

    # -------------------------------------------------------------------------- examination

    async def validate(self, package: bytes) -> Validation:
        """What publishing the package would find, signature aside. Stores nothing. Raises what reading it raises.

        Anybody may ask, so the hooks of an unsigned stranger are not tried: authors do that themselves.
        """
        return await asyncio.to_thread(self._examiner.validate, package)

    def rules(self) -> list[RuleState]:
        """The rules that releases must pass here."""
        return self._validator.rules()

    async def commit(self, change: Change[T]) -> T:
        """Apply a change together with those that wait; it is durable and signed when this returns.

        Raises what the change raises.
        """
        outcome = await self._committer.commit(change)
        if self._shared is not None:
            self._shared.wake()
        return outcome

    @property
    def search_state(self) -> str | None:
        """Where searches are answered from, if a PostgreSQL is set for them (``SharedSearch.answered_by``)."""
        return None if self._shared is None else self._shared.answered_by

    async def receipts_key(self) -> SigningKey:
        """The key that signs receipts, and what the operator says, at the moment."""
        return await asyncio.to_thread(receipts_key, self._tables, self._keys)
