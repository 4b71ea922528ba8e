"""Plugins' indexes from the registry's rows: many of one batch at once, and search brought up to date with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import sqlalchemy as sa

from marketplace.index import Deprecation, Index, Release, Yank, entry_of, index_path, make_index
from marketplace.registry.claims import mirrored_from, verified_upstream
from marketplace.registry.domains import domains_of
from marketplace.registry.jobs import lists_of, provenance_of, repositories_of
from marketplace.registry.search import Listing, Standing, downloads_of, update_listings, verified_by
from marketplace.registry.tables import OLD_TEXT, ask, in_parts

_RELEASES = (
    "SELECT r.plugin, r.version, r.digest, r.size, r.kernel, r.published, r.manifest, r.envelope, r.yank, "
    "e.reason, e.at, r.findings FROM releases r LEFT JOIN revocations e ON e.digest = r.digest WHERE r.plugin IN ({})"
)


def load_index(connection: sa.Connection, plugin: str) -> Index:
    """All releases of a plugin (none if there is no such plugin)."""
    return load_indexes(connection, [plugin])[plugin]


def load_indexes(connection: sa.Connection, wanted: Sequence[str]) -> dict[str, Index]:
    """:func:`load_index` of several plugins."""
    return {plugin: index for plugin, (index, _) in _load(connection, wanted).items()}


def render_indexes(connection: sa.Connection, texts: Mapping[str, str | None], now: float) -> dict[str, bytes]:
    """The index documents of plugins by their paths, and search brought up to date. ``texts`` has what search keeps
    of each plugin's README (None: what it has); ``now`` is in epoch seconds."""
    loaded = _load(connection, list(texts))
    fetched = downloads_of(connection, list(texts))
    listings, documents = [], {}
    for plugin, (index, findings) in loaded.items():
        documents[index_path(plugin)] = index.to_bytes()
        there = index.installable()
        if not there:
            listings.append(Listing(plugin, None, texts[plugin]))
            continue
        newest = max(there, key=lambda release: release.published)
        verified = verified_by(domain=index.domain is not None, repository=index.repository is not None)
        standing = Standing(newest.published, findings[newest.version], fetched.get(plugin, 0), verified)
        kernels = [release.kernel for release in there]
        listings.append(Listing(plugin, entry_of(index), texts[plugin], standing, kernels))
    update_listings(connection, listings, now)
    return documents


def rebuild_search(connection: sa.Connection, now: float) -> None:
    """Make the index of the present schema from an older one, if there is such a one (``Tables.create``)."""
    found = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = ?", (OLD_TEXT,)).first()
    if found is None:
        return
    texts = f"SELECT p.plugin, t.body FROM plugins p LEFT JOIN {OLD_TEXT} t ON t.rowid = p.id"  # noqa: S608 - fixed name
    bodies = {plugin: body or "" for plugin, body in connection.exec_driver_sql(texts).all()}
    for some, _ in in_parts(list(bodies)):
        render_indexes(connection, {plugin: bodies[plugin] for plugin in some}, now)
    connection.exec_driver_sql(f"DROP TABLE {OLD_TEXT}")


def _load(connection: sa.Connection, wanted: Sequence[str]) -> dict[str, tuple[Index, dict[str, int]]]:
    """Each plugin's index, and how many things monitored rules found in each of its versions."""
    found: dict[str, list[Release]] = {plugin: [] for plugin in wanted}
    findings: dict[str, dict[str, int]] = {plugin: {} for plugin in wanted}
    said: dict[str, Deprecation] = {}
    rows: list[Any] = []
    for some, marks in in_parts(wanted):
        # Plain SQL: in a batch, building expressions would cost more than SQLite takes to answer.
        rows += ask(connection, _RELEASES.format(marks), some)
    if not rows:
        # A plugin without releases has nothing else either: most that are handed in are new.
        return {plugin: (make_index(plugin, []), {}) for plugin in wanted}
    built = provenance_of(connection, wanted)
    jobs = {each: lists_of(connection, each) for each in {plugin.partition("/")[0] for plugin, _ in built}}
    for plugin, version, digest, size, kernel, published, manifest, envelope, yank, ended, at, told in rows:
        found[plugin].append(
            Release(
                version=version,
                digest=digest,
                size=size,
                kernel=kernel,
                published=published,
                yanked=_yank(yank, ended, at),
                manifest=orjson.loads(manifest),
                envelope=orjson.loads(envelope),
                provenance=built.get((plugin, version)),
            )
        )
        findings[plugin][version] = len(orjson.loads(told))
    for some, marks in in_parts(wanted):
        advised = f"SELECT plugin, deprecation FROM plugins WHERE deprecation IS NOT NULL AND plugin IN ({marks})"  # noqa: S608
        for plugin, deprecation in connection.exec_driver_sql(advised, some):
            advice = orjson.loads(deprecation)
            if advice and advice["reason"] is not None:
                said[plugin] = Deprecation(**advice)
    domains = domains_of(connection, sorted({plugin.partition("/")[0] for plugin in wanted}))
    origins = mirrored_from(connection, wanted)
    theirs = verified_upstream(connection, list(origins)) if origins else {}
    proven = repositories_of(connection, sorted({plugin.partition("/")[0] for plugin in wanted}))

    def index_of(plugin: str) -> Index:
        publisher = plugin.partition("/")[0]
        by_jobs = any(release.provenance is not None for release in found[plugin])
        lists = jobs.get(publisher, []) if by_jobs else []
        domain, repository = theirs.get(plugin, (None, None))
        return make_index(
            plugin,
            found[plugin],
            said.get(plugin),
            domains.get(publisher) or domain,
            origins.get(plugin),
            lists,
            proven.get(publisher) or repository,
        )

    return {plugin: (index_of(plugin), findings[plugin]) for plugin in found}


def _yank(yank: Any, ended: str | None, at: str | None) -> Yank | None:
    if ended is not None and at is not None:
        return Yank(f"revoked by the marketplace: {ended}", at)
    said = orjson.loads(yank) if yank else None
    return Yank(**said) if said else None
