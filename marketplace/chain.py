"""The chain of trust of one package, walked link by link over documents that are already here.

The walk needs no network: it checks cached metadata from the pinned root to the package and says
what it checked. Online, python-tuf's updater refreshes the cache first (and refuses rollback,
freeze and mix-and-match while it does); offline, the same walk over the same cache gives the same
lines. Expiry is reported, not enforced, here: whoever updates enforces it.

Source of the order of checks: TUF specification 1.0.34, section 5.3 to 5.7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from tuf.api.exceptions import LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from kernel.errors import KeelstoneError
from marketplace.errors import ReleaseYanked, VerificationFailed
from marketplace.index import Index, Release, index_path, read_index
from marketplace.log.checkpoint import Checkpoint
from marketplace.log.entry import release_entry, statement_digest
from marketplace.log.key import KEYS_TARGET, LogKeys, read_log_keys
from marketplace.log.note import VerifierKey
from marketplace.log.proof import LogProof
from marketplace.namespaces import KeySet, target_path
from marketplace.package import Package
from marketplace.revocations import REVOCATIONS_TARGET, read_revocations, refuse_revoked
from marketplace.signing import canonical_json, verify_release
from marketplace.succession import InForce, ProveEntry, Succession, read_succession

T = TypeVar("T", Root, Timestamp, Snapshot, Targets)
ReadMetadata = Callable[[str], bytes | None]
"""Reads a cached document: metadata by its plain name (``timestamp.json``), targets by their path."""

_RECONNECT = "Connect to the marketplace once, so that the missing or newer metadata can be fetched."


@dataclass(slots=True)
class Walk:
    """A walk under way: its links so far, and the moment until which all of them hold."""

    links: list[str] = field(default_factory=list)
    valid_until: datetime | None = None

    def add(self, line: str, expires: datetime | None = None) -> None:
        """Note a checked link."""
        self.links.append(line)
        if expires is not None and (self.valid_until is None or expires < self.valid_until):
            self.valid_until = expires


class ChainWalker:
    """Walks from ``trusted_root`` through cached metadata and target documents."""

    def __init__(self, trusted_root: bytes, metadata: ReadMetadata, target: ReadMetadata) -> None:
        self._metadata, self._target = metadata, target
        self.walk = Walk()
        self._bins: dict[str, Targets] = {}
        root = self._walk_root(trusted_root)
        timestamp = self._load("timestamp", Timestamp, root)
        self._root_version, self._timestamp_version = root.version, timestamp.version
        self._snapshot = self._load("snapshot", Snapshot, root, timestamp.snapshot_meta)
        self._targets = self._load("targets", Targets, root, self._snapshot.meta["targets.json"])

    def key_sets(self, publisher: str) -> Succession:
        """The namespace's keys over time. Raises VerificationFailed at the link that breaks."""
        document = self.document(target_path(publisher), f"namespace {publisher}")
        try:
            found = read_succession(document)
        except VerificationFailed:
            raise
        except KeelstoneError as error:
            raise VerificationFailed("namespace", error.detail, found=error.found) from error
        if found.publisher != publisher:
            raise VerificationFailed(
                "namespace", "the key set is another's.", expected=publisher, found=found.publisher
            )
        return found

    def in_force(self, found: Succession, index: int, at: str, prove: ProveEntry) -> InForce:
        """The keys that count for what is logged at ``index``, at ``at``. Raises VerificationFailed."""
        counted = found.in_force(index, at, prove)
        key_set = counted.key_set
        ids = ", ".join(_short(key) for key in key_set.keys) or "none that is left"
        of = "" if len(found.steps) == 1 else f" of {len(found.steps)}"
        held = "" if counted.owner == 1 else f", owner {counted.owner} since {counted.owned_since}"
        gone = f", stolen by then: {', '.join(_short(key) for key in counted.stolen)}" if counted.stolen else ""
        needed = key_set.release_threshold
        self.walk.add(
            f"namespace {found.publisher}: key set v{key_set.version}{of}, {needed} of {ids} must sign{held}{gone}"
        )
        return counted

    def index(self, plugin: str) -> Index:
        """The plugin's index. Raises VerificationFailed at the link that breaks."""
        document = self.document(index_path(plugin), f"release of {plugin}")
        index = read_index(document)
        if index.plugin != plugin:
            raise VerificationFailed("release", "the index is another plugin's.", expected=plugin, found=index.plugin)
        return index

    def log_keys(self) -> LogKeys:
        """The keys of the transparency log. Raises VerificationFailed at the link that breaks."""
        return read_log_keys(self.document(KEYS_TARGET, "log key"))

    def refuse_revoked(self, plugin: str, digest: str) -> None:
        """Raise ReleaseRevoked if the marketplace's operator ended the package; VerificationFailed at a broken link."""
        revoked = read_revocations(self.held(REVOCATIONS_TARGET, "revocations list"))
        refuse_revoked(plugin, digest, revoked)
        self.walk.add(f"revocations: {len(revoked)} on the list, this package is not")

    def document(self, path: str, what: str) -> bytes:
        """Any target document. Raises VerificationFailed at the link that breaks; its name is ``what``'s first word."""
        listed = self._listed(path)
        if listed is None:
            raise VerificationFailed(
                what.partition(" ")[0],
                f"the marketplace has no {what}.",
                expected=path,
                fix="Publish it with `keelstone plugin publish`, or check that this is the right marketplace.",
            )
        return self._verified(listed, path, what)

    def held(self, path: str, what: str) -> bytes | None:
        """A target document that need not be there; None if it is not. Raises as :meth:`document`."""
        listed = self._listed(path)
        return None if listed is None else self._verified(listed, path, what)

    def has(self, path: str) -> bool:
        """Whether the marketplace has a target at ``path``. Raises VerificationFailed at a broken link."""
        return self._listed(path) is not None

    def bin_of(self, path: str) -> str:
        """The name of the bin that has ``path``, if anything is there."""
        assert self._targets.delegations is not None
        assert self._targets.delegations.succinct_roles is not None
        return self._targets.delegations.succinct_roles.get_role_for_target(path)

    @property
    def versions(self) -> dict[str, int]:
        """The versions of root, timestamp, snapshot, targets and of every bin: none of them ever goes back."""
        listed = {name.removesuffix(".json"): meta.version for name, meta in self._snapshot.meta.items()}
        roles = {"root": self._root_version, "timestamp": self._timestamp_version, "snapshot": self._snapshot.version}
        return roles | listed

    # -------------------------------------------------------------------------- TUF

    def _walk_root(self, trusted: bytes) -> Root:
        root = _parse("root", trusted, Root)
        pinned, signers = root.version, self._check_root(trusted, root, root)
        while (body := self._metadata(f"root_history/{root.version + 1}.root.json")) is not None:
            newer = _parse("root", body, Root)
            if newer.version != root.version + 1:
                raise VerificationFailed(
                    "root", "a root version is missing.", expected=root.version + 1, found=newer.version
                )
            self._check_root(body, newer, root)
            signers = self._check_root(body, newer, newer)
            root = newer
        followed = "" if root.version == pinned else f", followed to v{root.version}"
        keys = ", ".join(_short(key) for key in signers)
        fingerprint = hashlib.sha256(trusted).hexdigest()[:16]
        self.walk.add(
            f"root v{pinned}: trusted here (sha256 {fingerprint}){followed}, signed by {len(signers)} of "
            f"{len(root.roles['root'].keyids)} keys ({keys}), {root.roles['root'].threshold} needed",
            root.expires,
        )
        return root

    def _check_root(self, body: bytes, root: Root, by: Root) -> tuple[str, ...]:
        metadata = Metadata[Root].from_bytes(body)
        result = by.get_verification_result("root", metadata.signed_bytes, metadata.signatures)
        if not result.verified:
            raise VerificationFailed(
                "root",
                f"root v{root.version} does not have the signatures that root v{by.version} asks for.",
                expected=f"{result.threshold} signatures",
                found=len(result.signed),
            )
        return tuple(result.signed)

    def _load(self, role: str, kind: type[T], delegator: Root | Targets, meta: MetaFile | None = None) -> T:
        body = self._metadata(f"{role}.json")
        if body is None:
            raise VerificationFailed(role, f"there is no {role} metadata on this machine yet.", fix=_RECONNECT)
        signed = _parse(role, body, kind)
        metadata = Metadata.from_bytes(body)
        result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
        if not result.verified:
            raise VerificationFailed(
                role, f"{role} v{signed.version} is not signed by the role's key.", file=f"{role}.json"
            )
        if meta is not None:
            self._check_meta(role, body, signed.version, meta)
        keys = ", ".join(_short(key) for key in result.signed)
        until = f"valid until {signed.expires:%Y-%m-%d %H:%M} UTC"
        self.walk.add(f"{role} v{signed.version}: signed by {keys}, {until}", signed.expires)
        return signed

    def _check_meta(self, role: str, body: bytes, version: int, meta: MetaFile) -> None:
        if version != meta.version:
            raise VerificationFailed(
                role,
                f"the copy of {role} here is not the one that the metadata above it names.",
                expected=f"v{meta.version}",
                found=f"v{version}",
                fix=_RECONNECT,
            )
        try:
            meta.verify_length_and_hashes(body)
        except LengthOrHashMismatchError as error:
            raise VerificationFailed(role, f"{error}.", file=f"{role}.json") from error

    def _verified(self, listed: TargetFile, path: str, what: str) -> bytes:
        body, link = self._target(path), what.partition(" ")[0]
        if body is None:
            raise VerificationFailed(link, f"the document {path} is not on this machine yet.", fix=_RECONNECT)
        try:
            listed.verify_length_and_hashes(body)
        except LengthOrHashMismatchError as error:
            raise VerificationFailed(
                link, f"{path} is not the document that its bin lists: {error}.", file=path
            ) from error
        return body

    def _listed(self, path: str) -> TargetFile | None:
        delegations = self._targets.delegations
        if delegations is None or delegations.succinct_roles is None:
            raise VerificationFailed("targets", "it does not delegate to hash bins.")
        role = delegations.succinct_roles.get_role_for_target(path)
        if role not in self._bins:
            meta = self._snapshot.meta.get(f"{role}.json")
            if meta is None:
                raise VerificationFailed("snapshot", f"it does not list {role}.")
            self._bins[role] = self._load(role, Targets, self._targets, meta)
        listed = self._bins[role].targets.get(path)
        if listed is not None:
            self.walk.add(f"{role} lists {path}: sha256 {listed.hashes['sha256'][:16]}")
        return listed


