"""What another marketplace showed of a plugin, kept so that anybody can check it again from that marketplace's root.

A site that mirrors a plugin signs its index anew. Beside it the site keeps, as targets of its own, everything that was
checked when the plugin came: the upstream's metadata, its documents, and the proofs of its log. So a platform sees two
chains that must agree: the site's, to which it is bound, and the upstream's, which the publisher and the log are in.

==================================  ================================================================
target                              has
==================================  ================================================================
mirrored-states/<sha256>.json       the upstream's root, snapshot and timestamp as they were
mirrored/<publisher>/<name>.json    its bins, documents and the log's proofs about one plugin
mirrored-keys/<publisher>.json      the log's proofs of a namespace's key sets
==================================  ================================================================

Which key set counts for a release is decided by the log that it was published in, so by the upstream's.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from kernel.errors import KeelstoneError
from marketplace.binding import by_job
from marketplace.errors import VerificationFailed
from marketplace.log.key import LogKeys, read_log_keys
from marketplace.log.proof import LogProof, read_proof
from marketplace.signing import canonical_json

if TYPE_CHECKING:
    from marketplace.chain import ChainWalker, Walk
    from marketplace.index import Index, Release
    from marketplace.log.checkpoint import Checkpoint
    from marketplace.log.entry import Entry
    from marketplace.log.note import VerifierKey
    from marketplace.package import Package
    from marketplace.succession import InForce, Succession

FORMAT = 1
DEEPEST = 3
"""How many marketplaces may stand behind one another."""


def state_path(state: str) -> str:
    """Where an upstream's state is among the targets, by the SHA-256 of the document."""
    return f"mirrored-states/{state}.json"


def evidence_path(plugin: str) -> str:
    """Where the evidence of a plugin is among the targets."""
    return f"mirrored/{plugin}.json"


def keys_path(publisher: str) -> str:
    """Where the proofs of a mirrored namespace's key sets are among the targets."""
    return f"mirrored-keys/{publisher}.json"


@dataclass(frozen=True, slots=True)
class State:
    """An upstream's metadata that is the same for all its plugins; ``metadata`` by plain names, without the bins."""

    root: bytes
    metadata: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """The target."""
        said = {name: body.decode() for name, body in self.metadata.items()}
        return canonical_json({"format": FORMAT, "root": self.root.decode(), "metadata": said})


@dataclass(frozen=True, slots=True)
class PluginEvidence:
    """What is one plugin's own: its ``bins`` by plain names, ``targets`` by paths, ``proofs`` by versions (and
    by ``#`` and an index, what its provenance needs of the log)."""

    plugin: str
    bins: Mapping[str, bytes]
    targets: Mapping[str, bytes]
    proofs: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """The target."""
        parts = {name: _texts(getattr(self, name)) for name in ("bins", "targets", "proofs")}
        return canonical_json({"format": FORMAT, "plugin": self.plugin, **parts})


