"""Which CI jobs may release a namespace's plugins: lists that its publisher signs, one version after the other.

A job is known by its issuer's words about it: the repository (with the numeric ids that never go to somebody else, as
names do), the workflow's file, and the environment if one is named. A list replaces the one before it whole, and names
its digest, so that none can be left out between two.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

from kernel.errors import ValidationFailed
from marketplace.errors import VerificationFailed
from marketplace.keys import SigningKey, check_publisher
from marketplace.signing import JOBS, canonical_json, peek_statement, sign_statement
from plugin_sdk.services import Build

MAX_JOBS = 50
MAX_LISTS = 200
ANY_PLUGIN = "*"
_TEXT = re.compile(r"^[^\x00-\x1f\x7f]{1,300}$")
_ID = re.compile(r"^[1-9][0-9]{0,19}$")


@dataclass(frozen=True, slots=True)
class Run:
    """What an issuer said of one run of a job, in the words that all issuers share.

    ``repository`` and ``workflow`` are paths (``acme/guard``, ``.github/workflows/release.yml``); ``environment`` is
    empty if the job has none; ``url`` is where the run can be looked at.
    """

    issuer: str
    repository: str
    repository_id: str
    owner_id: str
    workflow: str
    environment: str
    ref: str
    commit: str
    url: str

    @property
    def host(self) -> str:
        """Where the repository is, such as ``github.com``."""
        return self.url.removeprefix("https://").partition("/")[0]

    @property
    def build(self) -> Build:
        """As platforms show it."""
        return Build(self.host, self.repository, self.workflow, self.environment, self.commit, self.ref, self.url)

    @property
    def source(self) -> str:
        """What built the release, the same for every run of the job."""
        return f"{self.host}/{self.repository} ({self.workflow})"


@dataclass(frozen=True, slots=True)
class Job:
    """A CI job that may release ``plugins`` (names without the namespace; ``*``: all of it)."""

    issuer: str
    repository: str
    repository_id: str
    owner_id: str
    workflow: str
    plugins: tuple[str, ...]
    environment: str | None = None

    @property
    def id(self) -> str:
        """What it is called in lists, from what it says."""
        return hashlib.sha256(canonical_json(asdict(self))).hexdigest()[:12]

    def allows(self, run: Run, plugin: str) -> bool:
        """Whether ``run`` is one of this job and may release ``plugin`` (its id)."""
        name = plugin.partition("/")[2]
        mine = (self.issuer, self.repository_id, self.owner_id, self.workflow)
        if mine != (run.issuer, run.repository_id, run.owner_id, run.workflow):
            return False
        # Names are compared too: whoever renames a repository says so in the list.
        if self.repository.casefold() != run.repository.casefold():
            return False
        if self.environment is not None and self.environment != run.environment:
            return False
        return ANY_PLUGIN in self.plugins or name in self.plugins


@dataclass(frozen=True, slots=True)
class JobList:
    """One signed list; ``entry`` is where the log has it. ``previous`` is the digest of what the one before says."""

    publisher: str
    version: int
    previous: str | None
    jobs: tuple[Job, ...]
    statement: Mapping[str, Any]
    entry: int | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of what it says, whoever signed it."""
        return _digest(self.statement)

    def to_dict(self) -> dict[str, Any]:
        """As a plugin's index has it."""
        return {"statement": dict(self.statement), "entry": self.entry}

    def job_of(self, run: Run, plugin: str) -> Job | None:
        """The job that lets ``run`` release ``plugin``."""
        return next((job for job in self.jobs if job.allows(run, plugin)), None)


def sign_jobs(publisher: str, before: JobList | None, jobs: Sequence[Job], key: SigningKey) -> bytes:
    """The list that follows ``before``, as DSSE JSON signed by ``key``. Raises ValidationFailed."""
    version = 1 if before is None else before.version + 1
    said: dict[str, Any] = {
        "plugin": check_publisher(publisher),
        "version": version,
        "previous": None if before is None else before.digest,
        "jobs": [asdict(job) for job in jobs],
    }
    _jobs(said["jobs"])
    name = f"{publisher}-jobs-v{version}"
    digest = hashlib.sha256(canonical_json(said["jobs"])).hexdigest()
    return sign_statement(JOBS, {name: digest}, said, key)


