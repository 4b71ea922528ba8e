"""A namespace's key sets in the order in which they came, and which of them counts for a release: the log decides.

A key set counts for what is logged after it and before its successor. So whoever steals a key that has been replaced
cannot sign anything that anybody takes, and what was signed while it counted stays good: unless its holders say from
when on it was in a thief's hands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

from kernel.errors import KeelstoneError
from marketplace.errors import VerificationFailed
from marketplace.jobs import Run
from marketplace.log.entry import Entry, keys_entry
from marketplace.namespaces import KeySet, check_successor, read_key_set
from marketplace.signing import canonical_json

FORMAT = 1
MAX_VERSIONS = 200
ProveEntry = Callable[[int], Entry]
"""The entry at an index of the log, proved. Raises VerificationFailed."""


@dataclass(frozen=True, slots=True)
class Step:
    """One key set with its place in the log. ``entry`` is None for the only one of its namespace.

    ``owner`` is where the log has the change of owner that it came with. ``recovered``: the marketplace's operator put
    it in place of lost keys, so nobody of the version before signed it.
    """

    key_set: KeySet
    entry: int | None = None
    owner: int | None = None
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class InForce:
    """The key set that counts for one release.

    ``lineage`` has the ids of all keys that led to it by succession, its own among them. ``owner`` counts the
    namespace's owners, from 1; ``owned_since`` is when the present one took over (ISO 8601, UTC), None for the first.
    """

    key_set: KeySet
    lineage: tuple[str, ...]
    owner: int = 1
    owned_since: str | None = None
    recovered: bool = False
    stolen: tuple[str, ...] = ()
    """Keys of the set that do not count for this release: it was logged after they were stolen."""
    run: Run | None = None
    """The CI job whose key is the only one of ``key_set``, let in by its publisher's keys (``behind``)."""
    behind: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Succession:
    """All key sets of one namespace, oldest first. Make it with :func:`read_succession`, which checks them."""

    steps: tuple[Step, ...]

    @property
    def newest(self) -> KeySet:
        """The present key set."""
        return self.steps[-1].key_set

    @property
    def publisher(self) -> str:
        """Whose they are."""
        return self.newest.publisher

    @property
    def entries(self) -> tuple[int, ...]:
        """Indices of the log's entries that say when each came; none if there was only ever one."""
        found = [index for step in self.steps for index in (step.entry, step.owner) if index is not None]
        return tuple(sorted(found))

    def extends(self, known: Succession) -> bool:
        """Whether it has every key set of ``known``, in its place."""
        mine = [step.key_set.digest for step in self.steps]
        theirs = [step.key_set.digest for step in known.steps]
        return mine[: len(theirs)] == theirs

    def to_bytes(self) -> bytes:
        """The target: a lone key set is its own document."""
        if len(self.steps) == 1:
            return self.newest.document
        return canonical_json({"format": FORMAT, "versions": [_plain(step) for step in self.steps]})

    def in_force(self, index: int, at: str, prove: ProveEntry) -> InForce:
        """The key set that counted when the log had ``index`` entries, for what was logged at ``at`` (ISO 8601).

        Every key set's entry is proved first. Raises VerificationFailed.
        """
        if len(self.steps) == 1:
            return InForce(self.newest, tuple(self.newest.keys))
        counted, lineage, owner, since, recovered = self.steps[0], list[str](), 1, None, False
        for step in self.steps:
            said = _proved(step, prove)
            if said is None or step.entry is None or step.entry >= index:
                continue
            if step.recovered:
                lineage = []
            if step.owner is not None:
                owner, since, recovered = owner + 1, said.at, step.recovered
            lineage += [key for key in step.key_set.keys if key not in lineage]
            counted = step
        if not lineage:
            raise VerificationFailed(
                "namespace",
                f"{self.publisher} had no keys yet when this was logged.",
                found=f"entry {index}",
                fix="Tell the marketplace's operator.",
            )
        stolen = self._stolen(counted.key_set, at)
        held = {key: public for key, public in counted.key_set.keys.items() if key not in stolen}
        return InForce(replace(counted.key_set, keys=held), tuple(lineage), owner, since, recovered, stolen)

    def _stolen(self, key_set: KeySet, at: str) -> tuple[str, ...]:
        moment = datetime.fromisoformat(at)
        later = (step.key_set.stolen for step in self.steps if step.key_set.version > key_set.version)
        gone = {key for said in later for key, since in said.items() if datetime.fromisoformat(since) <= moment}
        return tuple(key for key in key_set.keys if key in gone)


