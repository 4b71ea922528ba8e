"""A key for one release: what a marketplace says of a CI job that showed its identity token and a key of its own.

``this key is job X of repository Y at commit Z until T``: for one plugin, some minutes, signed by the marketplace and
logged. A release signed with such a key is verified without a network, see :func:`by_job`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from kernel.errors import KeelstoneError, ValidationFailed
from marketplace.errors import VerificationFailed
from marketplace.jobs import JobList, Run, read_lists, run_from
from marketplace.keys import SigningKey, public_key
from marketplace.log.entry import Entry, binding_entry, jobs_entry, statement_digest
from marketplace.signing import (
    BINDING,
    JOBS,
    canonical_json,
    open_payload,
    open_statement,
    peek_statement,
    sign_payload,
    sign_statement,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securesystemslib.signer import SSlibKey

    from marketplace.succession import InForce, Succession
    from plugin_sdk.services import Build

LIFETIME = timedelta(minutes=15)
PROOF_PAYLOAD = "application/vnd.keelstone.job-key+json"
ProveEntry = Callable[[int], Entry]


@dataclass(frozen=True, slots=True)
class Binding:
    """``key`` may sign releases of ``plugin`` for ``run`` between two moments (ISO 8601, UTC); ``entry`` is where the
    log has it."""

    plugin: str
    key: SSlibKey
    run: Run
    since: str
    until: str
    statement: Mapping[str, Any]
    entry: int | None = None

    def holds_at(self, moment: str) -> bool:
        """Whether it holds at a moment (ISO 8601)."""
        at = datetime.fromisoformat(moment)
        return datetime.fromisoformat(self.since) <= at <= datetime.fromisoformat(self.until)

    def to_dict(self) -> dict[str, Any]:
        """As a release's entry in the index has it."""
        return {"binding": dict(self.statement), "entry": self.entry}


def sign_binding(plugin: str, key: SSlibKey, run: Run, since: str, until: str, by: SigningKey) -> bytes:
    """The marketplace's word for a job's key, as DSSE JSON. Raises ValidationFailed if it would hold for too long."""
    if datetime.fromisoformat(until) - datetime.fromisoformat(since) > LIFETIME:
        raise ValidationFailed("A job's key holds for minutes.", expected=f"at most {LIFETIME}", found=until)
    said = {"plugin": plugin, "key": key.to_dict(), "run": asdict(run), "since": since, "until": until}
    return sign_statement(BINDING, {plugin: key.keyid}, said, by)


