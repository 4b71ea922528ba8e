"""Which versions of a package a weakness is about, by the rules of its ecosystem.

OSV's evaluation (https://ossf.github.io/osv-schema/#evaluation): a version is affected if it is listed by name, or lies
in a range. npm, crates.io and Go order versions by SemVer 2, PyPI by PEP 440. Ranges of commits say nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion
from packaging.version import Version as PythonVersion

from kernel.errors import VersionError
from kernel.versions import parse_version

ECOSYSTEMS = {"cargo": "crates.io", "golang": "Go", "npm": "npm", "pypi": "PyPI"}
"""OSV's ecosystems by the types of package URLs."""
_GO_RELEASE = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?(?:(rc|beta)(\d+))?$")
Event = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Span:
    """The versions of one package that a weakness is about: ranges of events, and versions by name."""

    ranges: tuple[tuple[Event, ...], ...] = ()
    versions: tuple[str, ...] = ()


def package_name(ecosystem: str, name: str) -> str:
    """One spelling for all that an ecosystem takes for the same name."""
    if ecosystem == "PyPI":
        return canonicalize_name(name)
    if ecosystem == "crates.io":
        return name.lower().replace("_", "-")
    return name.lower()


def is_affected(ecosystem: str, span: Span, version: str) -> bool:
    """Whether a version lies in the span. One that nobody can order is affected if it is listed, or if all are."""
    read = _python if ecosystem == "PyPI" else _go if ecosystem == "Go" else _semantic
    at = read(version)
    if any(version == each or (at is not None and read(each) == at) for each in span.versions):
        return True
    return any(_inside(events, at, read) for events in span.ranges)


def _inside(events: Sequence[Event], at: Any, read: Callable[[str], Any]) -> bool:
    """In the events' order of versions, the last that is not above decides."""
    known = [(kind, None if edge == "0" else read(edge), edge) for kind, edge in events]
    if at is None:
        return [(kind, edge) for kind, _, edge in known] == [("introduced", "0")]
    # An edge that cannot be read is left out, but for a beginning: better one warning too many.
    ordered = [(kind, limit) for kind, limit, edge in known if limit is not None or kind == "introduced"]
    # What ends a range at a version comes after what begins one there.
    ordered.sort(
        key=lambda event: (event[1] is not None, at if event[1] is None else event[1], event[0] != "introduced")
    )
    inside = False
    for kind, limit in ordered:
        if kind == "introduced":
            inside = inside or limit is None or at >= limit
        elif (kind == "fixed" and at >= limit) or (kind == "last_affected" and at > limit):
            inside = False
    limits = [limit for kind, limit in ordered if kind == "limit"]
    return inside and (not limits or any(at < limit for limit in limits))


def _semantic(text: str) -> Any:
    try:
        return parse_version(text.removeprefix("v"))
    except VersionError:
        return None


def _go(text: str) -> Any:
    """A module's version; or a release of Go, which spells candidates its own way and may lack the third number."""
    match = _GO_RELEASE.match(text)
    if match:
        major, minor, patch, kind, number = match.groups()
        return _semantic(f"{major}.{minor}.{patch or 0}" + (f"-{kind}.{number}" if kind else ""))
    return _semantic(text)


def _python(text: str) -> Any:
    try:
        return PythonVersion(text)
    except InvalidVersion:
        return None
