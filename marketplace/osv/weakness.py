"""One weakness, as an OSV document says it, with what matters to those who link the package."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from marketplace.osv.severity import Severity, severity_of
from marketplace.osv.versions import ECOSYSTEMS, Event, Span, package_name

_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{2,60}$")
_KINDS = ("introduced", "fixed", "last_affected", "limit")
MAX_ALIASES = 20


@dataclass(frozen=True, slots=True)
class Weakness:
    """A weakness of packages. ``modified`` in epoch seconds; ``malicious``: the package itself is the attack;
    ``vector`` is a CVSS vector. A ``withdrawn`` one affects nothing."""

    id: str
    modified: float
    summary: str
    severity: Severity
    vector: str | None
    malicious: bool
    withdrawn: bool
    aliases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """A package that a weakness is in; ``name`` in the one spelling of ``package_name``."""

    ecosystem: str
    name: str
    span: Span


def read_weakness(said: Any) -> tuple[Weakness, list[Place]]:
    """The weakness in an OSV document, and the packages of our ecosystems that have it. Raises ValueError."""
    if not isinstance(said, dict) or not _ID.match(str(said.get("id", ""))):
        raise ValueError("it has no id")
    try:
        places = list(_places(said.get("affected") or ()))
        severity, vector = severity_of(said)
        aliases = tuple(str(each)[:60] for each in (said.get("aliases") or ())[:MAX_ALIASES])
        text = str(said.get("summary") or said.get("details") or "")
        weakness = Weakness(
            id=said["id"],
            modified=_seconds(said["modified"]),
            summary=" ".join(text.split())[:200],
            severity=severity,
            vector=vector,
            malicious=any(each.startswith("MAL-") for each in (said["id"], *aliases)),
            withdrawn=bool(said.get("withdrawn")),
            aliases=aliases,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{said['id']}: {type(error).__name__}: {error}") from error
    return weakness, places


def _places(affected: Any) -> Iterator[Place]:
    for each in affected:
        package = each.get("package") or {}
        ecosystem = str(package.get("ecosystem", "")).partition(":")[0]
        if ecosystem in ECOSYSTEMS.values():
            ranges = tuple(
                tuple(_events(span.get("events") or ()))
                for span in each.get("ranges") or ()
                if span.get("type") != "GIT"
            )
            span = Span(ranges, tuple(str(version) for version in each.get("versions") or ()))
            yield Place(ecosystem, package_name(ecosystem, str(package["name"])), span)


def _events(said: Any) -> Iterator[Event]:
    for each in said:
        for kind, version in each.items():
            if kind in _KINDS:
                yield kind, str(version)


def _seconds(text: Any) -> float:
    at = datetime.fromisoformat(str(text))
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def same_flaw(one: Weakness, other: Weakness) -> bool:
    """Whether two databases say the same thing."""
    return bool({one.id, *one.aliases} & {other.id, *other.aliases})


def plain_span(span: Span) -> Mapping[str, Any]:
    """As plain data."""
    return {"ranges": [[list(event) for event in events] for events in span.ranges], "versions": list(span.versions)}


def span_from_dict(said: Mapping[str, Any]) -> Span:
    """The span that plain data says."""
    ranges = tuple(tuple((kind, version) for kind, version in events) for events in said["ranges"])
    return Span(ranges, tuple(said["versions"]))
