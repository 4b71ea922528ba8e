"""What releases were linked from, beside what is known of it: asked about one package, and about all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import sqlalchemy as sa

from marketplace.osv.index import WeaknessIndex
from marketplace.osv.severity import Severity, at_least
from marketplace.osv.versions import ECOSYSTEMS, package_name
from marketplace.osv.weakness import Weakness
from marketplace.package import Package
from marketplace.registry.tables import Tables, ask, releases, schema
from marketplace.rules.rule import WeakPart
from plugin_sdk.sbom import Part, SbomInvalid, read_sbom

THRESHOLD: Severity = "high"
"""From where on a weakness is grave, unless the operator says otherwise."""

release_parts = sa.Table(
    "release_parts",
    schema,
    sa.Column("ecosystem", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),
    sqlite_with_rowid=False,
)
_LISTED = ("", "", "")
"""The row of a release that says what it was linked from, were it nothing."""
_KEEP = "INSERT OR IGNORE INTO release_parts(ecosystem, name, version, digest) VALUES (?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class AffectedRelease:
    """A published release with a weak part. ``package`` and ``package_version`` are the part's."""

    plugin: str
    version: str
    digest: str
    ecosystem: str
    package: str
    package_version: str
    weakness: Weakness
    grave: bool


def keep_parts(connection: sa.Connection, package: Package) -> None:
    """Remember what a release was linked from, of the ecosystems that there are advisories of."""
    parts = _parts(package)
    if parts is not None:
        rows = [(ECOSYSTEMS[part.type], _name(part), part.version, package.digest) for part in parts]
        for row in (*rows, (*_LISTED, package.digest)):
            ask(connection, _KEEP, row)


def _parts(package: Package) -> list[Part] | None:
    """Parts that advisories could be about; None if nobody says, or nobody can read it, which is for a rule to tell."""
    if package.sbom is None:
        return None
    try:
        return [part for part in read_sbom(package.sbom).parts if part.type in ECOSYSTEMS]
    except SbomInvalid:
        return None


def _name(part: Part) -> str:
    return package_name(ECOSYSTEMS[part.type], part.name)


class PartsDesk:
    """Matches parts with known weaknesses. Blocking; safe from several threads."""

    def __init__(self, tables: Tables, index: WeaknessIndex, threshold: Severity = THRESHOLD) -> None:
        self._tables, self.index, self.threshold = tables, index, threshold

    def of(self, package: Package) -> Callable[[], Sequence[WeakPart]] | None:
        """The weak parts of a package, found when they are asked for; None if nothing was ever imported."""
        if not self.index.exists:
            return None
        return cache(lambda: self._weak(package))

    def _weak(self, package: Package) -> Sequence[WeakPart]:
        return [
            WeakPart(part, weakness, self._is_grave(weakness))
            for part in _parts(package) or ()
            for weakness in self.index.about(ECOSYSTEMS[part.type], _name(part), part.version)
        ]

    def affected(self) -> list[AffectedRelease]:
        """Published releases with weak parts, the gravest first. Each package version is looked up once, however many
        releases have it; some 20 microseconds each."""
        found: dict[tuple[str, str, str], list[Weakness]] = {}
        distinct = sa.select(release_parts.c.ecosystem, release_parts.c.name, release_parts.c.version).distinct()
        distinct = distinct.where(release_parts.c.ecosystem != "")
        with self._tables.read() as connection:
            for key in connection.execute(distinct).all() if self.index.exists else ():
                if weaknesses := self.index.about(*key):
                    found[(key[0], key[1], key[2])] = weaknesses
            told = [
                AffectedRelease(row.plugin, row.version, row.digest, *key, weakness, self._is_grave(weakness))
                for key, weaknesses in found.items()
                for row in connection.execute(_releases_with(*key))
                for weakness in weaknesses
            ]
        order = defaultdict(lambda: 2, {(True, True): 0, (True, False): 0, (False, True): 1})
        return sorted(told, key=lambda a: (order[a.weakness.malicious, a.grave], a.plugin, a.version, a.weakness.id))

    def listed(self, plugin: str) -> list[str]:
        """The published versions of a plugin that say what they were linked from."""
        says = sa.select(release_parts.c.digest).where(release_parts.c.ecosystem == "")
        query = sa.select(releases.c.version).where(releases.c.plugin == plugin, releases.c.digest.in_(says))
        with self._tables.read() as connection:
            return list(connection.execute(query).scalars())

    def _is_grave(self, weakness: Weakness) -> bool:
        return weakness.malicious or at_least(weakness.severity, self.threshold)


def _releases_with(ecosystem: str, name: str, version: str) -> sa.Select[tuple[str, str, str]]:
    same = (release_parts.c.ecosystem == ecosystem, release_parts.c.name == name, release_parts.c.version == version)
    joined = release_parts.join(releases, releases.c.digest == release_parts.c.digest)
    return sa.select(releases.c.plugin, releases.c.version, releases.c.digest).select_from(joined).where(*same)