def prove_release(
    key_set: KeySet, release: Release, package: Package, envelope: bytes | None, walk: Walk
) -> tuple[str, ...]:
    """Check a package against its release and its publisher's keys, adding the last links to ``walk``; who signed it.

    ``envelope`` is the signature that came with the package; without one, the index's copy counts.
    Raises VerificationFailed.
    """
    plugin = package.manifest.id
    if release.digest != package.digest or release.size != len(package.data):
        raise VerificationFailed(
            "release",
            f"{plugin} {release.version} was published with other bytes than this package has.",
            plugin=plugin,
            expected=f"sha256 {release.digest}, {release.size:,} bytes",
            found=f"sha256 {package.digest}, {len(package.data):,} bytes",
            fix="Download the package again. If you changed it, raise its version, sign and publish it.",
        )
    state = f"withdrawn on {release.yanked.at}: {release.yanked.reason}" if release.yanked else "not withdrawn"
    walk.add(f"release {plugin} {release.version}: published {release.published}, {state}")
    try:
        statement = verify_release(
            package, envelope or canonical_json(release.envelope), key_set.keys, key_set.release_threshold
        )
    except KeelstoneError as error:
        raise VerificationFailed(
            "signature", error.detail, plugin=plugin, expected=error.expected, found=error.found, fix=error.fix
        ) from error
    signers = ", ".join(_short(key) for key in statement.signers)
    walk.add(f"signature: in-toto statement in a DSSE envelope, by key {signers} of {key_set.publisher}")
    walk.add(f"package: sha256 {package.digest}, {len(package.data):,} bytes")
    if package.manifest != release.parsed_manifest():
        raise VerificationFailed(
            "manifest", "the index describes another manifest than the package has.", plugin=plugin
        )
    asked = ", ".join(package.manifest.capabilities.asked()) or "nothing"
    walk.add(f"manifest: sha256 {package.manifest_digest}, {plugin} {package.manifest.version}, asks for {asked}")
    return statement.signers


