"""A marketplace's log as people and witnesses use it: audit it, get and check proofs, cosign it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernel.versions import parse_version
from marketplace.errors import VerificationFailed
from marketplace.index import checked_id, index_path, read_index
from marketplace.keys import SigningKey
from marketplace.log.audit import Audit
from marketplace.log.checkpoint import Checkpoint
from marketplace.log.entry import Entry, sha256_of
from marketplace.log.follow import LogFollower
from marketplace.log.key import KEYS_TARGET, LogKeys, open_receipt, own_keys, read_log_keys
from marketplace.log.note import VerifierKey
from marketplace.log.proof import LogProof, read_proof
from marketplace.log.witness import cosign
from marketplace.namespaces import target_path
from marketplace.revocations import REVOCATIONS_TARGET, read_revocations
from marketplace.succession import read_succession
from marketplace.transport import Transport
from marketplace.tufcache import TrustedCache

if TYPE_CHECKING:
    from tuf.ngclient import Updater


class Logbook:
    """The log of one marketplace, seen from this machine. Blocking. TUF vouches for the log's key.

    The arguments are those of ``MarketplaceClient``, with which it shares the ``cache``.
    """

    def __init__(
        self,
        transport: Transport,
        cache: Path,
        trusted_root: bytes,
        *,
        witnesses: Sequence[VerifierKey] = (),
        witnesses_needed: int = 0,
    ) -> None:
        self._transport, self._trusted = transport, TrustedCache(transport, cache, trusted_root)
        self._witnesses, self._needed = tuple(witnesses), witnesses_needed

    def audit(self, publisher: str | None = None, *, whole: bool = False) -> tuple[VerifierKey, Audit]:
        """Follow the log from where this machine last looked (``whole``: from its beginning), entry by entry.

        The log's key comes with what was found. ``publisher`` picks whose entries are shown. What was withdrawn, and
        what that publisher released, is compared with what the marketplace lists. Raises LogInconsistent,
        VerificationFailed or BackendUnavailable.
        """

        def asked(entry: Entry) -> bool:
            return publisher in (None, entry.publisher)

        def claimed(entry: Entry) -> bool:
            return entry.kind in ("yank", "kill", "keys", "handover") or (
                entry.kind == "publish" and entry.publisher == publisher
            )

        with self._session() as (updater, follower):
            found = follower.audit(asked, claimed, whole=whole)
            doubts = [claim for claim in found.claims if self._contradicted(updater, claim[1])]
            if not doubts and not found.problems:
                follower.passed(found)
        if doubts:
            # The log may have gone on after the metadata was fetched: what newer metadata contradicts, too, counts.
            with self._session() as (updater, follower):
                for index, entry in doubts:
                    if contradiction := self._contradicted(updater, entry):
                        found.problems.append(f"Entry {index} says {entry}, but the marketplace {contradiction}.")
                if not found.problems:
                    follower.passed(found)
        return follower.keys.present, found

    def proof(self, plugin: str, version: str) -> tuple[LogProof, Checkpoint]:
        """The proof that a release was logged, fetched and verified. Raises ValidationFailed and as :meth:`audit`."""
        with self._follower() as follower:
            follower.fetch_proof(*_checked(plugin, version))
            return follower.proof(plugin, version)

    def entry(self, index: int) -> tuple[LogProof, Checkpoint]:
        """The proof of any entry, by its index, fetched and verified. Raises as :meth:`audit`."""
        with self._follower() as follower:
            return follower.entry(index)

    def origin(self) -> str:
        """The log's name, which no other marketplace's has. Raises as :meth:`audit`."""
        with self._follower() as follower:
            return follower.keys.present.name

    def confirm(self, receipt: Mapping[str, Any], digest: str) -> tuple[LogProof, Checkpoint]:
        """Check that a receipt is the marketplace's word about the package with ``digest``, and that it is so.

        The receipt must be signed by the key that TUF vouches for, about this package, and the log must have the
        release at the index that it names. Witnesses are not waited for. Raises VerificationFailed and as
        :meth:`audit`.
        """
        with self._trusted.session() as updater:
            keys = self._trusted.target(updater, KEYS_TARGET) or b""
            said, until = open_receipt(receipt, keys, digest)
            plugin, version, index = str(said["plugin"]), str(said["version"]), said.get("log_index")
            follower = LogFollower(self._transport, self._trusted.folder / "log", read_log_keys(keys))
            follower.fetch_proof(*_checked(plugin, version))
            proof, checkpoint = follower.proof(plugin, version)
        if (proof.entry.digest, proof.entry.kind) != (digest, "publish") or index not in (None, proof.index):
            raise VerificationFailed(
                "log",
                "the log does not have at this index what the receipt says.",
                plugin=plugin,
                expected=f"entry {index}, sha256 {digest[:16]}",
                found=f"entry {proof.index}: {proof.entry}, sha256 {proof.entry.digest[:16]}",
                fix="Keep the receipt: it is the marketplace's signed word. Tell its operator.",
            )
        if until is not None and datetime.fromisoformat(proof.entry.at) > until:
            raise VerificationFailed(
                "receipt",
                "it is signed by a key that no longer counted when this was published.",
                plugin=plugin,
                expected=f"a release from before {until}",
                found=str(proof.entry),
                fix="Somebody else has the marketplace's old key. Keep the receipt, and tell its operator.",
            )
        return proof, checkpoint

    def check(self, body: bytes) -> tuple[LogProof, Checkpoint]:
        """Verify a proof file without the network, by the log's keys as TUF vouched for them here.

        The log is asked only about a proof from before its key was changed that this machine did not know then.
        Raises VerificationFailed or LogInconsistent.
        """
        proof = read_proof(body)
        with self._trusted.exclusive():
            return proof, self._with(self._trusted.walker().log_keys()).check(proof, online=True)

    def witness(self, key: SigningKey, name: str, now: float) -> Checkpoint:
        """The present checkpoint with this witness' signature, after checking that the log only grew.

        Raises as :meth:`audit`.
        """
        with self._follower() as follower:
            return cosign(follower.latest(), key, name, now)

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()

    def _contradicted(self, updater: Updater, entry: Entry) -> str | None:
        """What the marketplace lists against an entry about a release or keys, in words; None if they agree."""
        if entry.kind == "keys":
            return self._other_keys(updater, entry)
        if entry.kind == "handover":
            listed = own_keys(self._trusted.target(updater, KEYS_TARGET) or b"")
            return None if entry.digest in listed else "does not list this key as its own"
        body = self._trusted.target(updater, index_path(str(entry.plugin)))
        release = read_index(body).find(str(entry.version)) if body is not None else None
        if release is None:
            return "does not list it"
        if release.digest != entry.digest:
            return f"lists other bytes (sha256 {release.digest[:16]})"
        if entry.kind in ("yank", "kill") and release.yanked is None:
            return "offers it for new installs"
        if entry.kind == "kill":
            revoked = read_revocations(self._trusted.target(updater, REVOCATIONS_TARGET))
            if entry.digest not in {each.digest for each in revoked}:
                return "does not list it as revoked"
        return None

    def _other_keys(self, updater: Updater, entry: Entry) -> str | None:
        """As :meth:`_contradicted`, of an entry about a namespace's key set."""
        body = self._trusted.target(updater, target_path(entry.publisher))
        steps = read_succession(body).steps if body is not None else ()
        listed = [step for step in steps if str(step.key_set.version) == entry.version]
        if not listed:
            return "does not list this key set"
        if sha256_of(listed[0].key_set.document) != entry.digest:
            return f"lists another key set v{entry.version}"
        return None

    @contextmanager
    def _session(self) -> Iterator[tuple[Updater, LogFollower]]:
        with self._trusted.session() as updater:
            yield updater, self._with(read_log_keys(self._trusted.target(updater, KEYS_TARGET) or b""))

    @contextmanager
    def _follower(self) -> Iterator[LogFollower]:
        with self._session() as (_, follower):
            yield follower

    def _with(self, keys: LogKeys) -> LogFollower:
        return LogFollower(self._transport, self._trusted.folder / "log", keys, self._witnesses, self._needed)


def _checked(plugin: str, version: str) -> tuple[str, str]:
    """Both, if a file can be asked for by them."""
    parse_version(version)
    return checked_id(plugin), version