@dataclass(frozen=True, slots=True)
class KeyProofs:
    """The proofs of a namespace's key sets, by their ``entries``' indices in the log that they were published in;
    ``keys`` is what its marketplace said of that log's keys when they were fetched."""

    keys: bytes = b""
    entries: Mapping[int, bytes] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The target."""
        entries = {str(index): body.decode() for index, body in self.entries.items()}
        return canonical_json({"format": FORMAT, "keys": self.keys.decode(), "entries": entries})

    def entry(self, index: int, own: LogKeys) -> Entry:
        """An entry, verified by the log's keys: the ``own`` that are known, or what follows them by their word.

        Raises VerificationFailed.
        """
        body = self.entries.get(index)
        if body is None:
            raise VerificationFailed("upstream", f"there is no proof of entry {index} of the upstream's log.")
        listed = read_log_keys(self.keys)
        follows = any(old.key == own.present for old in listed.retired)
        proof, _ = open_proof(listed if follows else own, body)
        if proof.index != index:
            raise VerificationFailed("upstream", "the proof is of another entry.", expected=index, found=proof.index)
        return proof.entry


def read_key_proofs(document: bytes | None) -> KeyProofs:
    """The proofs in such a target; none if there is none. Raises VerificationFailed."""
    if document is None:
        return KeyProofs()
    said = _open(document)
    try:
        return KeyProofs(said["keys"].encode(), {int(index): body.encode() for index, body in said["entries"].items()})
    except (KeyError, ValueError, AttributeError) as error:
        raise _unreadable(error) from error


@dataclass(frozen=True)
class Evidence:
    """The evidence of one plugin, put together; ``upstream`` is what the site calls where it comes from."""

    upstream: str
    at: str
    state: State
    own: PluginEvidence
    key_proofs: KeyProofs = field(default_factory=KeyProofs)
    depth: int = 0

    def in_force(self, key_sets: Succession, version: str) -> InForce:
        """Which of the site's ``key_sets`` counted when the release was logged upstream.

        Raises VerificationFailed if the upstream had other keys.
        """
        if self._deeper is not None:
            return self._deeper.in_force(key_sets, version)
        walker = self._walker
        self._refuse_other_keys(key_sets)
        keys = walker.log_keys()
        proof, _ = self._proof(keys, version)
        index = walker.index(self.own.plugin)
        release = index.find(version)
        at = proof.entry.at

        def entry(place: int) -> Entry:
            return self._entry(place, keys)

        counted = walker.in_force(key_sets, proof.index, at, entry)
        if release is None:
            return counted
        said = release.provenance
        return by_job(index.plugin, said, index.jobs, proof.index, at, key_sets, counted, entry, walker.walk.add)

    def present(self, key_sets: Succession, at: str) -> InForce:
        """Which of the site's ``key_sets`` counts for what the upstream logs next, at ``at`` (ISO 8601, UTC). Raises
        VerificationFailed as :meth:`in_force`, and if its log does not have one of them."""
        if self._deeper is not None:
            return self._deeper.present(key_sets, at)
        self._refuse_other_keys(key_sets)
        return key_sets.in_force(sys.maxsize, at, partial(self._entry, keys=self._walker.log_keys()))

    def prove(self, package: Package, counted: InForce, walk: Walk) -> None:
        """Check a package along the upstream's own chain, adding its links to ``walk``. Raises VerificationFailed."""
        from marketplace.chain import prove_logged, prove_release

        walker, manifest = self.walker(), package.manifest
        index = walker.index(manifest.id)
        release = index.find(manifest.version)
        if release is None:
            raise VerificationFailed(
                "upstream", f"{self.upstream} had not published {manifest.id} {manifest.version}.", plugin=manifest.id
            )
        walker.key_sets(manifest.publisher)
        keys = walker.log_keys()
        proof, checkpoint = self._proof(keys, manifest.version)
        prove_release(counted.key_set, release, package, None, walker.walk)
        prove_logged(keys, proof, checkpoint, release, manifest.id, walker.walk)
        walk.links += [f"upstream {self.upstream}: taken at {self.at}"]
        walk.links += [f"upstream {self.upstream}: {line}" for line in walker.walk.links]
        if self._deeper is not None:
            self._deeper.prove(package, counted, walk)

    def walker(self) -> ChainWalker:
        """A walk over the upstream's metadata. Raises VerificationFailed."""
        from marketplace.chain import ChainWalker

        metadata = {**self.state.metadata, **self.own.bins}
        return ChainWalker(self.state.root, metadata.get, self.own.targets.get)

    @cached_property
    def _walker(self) -> ChainWalker:
        return self.walker()

    @cached_property
    def _deeper(self) -> Evidence | None:
        """The evidence behind it, where the upstream is a mirror itself."""
        return evidence_of(self._walker, self._walker.index(self.own.plugin), self.key_proofs, self.depth + 1)

    def _refuse_other_keys(self, key_sets: Succession) -> None:
        """Raise VerificationFailed if the upstream had other keys than the site says."""
        theirs = self._walker.key_sets(key_sets.publisher)
        if not key_sets.extends(theirs):
            raise VerificationFailed(
                "upstream",
                f"the keys of {key_sets.publisher} here are not those that {self.upstream} had.",
                plugin=self.own.plugin,
                expected=f"key set v{theirs.newest.version}, sha256 {theirs.newest.digest[:16]}, or what follows it",
                found=f"key set v{key_sets.newest.version}, sha256 {key_sets.newest.digest[:16]}",
                fix="Tell the operators of both marketplaces.",
            )

    def _entry(self, place: int, keys: LogKeys) -> Entry:
        """An entry of the upstream's log: of a key set, or of what lets a CI job release."""
        body = self.own.proofs.get(entry_name(place))
        if body is None:
            return self.key_proofs.entry(place, keys)
        proof, _ = open_proof(keys, body)
        if proof.index != place:
            raise VerificationFailed("upstream", "the proof is of another entry.", expected=place, found=proof.index)
        return proof.entry

    def _proof(self, keys: LogKeys, version: str) -> tuple[LogProof, Checkpoint]:
        body = self.own.proofs.get(version)
        if body is None:
            raise VerificationFailed(
                "upstream", f"there is no proof that {self.own.plugin} {version} was logged at {self.upstream}."
            )
        return open_proof(keys, body)


def entry_name(place: int) -> str:
    """What the proof of an entry is called among a plugin's proofs: no version is called so."""
    return f"#{place}"


def open_proof(keys: LogKeys, body: bytes) -> tuple[LogProof, Checkpoint]:
    """A proof, verified by any key of the log within what it counts for, with its checkpoint.

    Whoever took the evidence has seen that the log goes on from there. Raises VerificationFailed.
    """
    proof = read_proof(body)
    checkpoint = keys.open(proof.checkpoint)
    proof.prove(checkpoint)
    return proof, checkpoint


