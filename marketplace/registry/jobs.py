"""CI jobs in the registry: their publishers' lists, keys that they were given for minutes, and tokens already used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import sqlalchemy as sa

from kernel.errors import Conflict
from marketplace.binding import Binding, by_job, read_binding
from marketplace.errors import JobNotTrusted, NamespaceUnknown, VerificationFailed
from marketplace.jobs import JobList, check_follows, read_jobs
from marketplace.log.entry import Entry, binding_entry, jobs_entry, read_entry, statement_digest
from marketplace.namespaces import KeySet, read_key_set
from marketplace.registry.change import Touched
from marketplace.registry.claims import refuse_mirrored
from marketplace.registry.log import LogRows
from marketplace.registry.publishers import succession_of
from marketplace.registry.tables import Tables, ask, in_parts, log_entries, releases, schema
from marketplace.signing import JOBS, STATEMENT_PAYLOAD, only_by, open_statement

namespace_jobs = sa.Table(
    "namespace_jobs",
    schema,
    sa.Column("publisher", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("statement", sa.JSON, nullable=False),
    sa.Column("entry", sa.Integer, nullable=False),
)

job_keys = sa.Table(
    "job_keys",
    schema,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("statement", sa.JSON, nullable=False),
    sa.Column("entry", sa.Integer, nullable=False),
)

used_tokens = sa.Table(
    "used_tokens",
    schema,
    sa.Column("issuer", sa.Text, primary_key=True),
    sa.Column("number", sa.Text, primary_key=True),
    sa.Column("expires", sa.Float, nullable=False, index=True),
)

release_provenance = sa.Table(
    "release_provenance",
    schema,
    sa.Column("plugin", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("provenance", sa.JSON, nullable=False),
)


@dataclass(frozen=True, slots=True)
class KeepJobs:
    """A namespace's next list of jobs, whose signatures were checked. Asked again, it changes nothing."""

    envelope: bytes

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> JobList:
        """Raises Conflict if it does not follow the present list, NamespaceUnknown or a signature error."""
        said = read_jobs(json.loads(self.envelope))
        refuse_mirrored(connection, said.publisher)
        present = newest_list(connection, said.publisher)
        if present is not None and present.digest == said.digest:
            return present
        try:
            check_follows(present, said)
        except VerificationFailed as error:
            raise Conflict(
                f"List v{said.version} of {said.publisher}'s jobs does not follow the present one.",
                expected=error.expected,
                found=error.found,
                fix="Somebody changed it meanwhile: run `keelstone plugin trust-job` again.",
            ) from error
        key_set = _present_keys(connection, said.publisher)
        # Signatures of strangers are left out: what is kept, and logged, is what was checked.
        envelope = only_by(self.envelope, STATEMENT_PAYLOAD, key_set.keys)
        open_statement(envelope, JOBS, key_set.keys, key_set.release_threshold)
        statement = json.loads(envelope)
        place = LogRows(connection).checkpoint().size + len(touched.entries)
        values = {"publisher": said.publisher, "version": said.version, "statement": statement, "entry": place}
        connection.execute(sa.insert(namespace_jobs).values(values))
        _touch(connection, said.publisher, touched)
        touched.log(jobs_entry(said.publisher, said.version, statement_digest(statement), now), statement)
        return read_jobs(statement, place)