def read_binding(envelope: Mapping[str, Any], entry: int | None = None) -> Binding:
    """The binding in an envelope; that the marketplace gave it, the log says. Raises VerificationFailed."""
    try:
        said = peek_statement(canonical_json(envelope), BINDING).predicate
        moments = str(said["since"]), str(said["until"])
        lifetime = datetime.fromisoformat(moments[1]) - datetime.fromisoformat(moments[0])
        if not timedelta(0) < lifetime <= LIFETIME:
            raise ValueError(f"it holds for {lifetime}")
        key, run = public_key(said["key"]), run_from(said["run"])
        return Binding(str(said["plugin"]), key, run, *moments, dict(envelope), entry)
    except (KeelstoneError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise VerificationFailed("binding", f"the binding cannot be read: {error}.") from error


def build_of(provenance: Mapping[str, Any] | None) -> Build | None:
    """What a release's entry in an index says of what built it; None if nothing does, or it cannot be read."""
    if provenance is None:
        return None
    with suppress(VerificationFailed, KeyError, TypeError):
        return read_binding(provenance["binding"]).run.build
    return None


def prove_key(key: SigningKey, token: str, plugin: str, audience: str) -> bytes:
    """What a job hands in beside its token: that it has ``key``, for this very token, plugin and marketplace."""
    return sign_payload(canonical_json(_asked(key.public, token, plugin, audience)), PROOF_PAYLOAD, [key])


def open_proof_of_key(proof: bytes, key: SSlibKey, token: str, plugin: str, audience: str) -> None:
    """Raise SignatureInvalid, SignerUnknown or ValidationFailed unless ``proof`` is :func:`prove_key`'s."""
    body, _ = open_payload(proof, PROOF_PAYLOAD, {key.keyid: key}, 1)
    if body != _asked(key, token, plugin, audience):
        raise ValidationFailed(
            "The proof of the key is for another token, plugin or marketplace.", expected=f"{plugin} at {audience}"
        )


def _asked(key: SSlibKey, token: str, plugin: str, audience: str) -> dict[str, Any]:
    digest = hashlib.sha256(token.encode()).hexdigest()
    return {"token": digest, "plugin": plugin, "audience": audience, "key": key.to_dict()}


def by_job(
    plugin: str,
    provenance: Mapping[str, Any] | None,
    lists: Sequence[Mapping[str, Any]],
    placed: int,
    at: str,
    key_sets: Succession,
    counted: InForce,
    prove: ProveEntry,
    note: Callable[[str], None] = lambda line: None,
) -> InForce:
    """Who must have signed a release that the log has at ``placed`` (``at``, ISO 8601): the namespace's keys
    (``counted``), or the key of a CI job that they let release it by one of their ``lists``; ``provenance`` is the
    index's of the release, ``note`` is told the links. Raises VerificationFailed.
    """
    if provenance is None:
        return counted
    publisher = plugin.partition("/")[0]
    binding = _bound(provenance, plugin, placed, at, prove)
    jobs = _in_force(read_lists(lists, publisher), placed, prove)
    job = jobs.job_of(binding.run, plugin)
    if job is None:
        raise VerificationFailed(
            "job",
            f"{binding.run.source} may not release {plugin}.",
            plugin=plugin,
            expected=f"a job on list v{jobs.version}, which {publisher} signed",
            found=f"environment {binding.run.environment or 'none'}, repository {binding.run.repository_id}",
            fix="Add the job with `keelstone plugin trust-job add`, and release again.",
        )
    behind = _signed_by(jobs, key_sets, counted, prove)
    run = binding.run
    note(
        f"binding: key {binding.key.keyid[:16]} is a job of {run.source} at commit {run.commit[:12]}, "
        f"log entry {binding.entry}, holds until {binding.until}"
    )
    note(
        f"job: {job.id} of {publisher}'s list v{jobs.version}, log entry {jobs.entry}, signed by "
        + ", ".join(key[:16] for key in behind)
    )
    key_set = replace(counted.key_set, keys={binding.key.keyid: binding.key}, threshold=1, releases=1)
    return replace(counted, key_set=key_set, run=run, behind=behind)


def _bound(said: Mapping[str, Any], plugin: str, placed: int, at: str, prove: ProveEntry) -> Binding:
    place = said.get("entry")
    if type(place) is not int or not isinstance(said.get("binding"), Mapping):
        raise VerificationFailed("binding", "the index does not say where the log has the job's key.", plugin=plugin)
    binding = read_binding(said["binding"], place)
    if binding.plugin != plugin:
        raise VerificationFailed(
            "binding", "the job's key is for another plugin.", plugin=plugin, expected=plugin, found=binding.plugin
        )
    entry = prove(place)
    expected = binding_entry(plugin, binding.key.keyid, statement_digest(binding.statement), entry.at)
    if place >= placed or entry != expected:
        raise VerificationFailed(
            "binding",
            "the log does not have the job's key before the release.",
            plugin=plugin,
            expected=f"{expected}, before entry {placed}",
            found=f"entry {place}: {entry}",
        )
    # The log's own moments decide: whoever has the key later can sign, but not have it logged in time.
    if not (binding.holds_at(at) and binding.holds_at(entry.at)):
        raise VerificationFailed(
            "binding",
            "the release was logged when the job's key did not hold.",
            plugin=plugin,
            expected=f"between {binding.since} and {binding.until}",
            found=at,
        )
    return binding


def _in_force(lists: Sequence[JobList], placed: int, prove: ProveEntry) -> JobList:
    counted = None
    for each in lists:
        if each.entry is None or each.entry >= placed:
            break
        entry = prove(each.entry)
        expected = jobs_entry(each.publisher, each.version, statement_digest(each.statement), entry.at)
        if entry != expected:
            raise VerificationFailed(
                "job",
                f"the log has something else where list v{each.version} of jobs should be.",
                expected=f"entry {each.entry}: {expected}",
                found=str(entry),
            )
        counted = each
    if counted is None:
        raise VerificationFailed("job", "its publisher had let no job release yet when this was logged.")
    return counted


def _signed_by(jobs: JobList, key_sets: Succession, counted: InForce, prove: ProveEntry) -> tuple[str, ...]:
    """The namespace's keys behind a list: those that counted when it was logged, and of the same owner as now."""
    assert jobs.entry is not None
    then = key_sets.in_force(jobs.entry, prove(jobs.entry).at, prove)
    if then.owner != counted.owner:
        raise VerificationFailed(
            "job",
            f"the list of jobs is of an earlier owner of {jobs.publisher}.",
            expected=f"owner {counted.owner}",
            found=f"owner {then.owner}",
            fix="The new owner signs a list of their own: `keelstone plugin trust-job`.",
        )
    keys, needed = then.key_set.keys, then.key_set.release_threshold
    try:
        return open_statement(canonical_json(jobs.statement), JOBS, keys, needed).signers
    except KeelstoneError as error:
        raise VerificationFailed("job", error.detail, expected=error.expected, found=error.found) from error