def prove_logged(
    keys: LogKeys,
    proof: LogProof,
    checkpoint: Checkpoint,
    release: Release,
    plugin: str,
    walk: Walk,
    witnesses: Sequence[VerifierKey] = (),
) -> None:
    """Check that a verified proof is about this very release, adding the log's links to ``walk``.

    Raises VerificationFailed.
    """
    entry = proof.entry
    expected = release_entry(plugin, release.version, release.digest, statement_digest(release.envelope), entry.at)
    if entry != expected:
        raise VerificationFailed(
            "log",
            "the proof is about something else than this release.",
            plugin=plugin,
            expected=f"{expected}, sha256 {expected.digest[:16]}",
            found=f"{entry}, sha256 {entry.digest[:16]}",
            fix="What was logged and what the marketplace lists must be the same. Tell its operator.",
        )
    seen = ", ".join(witness.name for witness in checkpoint.witnesses(witnesses))
    key = keys.signer(checkpoint)
    walk.add(
        f"log {key.name}: {checkpoint.size} entries, root {checkpoint.root.hex()[:16]}, signed by key {key.id.hex()}"
        + (f", seen by {seen}" if seen else "")
    )
    hashes = "1 hash" if len(proof.hashes) == 1 else f"{len(proof.hashes)} hashes"
    walk.add(f"log entry {proof.index}: {entry}, proved by {hashes}")


def refuse_yanked(plugin: str, release: Release) -> None:
    """Raise ReleaseYanked if the release is withdrawn."""
    if release.yanked is not None:
        raise ReleaseYanked(
            f"{plugin} {release.version} was withdrawn by its publisher: {release.yanked.reason}",
            plugin=plugin,
            found=f"withdrawn on {release.yanked.at}",
            fix="Install another version.",
        )


def _parse(role: str, body: bytes, kind: type[T]) -> T:
    try:
        signed = Metadata.from_bytes(body).signed
    except RepositoryError as error:
        raise VerificationFailed(role, f"the {role} metadata cannot be read: {error}.", file=f"{role}.json") from error
    if not isinstance(signed, kind):
        raise VerificationFailed(role, "it is metadata of another kind.", expected=kind.type, found=signed.type)
    return signed


def _short(key_id: str) -> str:
    return key_id[:16]