def evidence_of(
    walker: ChainWalker, index: Index, key_proofs: KeyProofs | None = None, depth: int = 0
) -> Evidence | None:
    """The evidence of a mirrored plugin among the targets that ``walker`` sees; None if it was published there.

    ``key_proofs`` are newer than those among the targets. Raises VerificationFailed.
    """
    if index.mirrored is None:
        return None
    if depth > DEEPEST:
        raise VerificationFailed("upstream", "too many marketplaces stand behind one another.", expected=str(DEEPEST))
    about, publisher = index.mirrored, index.plugin.partition("/")[0]
    state = read_state(walker.document(state_path(about.state), f"upstream state of {about.upstream}"))
    own = read_plugin(walker.document(evidence_path(index.plugin), f"upstream evidence of {index.plugin}"))
    if own.plugin != index.plugin:
        raise VerificationFailed("upstream", "the evidence is another plugin's.", found=own.plugin)
    if hashlib.sha256(state.root).hexdigest() != about.root:
        raise VerificationFailed(
            "upstream",
            f"the evidence does not begin at the root that is pinned of {about.upstream}.",
            expected=f"sha256 {about.root[:16]}",
            found=f"sha256 {hashlib.sha256(state.root).hexdigest()[:16]}",
        )
    if key_proofs is None:
        key_proofs = read_key_proofs(walker.held(keys_path(publisher), "upstream keys"))
    return Evidence(about.upstream, about.at, state, own, key_proofs, depth)


@dataclass(frozen=True)
class Backing:
    """What stands behind a release: its log's proof, the keys that counted, and the evidence if it is mirrored."""

    release: Release
    keys: LogKeys
    proof: LogProof
    checkpoint: Checkpoint
    counted: InForce
    evidence: Evidence | None

    def prove(
        self, package: Package, walk: Walk, envelope: bytes | None = None, witnesses: Sequence[VerifierKey] = ()
    ) -> tuple[str, ...]:
        """Check a package against all of it, adding the last links to ``walk``; who signed it. As ``prove_release``.

        Raises VerificationFailed.
        """
        from marketplace.chain import prove_logged, prove_release

        signers = prove_release(self.counted.key_set, self.release, package, envelope, walk)
        prove_logged(self.keys, self.proof, self.checkpoint, self.release, package.manifest.id, walk, witnesses)
        if self.evidence is not None:
            self.evidence.prove(package, self.counted, walk)
        return signers


def backing_of(
    walker: ChainWalker,
    key_sets: Succession,
    index: Index,
    release: Release,
    keys: LogKeys,
    proved: tuple[LogProof, Checkpoint],
    entry: Callable[[int], Entry],
) -> Backing:
    """What stands behind a release of ``index``; ``entry`` gives any verified entry of the marketplace's log.

    Which keys counted is decided by the log that it was published in. Raises VerificationFailed.
    """
    (proof, checkpoint), evidence = proved, evidence_of(walker, index)
    if evidence is None:
        counted = walker.in_force(key_sets, proof.index, proof.entry.at, entry)
        counted = by_job(
            index.plugin,
            release.provenance,
            index.jobs,
            proof.index,
            proof.entry.at,
            key_sets,
            counted,
            entry,
            walker.walk.add,
        )
    else:
        counted = evidence.in_force(key_sets, release.version)
        if counted.run is not None:
            walker.walk.add(f"upstream {evidence.upstream}: released by a job of {counted.run.source}")
    return Backing(release, keys, proof, checkpoint, counted, evidence)


def paths_of(index: Index) -> tuple[str, ...]:
    """The targets that :func:`evidence_of` reads, if they are there."""
    if index.mirrored is None:
        return ()
    publisher = index.plugin.partition("/")[0]
    return evidence_path(index.plugin), state_path(index.mirrored.state), keys_path(publisher)


def read_state(document: bytes) -> State:
    """The state in a target. Raises VerificationFailed."""
    said = _open(document)
    try:
        return State(said["root"].encode(), _bytes(said["metadata"]))
    except (KeyError, AttributeError) as error:
        raise _unreadable(error) from error


def read_plugin(document: bytes) -> PluginEvidence:
    """A plugin's own evidence in a target. Raises VerificationFailed."""
    said = _open(document)
    try:
        return PluginEvidence(str(said["plugin"]), *(_bytes(said[name]) for name in ("bins", "targets", "proofs")))
    except (KeyError, AttributeError) as error:
        raise _unreadable(error) from error


def _open(document: bytes) -> Any:
    try:
        said = json.loads(document)
        if said["format"] != FORMAT:
            raise ValueError(f"format {str(said['format'])[:20]}")
        return said
    except (ValueError, KeyError, TypeError, RecursionError, KeelstoneError) as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> VerificationFailed:
    return VerificationFailed(
        "upstream",
        f"the evidence of where it comes from cannot be read: {error}.",
        expected=f"format {FORMAT}",
        fix="Update this platform: the marketplace may be newer.",
    )


def _texts(parts: Mapping[str, bytes]) -> dict[str, str]:
    return {name: body.decode() for name, body in parts.items()}


def _bytes(parts: Mapping[str, str]) -> dict[str, bytes]:
    return {name: body.encode() for name, body in parts.items()}
