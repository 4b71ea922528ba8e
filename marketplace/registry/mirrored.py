"""Taking in what an upstream shows: one change, so that a release is here with its evidence and keys, or not at all.

What an upstream says counts for its own namespaces only. It adds and withdraws; nothing that was withdrawn or ended
comes back, and nothing that is there gets other bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from marketplace.advisories import ADVISORIES_TARGET, advisories_document, advisory_from_dict
from marketplace.errors import BundleOutdated, LogInconsistent, NamespaceMirrored, VerificationFailed
from marketplace.index import Deprecation, Index, Mirrored, Release, index_path
from marketplace.keys import SigningKey
from marketplace.log.entry import (
    advisory_entry,
    deprecation_entry,
    keys_entry,
    kill_entry,
    owner_entry,
    release_entry,
    sha256_of,
    statement_digest,
    yank_entry,
)
from marketplace.mirror.evidence import (
    KeyProofs,
    State,
    evidence_path,
    keys_path,
    state_path,
)
from marketplace.namespaces import target_path
from marketplace.registry.advisories import advisories, all_advisories
from marketplace.registry.change import Touched
from marketplace.registry.claims import (
    claim,
    contested,
    mistakable,
    upstream_listings,
    upstream_revocations,
    upstreams,
    verified_upstream,
)
from marketplace.registry.jobs import keep_provenance
from marketplace.registry.publishers import canonical, succession_of
from marketplace.registry.reach import all_revocations, revocation_of
from marketplace.registry.tables import key_sets, namespaces, plugins, releases, revocations
from marketplace.registry.taken import Outcome, TakenPlugin, joined, known_index, mirrored, text_of
from marketplace.registry.upstreams import Seen
from marketplace.revocations import REVOCATIONS_TARGET, revocations_document
from marketplace.signing import sign_statement
from marketplace.succession import Succession
from plugin_sdk.services import Advisory, Revocation

MIRRORED = "urn:keelstone:mirrored:v1"


@dataclass(frozen=True, slots=True)
class TakeUpstream:
    """See the module. ``root`` is the SHA-256 of the upstream's pinned root; ``older`` lets in what shows it as it was
    before what was seen (it adds what is missing, and takes nothing back)."""

    root: str
    seen: Seen
    state: State
    key: SigningKey
    """The registry's own, for its statement about what it took."""
    namespaces: Mapping[str, tuple[Succession, KeyProofs]]
    plugins: Sequence[TakenPlugin]
    revoked: Sequence[Revocation] = ()
    advised: Sequence[Advisory] = ()
    older: bool = False

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> Outcome:
        """Raises NamespaceMirrored (it is no upstream here any more), BundleOutdated, VerificationFailed or
        LogInconsistent."""
        row = connection.execute(sa.select(upstreams).where(upstreams.c.root == self.root)).one_or_none()
        if row is None or row.removed is not None:
            raise NamespaceMirrored("This marketplace has no such upstream any more.", found=self.root[:16])
        behind = self._is_older(row)
        if behind and not self.older:
            raise BundleOutdated(
                f"This shows {row.name} as it was at {self.seen.at}, before what is known here.",
                expected=f"what it showed at {row.seen['at']} or later, timestamp v{row.seen['versions']['timestamp']}",
                found=f"timestamp v{self.seen.versions.get('timestamp')}",
                fix="Get a newer bundle. Or import it with --older: what is missing is added, and nothing comes back.",
            )
        outcome = Outcome(str(row.name), self.seen.at)
        taken = self._namespaces(connection, now, touched, outcome)
        for each in self.plugins:
            if each.index.plugin.partition("/")[0] in taken:
                self._plugin(connection, now, touched, outcome, each, behind=behind)
        self._revocations(connection, now, touched, outcome)
        self._advisories(connection, now, touched, outcome)
        if not behind:
            changed = sa.update(upstreams).where(upstreams.c.root == self.root)
            connection.execute(changed.values(seen=asdict(self.seen)))
        return outcome

    # -------------------------------------------------------------------------- what was seen before

    def _is_older(self, row: Any) -> bool:
        before = (row.seen or {}).get("versions", {})
        return any(self.seen.versions.get(name, version) < version for name, version in before.items())

    # -------------------------------------------------------------------------- namespaces

    def _namespaces(self, connection: sa.Connection, now: str, touched: Touched, outcome: Outcome) -> set[str]:
        taken = set()
        alike = mistakable(connection, list(self.namespaces), self.root)
        for publisher, (found, proofs) in self.namespaces.items():
            why = contested(connection, publisher, self.root)
            if why is None and publisher in alike:
                why = (
                    f"{publisher} could be taken for {alike[publisher]}, which is not of this upstream. If it is "
                    f"meant: `keelstone marketplace mirror claim {publisher} {outcome.upstream}`."
                )
            if why is not None:
                outcome.held[publisher] = why
                continue
            claim(connection, publisher, self.root, now)
            self._keys(connection, now, touched, publisher, found, proofs)
            taken.add(publisher)
        return taken

    def _keys(
        self,
        connection: sa.Connection,
        now: str,
        touched: Touched,
        publisher: str,
        found: Succession,
        proofs: KeyProofs,
    ) -> None:
        row = connection.execute(sa.select(namespaces).where(namespaces.c.publisher == publisher)).one_or_none()
        known = 0
        if row is not None:
            before = succession_of(connection, publisher)
            if before.extends(found):  # what is here is as new, or newer
                return
            if not found.extends(before):
                raise LogInconsistent(
                    f"the upstream shows other keys of {publisher} than it did before.",
                    expected=f"key set v{before.newest.version}, sha256 {before.newest.digest[:16]}, or what follows",
                    found=f"key set v{found.newest.version}, sha256 {found.newest.digest[:16]}",
                    fix="Keep what was taken in, and tell the publisher and the upstream's operator.",
                )
            known = len(before.steps)
        values = {"publisher": publisher, "version": found.newest.version, "document": found.newest.document}
        if row is None:
            connection.execute(sa.insert(namespaces).values(**values, registered=now))
        else:
            connection.execute(sa.update(namespaces).where(namespaces.c.publisher == publisher).values(values))
        connection.execute(sa.delete(key_sets).where(key_sets.c.publisher == publisher))
        for step in found.steps if len(found.steps) > 1 else ():
            place = {"entry": step.entry, "owner_entry": step.owner, "recovered": step.recovered, "at": now}
            about = {"publisher": publisher, "version": step.key_set.version, "document": canonical(step.key_set)}
            connection.execute(sa.insert(key_sets).values(**about, **place))
        touched.put(target_path(publisher), found.to_bytes())
        touched.put(keys_path(publisher), proofs.to_bytes())
        for step in found.steps[known:]:
            key_set = step.key_set
            touched.log(keys_entry(publisher, key_set.version, key_set.document, now), json.loads(key_set.document))
            if step.owner is not None:
                told = json.loads(key_set.document)
                touched.log(
                    owner_entry(publisher, key_set.version, sha256_of(key_set.document), statement_digest(told), now),
                    told,
                )

    # -------------------------------------------------------------------------- plugins

    def _plugin(
        self,
        connection: sa.Connection,
        now: str,
        touched: Touched,
        outcome: Outcome,
        taken: TakenPlugin,
        *,
        behind: bool,
    ) -> None:
        index, plugin = taken.index, taken.index.plugin
        known = {
            row.version: row for row in connection.execute(sa.select(releases).where(releases.c.plugin == plugin)).all()
        }
        connection.exec_driver_sql("INSERT OR IGNORE INTO plugins(plugin) VALUES (?)", (plugin,))
        changed, newest = False, known_index(connection, plugin) if behind else None
        for each in index.releases:
            # What is known here may be newer: a release that was withdrawn since stays so.
            release = (newest.find(each.version) if newest else None) or each
            row = known.get(release.version)
            if row is not None and row.digest != release.digest:
                raise VerificationFailed(
                    "release",
                    f"{outcome.upstream} lists {plugin} {release.version} with other bytes than it did before.",
                    plugin=plugin,
                    expected=f"sha256 {row.digest}",
                    found=f"sha256 {release.digest}",
                    fix="Keep what was taken in, and tell the upstream's operator.",
                )
            if row is None:
                self._add(connection, now, touched, plugin, release)
                outcome.released.append(f"{plugin} {release.version}")
                changed = True
            if release.yanked is not None and (row is None or row.yank is None):
                said = {"reason": release.yanked.reason, "at": release.yanked.at}
                key = (releases.c.plugin == plugin) & (releases.c.version == release.version)
                connection.execute(sa.update(releases).where(key).values(yank=said))
                statement = self._statement(plugin, release.version, release.digest, {"yanked": said})
                entry = yank_entry(plugin, release.version, release.digest, statement_digest(statement), now)
                touched.log(entry, statement)
                outcome.withdrawn.append(f"{plugin} {release.version}")
                changed = True
        here = plugin in mirrored(connection, plugin)
        if not behind:
            changed |= self._deprecation(connection, now, touched, outcome, index)
            changed |= _listed(connection, taken)
        if behind and here and changed:
            # What is here is newer: only the proofs of what it lacked are added.
            touched.put(evidence_path(plugin), joined(connection, taken.evidence, newer=False).to_bytes())
            touched.plugins[plugin] = taken.readme
            outcome.plugins.append(plugin)
        elif changed or not here:
            state = self.state.to_bytes()
            at = state_path(sha256_of(state))
            about = Mirrored(outcome.upstream, self.root, self.seen.at, sha256_of(state))
            values = {"plugin": plugin, "source": self.root, "about": orjson.dumps(asdict(about)).decode()}
            connection.exec_driver_sql(
                "INSERT INTO mirrored_plugins(plugin, source, about) VALUES (:plugin, :source, :about) "
                "ON CONFLICT(plugin) DO UPDATE SET about = excluded.about",
                values,
            )
            touched.put(at, state)
            touched.put(evidence_path(plugin), joined(connection, taken.evidence, newer=True).to_bytes())
            touched.plugins[plugin] = taken.readme
            outcome.plugins.append(plugin)
        elif taken.readme is not None and taken.readme != text_of(connection, plugin):
            touched.plugins[plugin] = taken.readme

    def _add(self, connection: sa.Connection, now: str, touched: Touched, plugin: str, release: Release) -> None:
        values = {
            "plugin": plugin,
            "version": release.version,
            "digest": release.digest,
            "size": release.size,
            "kernel": release.kernel,
            "published": release.published,
            "manifest": dict(release.manifest),
            "envelope": dict(release.envelope),
            "findings": [],
        }
        connection.execute(sa.insert(releases).values(values))
        if release.provenance is not None:
            keep_provenance(connection, plugin, release.version, release.provenance, touched)
        touched.log(release_entry(plugin, release.version, release.digest, statement_digest(release.envelope), now))

    def _deprecation(
        self, connection: sa.Connection, now: str, touched: Touched, outcome: Outcome, index: Index
    ) -> bool:
        stored = connection.execute(sa.select(plugins.c.deprecation).where(plugins.c.plugin == index.plugin)).scalar()
        said = None if index.deprecated is None else asdict(self._advice(connection, index.deprecated))
        if said is None and (stored is None or stored["reason"] is None):
            return False
        if said is None:
            said = {"reason": None, "successor": None, "at": self.seen.at}
        if said == stored:
            return False
        connection.execute(sa.update(plugins).where(plugins.c.plugin == index.plugin).values(deprecation=said))
        statement = self._statement(index.plugin, "", sha256_of(index.plugin.encode()), {"deprecated": said})
        touched.log(deprecation_entry(index.plugin, statement_digest(statement), now), statement)
        outcome.deprecated.append(index.plugin)
        return True

    def _advice(self, connection: sa.Connection, said: Deprecation) -> Deprecation:
        """An upstream sends nobody to a plugin that is not its own: the name may be another's here."""
        here = said.successor is not None and (
            contested(connection, said.successor.partition("/")[0], self.root) is None
        )
        return said if here else replace(said, successor=None)

    # -------------------------------------------------------------------------- what ends and warns

    def _revocations(self, connection: sa.Connection, now: str, touched: Touched, outcome: Outcome) -> None:
        ended = upstream_revocations.c.source == self.root
        for each in self.revoked:
            values = {"source": self.root, "digest": each.digest, "document": asdict(each)}
            connection.execute(insert(upstream_revocations).values(values).on_conflict_do_nothing())
        for document in connection.execute(sa.select(upstream_revocations.c.document).where(ended)).scalars().all():
            each = Revocation(**document)
            row = connection.execute(sa.select(releases).where(releases.c.digest == each.digest)).one_or_none()
            if row is None or row.plugin not in mirrored(connection, row.plugin, self.root):
                continue
            if revocation_of(connection, each.digest) is not None:
                continue
            told = replace(each, plugin=row.plugin, version=row.version)
            connection.execute(sa.insert(revocations).values(asdict(told)))
            touched.plugins.setdefault(row.plugin, None)
            touched.render(REVOCATIONS_TARGET, lambda after: revocations_document(all_revocations(after)))
            statement = self._statement(row.plugin, row.version, each.digest, {"revoked": each.reason, "at": each.at})
            entry = kill_entry(row.plugin, row.version, each.digest, statement_digest(statement), now)
            touched.log(entry, statement)
            outcome.revoked.append(f"{row.plugin} {row.version}")

    def _advisories(self, connection: sa.Connection, now: str, touched: Touched, outcome: Outcome) -> None:
        for each in self.advised:
            about = tuple(a for a in each.affected if a.plugin in mirrored(connection, a.plugin, self.root))
            if not about:
                continue  # an upstream warns of its own plugins only
            said = replace(each, affected=about, by=f"{outcome.upstream}: {each.by}")
            stored = connection.execute(sa.select(advisories.c.document).where(advisories.c.id == each.id)).scalar()
            before = None if stored is None else advisory_from_dict(stored)
            if before is not None and not before.by.startswith(f"{outcome.upstream}: "):
                outcome.problems.append(f"The advisory {each.id} was left out: another one has this id here.")
                continue
            if before is not None and (before == said or before.modified > said.modified):
                continue
            if before is None:
                connection.execute(sa.insert(advisories).values(id=said.id, document=asdict(said), first=now))
            else:
                changed = sa.update(advisories).where(advisories.c.id == said.id)
                connection.execute(changed.values(document=asdict(said)))
            touched.render(ADVISORIES_TARGET, lambda after: advisories_document(all_advisories(after)))
            statement = self._statement(about[0].plugin, said.id, sha256_of(said.id.encode()), {"advisory": said.id})
            touched.log(advisory_entry(about[0].plugin, said.id, statement_digest(statement), now), statement)
            outcome.advisories.append(said.id)

    def _statement(self, plugin: str, version: str, digest: str, said: Mapping[str, Any]) -> Mapping[str, Any]:
        """The site's own word of what it took over, for its log: whose it is, and from which state of the upstream."""
        predicate = {"plugin": plugin, "upstream": self.root, "state": sha256_of(self.state.to_bytes()), **said}
        signed = sign_statement(MIRRORED, {f"{plugin}@{version}" if version else plugin: digest}, predicate, self.key)
        found: Mapping[str, Any] = json.loads(signed)
        return found


def _listed(connection: sa.Connection, taken: TakenPlugin) -> bool:
    """Keep what the upstream lists now; whether it has verified otherwise of the publisher than it had."""
    index, plugin = taken.index, taken.index.plugin
    shown = taken.evidence.targets[index_path(plugin)]
    before = verified_upstream(connection, [plugin]).get(plugin, (None, None))
    values = {"listed": sha256_of(shown), "domain": index.domain, "repository": index.repository}
    row = insert(upstream_listings).values(plugin=plugin, **values)
    connection.execute(row.on_conflict_do_update(index_elements=["plugin"], set_=values))
    return before != (index.domain, index.repository)