@dataclass(frozen=True, slots=True)
class Bind:
    """Give a CI job's key its minutes, for a token that is used up by it; without ``token``, once more."""

    binding: Binding
    token: tuple[str, float] | None
    """The number of the token, and when it ends (epoch seconds)."""

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> Binding:
        """Raises Conflict if the token was used, and JobNotTrusted if the namespace lets no such job release."""
        binding = self.binding
        publisher = binding.plugin.partition("/")[0]
        refuse_mirrored(connection, publisher)
        require_job(newest_list(connection, publisher), binding)
        if self.token is not None:
            self._use_up(connection, now)
        place = LogRows(connection).checkpoint().size + len(touched.entries)
        statement = dict(binding.statement)
        connection.execute(sa.delete(job_keys).where(job_keys.c.key == binding.key.keyid))
        connection.execute(sa.insert(job_keys).values(key=binding.key.keyid, statement=statement, entry=place))
        touched.log(binding_entry(binding.plugin, binding.key.keyid, statement_digest(statement), now), statement)
        return read_binding(statement, place)

    def _use_up(self, connection: sa.Connection, now: str) -> None:
        assert self.token is not None
        number, expires = self.token
        ended = used_tokens.c.expires < datetime.fromisoformat(now).timestamp()
        connection.execute(sa.delete(used_tokens).where(ended))
        mine = (used_tokens.c.issuer == self.binding.run.issuer) & (used_tokens.c.number == number)
        if connection.execute(sa.select(used_tokens.c.number).where(mine)).scalar() is not None:
            raise Conflict("This identity token was used already.", fix="Ask the issuer for a new one.")
        known = sa.select(job_keys.c.key).where(job_keys.c.key == self.binding.key.keyid)
        if connection.execute(known).scalar() is not None:
            raise Conflict("This key was bound already.", fix="Make a new one for each run.")
        values = {"issuer": self.binding.run.issuer, "number": number, "expires": expires}
        connection.execute(sa.insert(used_tokens).values(values))


class JobsDesk:
    """Lists of jobs and their keys of one registry. Blocking; safe from several threads."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def present(self, publisher: str) -> JobList | None:
        """A namespace's present list."""
        with self._tables.read() as connection:
            return newest_list(connection, publisher)

    def bound(self, envelope: bytes) -> Binding | None:
        """The binding of the job's key that signed a release, if one did."""
        with self._tables.read() as connection:
            return binding_of(connection, json.loads(envelope))

    def signers(self, binding: Binding, plugin: str, at: str) -> KeySet:
        """Who must have signed a release of ``plugin`` that would be logged now, ``at``. Raises JobNotTrusted."""
        with self._tables.read() as connection:
            return _signers(connection, binding, plugin, at, Touched())


def newest_list(connection: sa.Connection, publisher: str) -> JobList | None:
    """A namespace's present list of jobs."""
    mine = sa.select(namespace_jobs).where(namespace_jobs.c.publisher == publisher)
    row = connection.execute(mine.order_by(namespace_jobs.c.version.desc()).limit(1)).one_or_none()
    return None if row is None else read_jobs(row.statement, row.entry)


def require_job(jobs: JobList | None, binding: Binding) -> None:
    """Raise JobNotTrusted unless a job on the list lets the binding's run release its plugin."""
    if jobs is None or jobs.job_of(binding.run, binding.plugin) is None:
        run = binding.run
        raise JobNotTrusted(
            f"{binding.plugin.partition('/')[0]} lets no such job release {binding.plugin}.",
            plugin=binding.plugin,
            expected="a job on its list: `keelstone plugin trust-job list`",
            found=f"{run.source}, repository {run.repository_id} of {run.owner_id}, "
            f"environment {run.environment or 'none'}, at {run.issuer}",
            fix="`keelstone plugin trust-job add` with these values, if it may.",
        )


def check_job(
    connection: sa.Connection, plugin: str, envelope: Mapping[str, Any], now: str, touched: Touched
) -> dict[str, Any] | None:
    """What the index says of a release whose signer is a CI job's key, checked as everybody will; None if it is not.

    Raises JobNotTrusted, or a signature error.
    """
    from marketplace.signing import RELEASE, canonical_json

    binding = binding_of(connection, envelope)
    if binding is None:
        return None
    key_set = _signers(connection, binding, plugin, now, touched)
    open_statement(canonical_json(envelope), RELEASE, key_set.keys, key_set.release_threshold)
    return binding.to_dict()


def keep_provenance(
    connection: sa.Connection, plugin: str, version: str, said: Mapping[str, Any], touched: Touched
) -> None:
    """Keep what the index says of a release's provenance. The first one shows what repository is its publisher's."""
    publisher = plugin.partition("/")[0]
    if repository_of(connection, publisher) is None:
        _touch(connection, publisher, touched)
    values = {"plugin": plugin, "version": version, "provenance": dict(said)}
    connection.execute(sa.insert(release_provenance).values(values))


