"""Advisories about plugins that follow from known weaknesses of their parts.

They are made when an export says something new, kept as others are, and signed by the registry; ``by`` says that OSV's
word is behind them. Only what is grave, or malicious, becomes one. Each has a limited number of plugins, so that a
statement in the log stays small: a weakness in something that everybody links gives several.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa

from kernel.versions import parse_version
from marketplace.advisories import (
    ADVISORIES_TARGET,
    ECOSYSTEM,
    INHERITED,
    MAX_AFFECTED,
    advisories_document,
    advisory_from_dict,
)
from marketplace.keys import SigningKey
from marketplace.log.entry import advisory_entry, statement_digest
from marketplace.registry.advisories import advisories, all_advisories
from marketplace.registry.change import Touched
from marketplace.registry.parts import AffectedRelease
from marketplace.signing import ADVISORY, canonical_json, sign_statement
from plugin_sdk.services import BY_OSV, Advisory, AffectedRange

Listed = Callable[[str], Iterable[str]]
"""The published versions of a plugin that say what they were linked from."""


@dataclass(frozen=True, slots=True)
class Inherit:
    """Take in what follows from parts. What changed since it was worked out is left for the next time."""

    news: Sequence[tuple[Advisory, Advisory | None]]
    """Each with the word of it that was there."""
    key: SigningKey

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> int:
        """How many advisories were new or changed."""
        count = 0
        for said, before in self.news:
            row = connection.execute(sa.select(advisories).where(advisories.c.id == said.id)).one_or_none()
            if (None if row is None else advisory_from_dict(row.document)) != before:
                continue
            count += 1
            if row is None:
                connection.execute(sa.insert(advisories).values(id=said.id, document=asdict(said), first=now))
            else:
                same = advisories.c.id == said.id
                connection.execute(sa.update(advisories).where(same).values(document=asdict(said)))
            statement: Mapping[str, Any] = json.loads(_sign(said, self.key))
            for each in said.affected:
                touched.log(advisory_entry(each.plugin, said.id, statement_digest(statement), now), statement)
        if count:
            touched.render(ADVISORIES_TARGET, lambda after: advisories_document(all_advisories(after)))
        return count


def inherited(
    affected: Sequence[AffectedRelease], known: Sequence[Advisory], listed: Listed, now: str
) -> list[tuple[Advisory, Advisory | None]]:
    """The advisories that follow from weak parts and are not there yet, each with the present word of it; those that no
    longer follow, withdrawn. ``now`` is ISO 8601 in UTC."""
    mine = {each.id: each for each in known if each.by == BY_OSV}
    by_weakness: dict[str, dict[str, list[AffectedRelease]]] = defaultdict(lambda: defaultdict(list))
    for each in affected:
        if each.grave:
            by_weakness[each.weakness.id][each.plugin].append(each)
    wanted: dict[str, Advisory] = {}
    for weakness, plugins in by_weakness.items():
        for id_, some in _shared_out(weakness, plugins, mine).items():
            wanted[id_] = _advisory(id_, some, listed, now)
    news: list[tuple[Advisory, Advisory | None]] = []
    for id_, said in wanted.items():
        before = mine.get(id_)
        if before is None or replace(said, modified=before.modified, published=before.published) != before:
            news.append((said if before is None else replace(said, published=before.published), before))
    for id_, before in mine.items():
        if id_ not in wanted and before.withdrawn is None:
            news.append((replace(before, modified=now, withdrawn=now), before))
    return news


def _shared_out(
    weakness: str, plugins: Mapping[str, list[AffectedRelease]], mine: Mapping[str, Advisory]
) -> dict[str, list[AffectedRelease]]:
    """Which advisory says it of which plugin. A plugin stays where it is: else each newcomer would move the rest."""
    first = f"{INHERITED}{weakness}"
    ids = [first, *(f"{first}-P{number}" for number in range(2, 2 + len(plugins)))]
    home = {each.plugin: id_ for id_ in reversed(ids) if id_ in mine for each in mine[id_].affected}
    shared: dict[str, list[AffectedRelease]] = {}
    taken = {id_: sum(1 for plugin in plugins if home.get(plugin) == id_) for id_ in ids}
    for plugin, some in sorted(plugins.items()):
        id_ = home.get(plugin) or next(id_ for id_ in ids if taken[id_] < MAX_AFFECTED)
        taken[id_] += plugin not in home
        shared.setdefault(id_, []).extend(some)
    return shared


def _advisory(id_: str, affected: Sequence[AffectedRelease], listed: Listed, now: str) -> Advisory:
    weakness = affected[0].weakness
    packages = sorted({f"{each.package} ({each.ecosystem})" for each in affected})
    what = "is malicious" if weakness.malicious else "has a weakness"
    through = sorted({f"{each.plugin} {each.version}: {each.package} {each.package_version}" for each in affected})
    plugins: dict[str, list[AffectedRelease]] = defaultdict(list)
    for each in affected:
        plugins[each.plugin].append(each)
    return Advisory(
        id=id_,
        modified=now,
        published=now,
        withdrawn=None,
        summary=f"A part {what}: {', '.join(packages)[:80]}: {weakness.summary}"[:200],
        details=f"{weakness.id} of OSV, by the lists of parts in the packages.\n" + "\n".join(through)[:3_900],
        severity=weakness.vector,
        aliases=(weakness.id, *weakness.aliases)[:10],
        references=(),
        affected=tuple(_range(plugin, some, listed) for plugin, some in sorted(plugins.items())),
        by=BY_OSV,
    )


def _range(plugin: str, affected: Sequence[AffectedRelease], listed: Listed) -> AffectedRange:
    """The versions by name, and the next one that is known to be without the weakness. Between the two, a version that
    does not say what it was linked from counts as affected."""
    versions = sorted({parse_version(each.version) for each in affected})
    last = versions[-1]
    later = sorted(v for v in map(parse_version, listed(plugin)) if v > last and not v.prerelease)
    events = (("introduced", str(last)), ("fixed", str(later[0]))) if later else ()
    return AffectedRange(plugin, events, tuple(str(version) for version in versions))


def _sign(said: Advisory, key: SigningKey) -> bytes:
    """The registry's statement of it, as an OSV document."""
    document = {
        "id": said.id,
        "modified": said.modified,
        "published": said.published,
        **({"withdrawn": said.withdrawn} if said.withdrawn else {}),
        "summary": said.summary,
        "details": said.details,
        "aliases": list(said.aliases),
        "affected": [
            {
                "package": {"ecosystem": ECOSYSTEM, "name": each.plugin},
                "ranges": [{"type": "SEMVER", "events": [{kind: version} for kind, version in each.events]}]
                if each.events
                else [],
                "versions": list(each.versions),
            }
            for each in said.affected
        ],
    }
    predicate = {"plugin": said.affected[0].plugin, "osv": document, "by": said.by}
    digest = hashlib.sha256(canonical_json(document)).hexdigest()
    return sign_statement(ADVISORY, {said.id: digest}, predicate, key)