def read_jobs(envelope: Mapping[str, Any], entry: int | None = None) -> JobList:
    """The list in an envelope; its signatures are not checked. Raises ValidationFailed or SignatureInvalid."""
    said = peek_statement(canonical_json(envelope), JOBS).predicate
    try:
        if set(said) != {"plugin", "version", "previous", "jobs"} or type(said["version"]) is not int:
            raise ValueError("other members")
        version, previous = said["version"], said["previous"]
        if not 1 <= version <= MAX_LISTS or (version == 1) != (previous is None):
            raise ValueError(f"version {version}")
        return JobList(check_publisher(said["plugin"]), version, previous, _jobs(said["jobs"]), dict(envelope), entry)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValidationFailed(
            f"The list of jobs is malformed: {error}.",
            expected=f"plugin (the namespace), version, previous and up to {MAX_JOBS} jobs",
        ) from error


def read_lists(documents: Sequence[Any], publisher: str) -> tuple[JobList, ...]:
    """A namespace's lists, oldest first, each following the one before. Raises VerificationFailed."""
    try:
        found = tuple(read_jobs(each["statement"], each["entry"]) for each in documents)
    except (KeyError, TypeError) as error:
        raise VerificationFailed("job", f"the lists of jobs cannot be read: {error}.") from error
    if found and found[0].version != 1:
        raise VerificationFailed("job", "the first list of jobs is missing.", found=f"v{found[0].version}")
    if any(each.publisher != publisher for each in found):
        raise VerificationFailed("job", "a list of jobs is another namespace's.", expected=publisher)
    for before, after in pairwise(found):
        check_follows(before, after)
        if before.entry is None or after.entry is None or before.entry >= after.entry:
            raise VerificationFailed("job", "the lists of jobs are not in the order of the log.")
    return found


def check_follows(before: JobList | None, after: JobList) -> None:
    """Raise VerificationFailed unless ``after`` is the list that follows ``before``."""
    expected = (1, None) if before is None else (before.version + 1, before.digest)
    if (after.version, after.previous) != expected:
        raise VerificationFailed(
            "job",
            "the list of jobs does not follow the one before it.",
            expected=f"version {expected[0]} after sha256 {str(expected[1])[:16]}",
            found=f"version {after.version} after sha256 {str(after.previous)[:16]}",
            fix="Make it anew with `keelstone plugin trust-job`.",
        )


def run_from(said: Mapping[str, Any]) -> Run:
    """A run from plain data. Raises ValueError."""
    values = {each.name: said[each.name] for each in fields(Run)}
    if set(said) != set(values) or not all(isinstance(value, str) for value in values.values()):
        raise ValueError("not a run")
    return Run(**values)


def _jobs(listed: Any) -> tuple[Job, ...]:
    if not isinstance(listed, list) or len(listed) > MAX_JOBS:
        raise ValidationFailed("There are too many jobs.", expected=f"at most {MAX_JOBS}")
    found = tuple(_job(each) for each in listed)
    if len({job.id for job in found}) != len(found):
        raise ValidationFailed("A job is on the list twice.")
    return found


def _job(said: Mapping[str, Any]) -> Job:
    job = Job(**{**said, "plugins": tuple(said["plugins"])})
    texts = [job.issuer, job.repository, job.workflow, *job.plugins]
    texts += [] if job.environment is None else [job.environment]
    if not job.plugins or not all(isinstance(text, str) and _TEXT.match(text) for text in texts):
        raise ValidationFailed("A job's texts are empty, too long, or no texts.")
    if not job.issuer.startswith("https://"):
        raise ValidationFailed("An issuer is an https address.", found=job.issuer)
    if not all(isinstance(each, str) and _ID.match(each) for each in (job.repository_id, job.owner_id)):
        raise ValidationFailed(
            "A job names its repository and owner by their numbers too: names can go to somebody else.",
            expected="repository_id and owner_id, as the issuer's tokens have them",
            found=f"{job.repository_id}, {job.owner_id}",
        )
    return job


def _digest(envelope: Mapping[str, Any]) -> str:
    from marketplace.signing import peek_payload

    return hashlib.sha256(canonical_json(peek_payload(canonical_json(envelope)))).hexdigest()