def binding_of(connection: sa.Connection, envelope: Any) -> Binding | None:
    """The binding of a key that signed an envelope, by what the envelope says."""
    try:
        named = [str(each["keyid"]) for each in envelope["signatures"]][:16]
    except (KeyError, TypeError):
        return None
    marks = ",".join("?" * len(named))
    query = f"SELECT statement, entry FROM job_keys WHERE key IN ({marks})"  # noqa: S608 - question marks only
    for statement, entry in ask(connection, query, named):
        return read_binding(json.loads(statement), entry)
    return None


def provenance_of(connection: sa.Connection, plugins: Sequence[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """What the indexes of some plugins say of their releases' provenance, by plugin and version."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for some, marks in in_parts(plugins):
        query = f"SELECT plugin, version, provenance FROM release_provenance WHERE plugin IN ({marks})"  # noqa: S608
        for plugin, version, said in connection.exec_driver_sql(query, some):
            found[plugin, version] = orjson.loads(said)
    return found


def repository_of(connection: sa.Connection, publisher: str) -> str | None:
    """A repository whose CI job has released a plugin of the namespace, and still may; None if there is none."""
    present = newest_list(connection, publisher)
    if present is None or not present.jobs:
        return None
    mine = release_provenance.c.plugin.startswith(f"{publisher}/", autoescape=True)
    found = (
        sa.select(release_provenance).where(mine).order_by(release_provenance.c.plugin, release_provenance.c.version)
    )
    for row in connection.execute(found):
        run = read_binding(row.provenance["binding"]).run
        if present.job_of(run, row.plugin) is not None:
            return f"{run.host}/{run.repository}"
    return None


def repositories_of(connection: sa.Connection, publishers: Sequence[str]) -> dict[str, str]:
    """:func:`repository_of` those namespaces that have one."""
    found: dict[str, str] = {}
    for some, marks in in_parts(publishers):
        query = f"SELECT DISTINCT publisher FROM namespace_jobs WHERE publisher IN ({marks})"  # noqa: S608
        for publisher in connection.exec_driver_sql(query, some).scalars().all():
            if (repository := repository_of(connection, publisher)) is not None:
                found[publisher] = repository
    return found


def _touch(connection: sa.Connection, publisher: str, touched: Touched) -> None:
    """Have the index of each of the publisher's plugins made anew."""
    mine = releases.c.plugin.startswith(f"{publisher}/", autoescape=True)
    for plugin in connection.execute(sa.select(releases.c.plugin).where(mine).distinct()).scalars():
        touched.plugins.setdefault(plugin, None)


def lists_of(connection: sa.Connection, publisher: str) -> list[dict[str, Any]]:
    """All lists of a namespace, oldest first, as indexes have them."""
    mine = sa.select(namespace_jobs).where(namespace_jobs.c.publisher == publisher)
    rows = connection.execute(mine.order_by(namespace_jobs.c.version)).all()
    return [{"statement": row.statement, "entry": row.entry} for row in rows]


def _signers(connection: sa.Connection, binding: Binding, plugin: str, at: str, touched: Touched) -> KeySet:
    publisher, rows = plugin.partition("/")[0], LogRows(connection)
    size = rows.checkpoint().size
    placed = size + len(touched.entries)

    def prove(index: int) -> Entry:
        if index >= size:
            return touched.entries[index - size]
        body = connection.execute(sa.select(log_entries.c.body).where(log_entries.c.position == index)).scalar()
        if body is None:
            raise VerificationFailed("log", f"there is no entry {index}.")
        return read_entry(body)

    found = succession_of(connection, publisher)
    try:
        counted = found.in_force(placed, at, prove)
        lists = lists_of(connection, publisher)
        return by_job(plugin, binding.to_dict(), lists, placed, at, found, counted, prove).key_set
    except VerificationFailed as error:
        raise JobNotTrusted(
            error.detail or str(error), plugin=plugin, expected=error.expected, found=error.found, fix=error.fix
        ) from error


def _present_keys(connection: sa.Connection, publisher: str) -> KeySet:
    query = "SELECT document FROM namespaces WHERE publisher = ?"
    document = connection.exec_driver_sql(query, (publisher,)).scalar()
    if document is None:
        raise NamespaceUnknown(f"The namespace {publisher} is not registered in this marketplace.", found=publisher)
    return read_key_set(document)