def read_succession(document: bytes) -> Succession:
    """The key sets in a target, each checked against the one before it.

    Raises what reading a key set raises, and VerificationFailed if they do not follow one another.
    """
    try:
        said = json.loads(document)
        if "payload" in said:
            first = read_key_set(document)
            steps: Sequence[Step] = [Step(first)]
        else:
            if said["format"] != FORMAT or not 2 <= len(said["versions"]) <= MAX_VERSIONS:
                raise ValueError(f"format {said['format']}")
            steps = [_step(each) for each in said["versions"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise VerificationFailed("namespace", f"the key sets cannot be read: {error}.") from error
    if steps[0].key_set.version != 1:
        raise VerificationFailed(
            "namespace", "its first key set is missing.", expected="v1", found=f"v{steps[0].key_set.version}"
        )
    for before, after in pairwise(steps):
        check_step(before.key_set, after.key_set, recovered=after.recovered)
    return Succession(tuple(steps))


def places_of(document: bytes) -> tuple[int, ...]:
    """The log's indices that a target names, unverified: to fetch their proofs. None if it cannot be read."""
    with suppress(KeelstoneError):
        return read_succession(document).entries
    return ()


def check_step(before: KeySet, after: KeySet, *, recovered: bool) -> None:
    """Raise VerificationFailed unless ``after`` may follow ``before``: signed by its keys, or put there by the operator
    (which the log must say)."""
    follows = (after.publisher, after.version, after.previous) == (before.publisher, before.version + 1, before.digest)
    if recovered and follows:
        return
    try:
        check_successor(before, after)
    except KeelstoneError as error:
        raise VerificationFailed("namespace", error.detail, expected=error.expected, found=error.found) from error


def _proved(step: Step, prove: ProveEntry) -> Entry | None:
    """The log's entry of a key set, with the change of owner that it came with."""
    key_set = step.key_set
    if step.entry is None:
        raise VerificationFailed("namespace", f"key set v{key_set.version} names no entry of the log.")
    entry = prove(step.entry)
    expected = keys_entry(key_set.publisher, key_set.version, key_set.document, entry.at)
    if entry != expected:
        raise VerificationFailed(
            "namespace",
            f"the log has something else where key set v{key_set.version} should be.",
            expected=f"entry {step.entry}: {expected}",
            found=str(entry),
            fix="Tell the marketplace's operator.",
        )
    changes = step.recovered or key_set.owner is not None
    if changes != (step.owner is not None):
        raise VerificationFailed("namespace", f"key set v{key_set.version} hides a change of owner.")
    if step.owner is not None:
        told = prove(step.owner)
        about = (told.kind, told.publisher, told.plugin, told.version, told.digest)
        if about != ("owner", key_set.publisher, None, str(key_set.version), expected.digest):
            raise VerificationFailed(
                "namespace", "the log does not have the change of owner.", found=f"entry {step.owner}: {told}"
            )
    return entry


def _plain(step: Step) -> dict[str, Any]:
    said: dict[str, Any] = {"document": json.loads(step.key_set.document), "entry": step.entry}
    said |= {} if step.owner is None else {"owner": step.owner}
    return said | ({"recovered": True} if step.recovered else {})


def _step(said: Any) -> Step:
    entry, owner = said["entry"], said.get("owner")
    if type(entry) is not int or not (owner is None or type(owner) is int):
        raise ValueError("places that are no numbers")
    return Step(read_key_set(canonical_json(said["document"])), entry, owner, said.get("recovered") is True)
