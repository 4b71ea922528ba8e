"""What is taken from an upstream, what it came to, and what of it is here already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from marketplace.index import Index, index_path, read_index
from marketplace.mirror.evidence import PluginEvidence, evidence_path, read_plugin
from marketplace.registry.change import Touched
from marketplace.registry.claims import mirrored_plugins
from marketplace.registry.metadata import current_target


@dataclass(frozen=True, slots=True)
class TakenPlugin:
    """One plugin of an upstream, verified, with its evidence; ``readme`` is what search keeps, if it is known."""

    index: Index
    evidence: PluginEvidence
    readme: str | None = None


@dataclass(slots=True)
class Outcome:
    """What taking in came to. ``held`` has namespaces that were left out, with the reason."""

    upstream: str
    at: str
    plugins: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    advisories: list[str] = field(default_factory=list)
    deprecated: list[str] = field(default_factory=list)
    held: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Add what a later part came to."""
        for name in ("plugins", "released", "withdrawn", "revoked", "advisories", "deprecated", "problems"):
            getattr(self, name).extend(each for each in getattr(other, name) if each not in getattr(self, name))
        self.held |= other.held


@dataclass(frozen=True, slots=True)
class TakeTexts:
    """Let search know mirrored plugins by the text of packages that have come since: READMEs by plugin."""

    readmes: Mapping[str, str]

    def apply(self, connection: sa.Connection, now: str, touched: Touched) -> None:
        """Asked again, it changes nothing."""
        for plugin, readme in self.readmes.items():
            if readme != text_of(connection, plugin):
                touched.plugins[plugin] = readme


def joined(connection: sa.Connection, evidence: PluginEvidence, *, newer: bool) -> PluginEvidence:
    """The evidence, with the proofs of releases that only the present one has; all else is the newer one's."""
    body = current_target(connection, evidence_path(evidence.plugin))
    if body is None:
        return evidence
    present = read_plugin(body)
    new, old = (evidence, present) if newer else (present, evidence)
    return replace(new, proofs={**old.proofs, **new.proofs})


def known_index(connection: sa.Connection, plugin: str) -> Index | None:
    """A plugin's index as the upstream last showed it here."""
    body = current_target(connection, evidence_path(plugin))
    return None if body is None else read_index(read_plugin(body).targets[index_path(plugin)])


def text_of(connection: sa.Connection, plugin: str) -> str | None:
    """What search keeps of a plugin's README."""
    query = "SELECT t.body FROM plugins p JOIN plugin_text t ON t.rowid = p.slot WHERE p.plugin = ?"
    return connection.exec_driver_sql(query, (plugin,)).scalar()


def mirrored(connection: sa.Connection, plugin: str, root: str | None = None) -> set[str]:
    """The plugin, if it is mirrored (from ``root``), else nothing."""
    query = sa.select(mirrored_plugins.c.plugin).where(mirrored_plugins.c.plugin == plugin)
    if root is not None:
        query = query.where(mirrored_plugins.c.source == root)
    return set(connection.execute(query).scalars())
