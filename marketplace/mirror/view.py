"""An upstream as it shows itself at one moment, all of it checked from its pinned root, wherever its files are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from kernel.errors import KeelstoneError
from marketplace.advisories import ADVISORIES_TARGET, read_advisories
from marketplace.chain import ChainWalker
from marketplace.errors import VerificationFailed
from marketplace.index import Index, Release, index_path
from marketplace.log.checkpoint import Checkpoint, require_witnesses
from marketplace.log.entry import release_entry, statement_digest
from marketplace.log.key import KEYS_TARGET
from marketplace.log.note import VerifierKey
from marketplace.log.proof import read_proof
from marketplace.mirror.evidence import (
    Evidence,
    KeyProofs,
    PluginEvidence,
    State,
    entry_name,
    evidence_of,
    keys_path,
    paths_of,
    read_key_proofs,
)
from marketplace.namespaces import target_path
from marketplace.revocations import REVOCATIONS_TARGET, read_revocations
from marketplace.signing import canonical_json
from marketplace.succession import Succession
from plugin_sdk.services import Advisory, Revocation

Read = Callable[[str], bytes | None]
_SHARED = ("timestamp.json", "snapshot.json", "targets.json")


@dataclass(frozen=True)
class Source:
    """Where an upstream's files are read: metadata by plain name, targets by path, proofs by plugin and version,
    entries of its log by index. Nothing in it is trusted."""

    metadata: Read
    target: Read
    proof: Callable[[str, str], bytes | None]
    entry: Callable[[int], bytes | None]


@dataclass(frozen=True)
class UpstreamView:
    """See the module. ``name`` is what it is called here, ``at`` when it showed this (ISO 8601, UTC); ``needed`` of
    ``witnesses`` must have signed the checkpoint behind each proof. Blocking."""

    name: str
    root: bytes
    at: str
    source: Source
    witnesses: tuple[VerifierKey, ...] = ()
    needed: int = 0
    checkpoint: Checkpoint | None = field(default=None)
    """The newest of its log, if it was followed."""

    @cached_property
    def walker(self) -> ChainWalker:
        """The walk from the root to the documents. Raises VerificationFailed."""
        return ChainWalker(self.root, self.source.metadata, self.source.target)

    @cached_property
    def state(self) -> State:
        """What all plugins' evidence shares."""
        names = [*_SHARED]
        number = 2
        while self.source.metadata(f"root_history/{number}.root.json") is not None:
            names.append(f"root_history/{number}.root.json")
            number += 1
        found = {name: self.source.metadata(name) for name in names}
        return State(self.root, {name: body for name, body in found.items() if body is not None})

    def revocations(self) -> tuple[Revocation, ...]:
        """Everything it ended. Raises VerificationFailed."""
        return read_revocations(self.walker.held(REVOCATIONS_TARGET, "revocations list"))

    def advisories(self) -> tuple[Advisory, ...]:
        """Everything it warns of. Raises VerificationFailed."""
        return read_advisories(self.walker.held(ADVISORIES_TARGET, "advisories list"))

    def keys(self, publisher: str) -> tuple[Succession, KeyProofs]:
        """A namespace's keys over time, with the proofs of when each came. Raises VerificationFailed."""
        found = self.walker.key_sets(publisher)
        behind = self.walker.held(keys_path(publisher), "upstream keys")
        if behind is not None:  # a mirror itself: the order is that of the log behind it
            return found, read_key_proofs(behind)
        key, entries = self.walker.log_keys().present, {}
        for index in found.entries:
            body = self.source.entry(index)
            if body is None:
                raise VerificationFailed("upstream", f"there is no proof of entry {index} of {self.name}'s log.")
            require_witnesses(read_proof(body).verify(key), self.witnesses, self.needed)
            entries[index] = body
        return found, KeyProofs(self.walker.document(KEYS_TARGET, "log key"), entries)

    def plugin(self, plugin: str, key_sets: Succession, key_proofs: KeyProofs) -> tuple[Index, Evidence]:
        """A plugin's index and the evidence behind it: every release is signed and logged. Raises VerificationFailed.

        What is carried without a proof of its own (a bundle of some releases) is left out.
        """
        index = self.walker.index(plugin)
        proofs = {}
        for release in index.releases:
            body = self.source.proof(plugin, release.version)
            if body is not None:
                proofs[release.version] = body
        kept = tuple(release for release in index.releases if release.version in proofs)
        if index.mirrored is None:
            for place in index.places(*proofs):
                body = self.source.entry(place)
                if body is not None:
                    require_witnesses(
                        read_proof(body).verify(self.walker.log_keys().present), self.witnesses, self.needed
                    )
                    proofs[entry_name(place)] = body
        publisher = plugin.partition("/")[0]
        paths = [index_path(plugin), target_path(publisher), KEYS_TARGET]
        paths += [path for path in paths_of(index) if self.walker.has(path)]
        bins = {self.walker.bin_of(path) for path in [*paths, *paths_of(index)]}
        own = PluginEvidence(
            plugin,
            {f"{name}.json": self.source.metadata(f"{name}.json") or b"" for name in sorted(bins)},
            {path: self.source.target(path) or b"" for path in paths},
            proofs,
        )
        evidence = Evidence(self.name, self.at, self.state, own, key_proofs)
        for release in kept:
            self._prove(evidence, key_sets, index, release)
        shown = Index(plugin, kept, index.deprecated, index.domain, repository=index.repository, jobs=index.jobs)
        return shown, evidence

    def _prove(self, evidence: Evidence, key_sets: Succession, index: Index, release: Release) -> None:
        """That a release is logged as it is listed, and signed by the keys that counted then; its bytes need not be
        here for that."""
        from marketplace.signing import RELEASE, open_statement

        key, plugin = self.walker.log_keys().present, index.plugin
        proof = read_proof(evidence.own.proofs[release.version])
        require_witnesses(proof.verify(key), self.witnesses, self.needed)
        entry, statement = proof.entry, statement_digest(release.envelope)
        if entry != release_entry(plugin, release.version, release.digest, statement, entry.at):
            raise VerificationFailed(
                "log", "the proof is about something else than this release.", plugin=plugin, found=str(entry)
            )
        behind = evidence_of(self.walker, index, evidence.key_proofs)
        counted = (behind or evidence).in_force(key_sets, release.version)
        keys, needed = counted.key_set.keys, counted.key_set.release_threshold
        try:
            signed = open_statement(canonical_json(release.envelope), RELEASE, keys, needed)
        except KeelstoneError as error:
            raise VerificationFailed(
                "signature", error.detail, plugin=plugin, expected=error.expected, found=error.found
            ) from error
        if set(signed.subjects.values()) != {release.digest}:
            raise VerificationFailed("signature", "the publisher signed other bytes.", plugin=plugin)
