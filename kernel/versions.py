"""SemVer 2 versions and ranges.

Ranges are comma-separated comparators that must all hold: ``^1.2``, ``~1.2.3``, ``>=1.2,<2``,
``=1.0.0``, ``1.2.3`` (exact) and ``*``. Caret and tilde mean what they mean in npm and Cargo: a
caret keeps the left-most non-zero part, a tilde keeps major and minor. A pre-release satisfies a
range only if a comparator names a pre-release of the same major.minor.patch (npm's rule), so that
nobody gets one by surprise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

import semver

from kernel.errors import VersionError

Version = semver.Version

_PARTIAL = re.compile(
    r"^(?P<op>\^|~|>=|<=|>|<|=)?\s*(?P<major>\d+)(?:\.(?P<minor>\d+))?(?:\.(?P<patch>\d+))?"
    r"(?P<rest>(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?)$"
)


@lru_cache(maxsize=4096)
def parse_version(text: str) -> Version:
    """``text`` as a version. Raises VersionError, saying what was found."""
    try:
        return Version.parse(text)
    except (ValueError, TypeError) as error:
        raise VersionError(
            f"{text!r} is not a version.",
            expected="SemVer 2, e.g. 1.4.0 or 2.0.0-rc.1",
            found=text,
        ) from error


@dataclass(frozen=True, slots=True)
class _Bound:
    op: str
    version: Version

    def holds(self, version: Version) -> bool:
        order = version.compare(self.version)
        return {
            ">=": order >= 0,
            "<=": order <= 0,
            ">": order > 0,
            "<": order < 0,
            "=": order == 0,
        }[self.op]


@dataclass(frozen=True, slots=True)
class VersionRange:
    """A set of versions, described by comparators that must all hold."""

    text: str
    bounds: tuple[_Bound, ...]

    def __contains__(self, version: object) -> bool:
        if isinstance(version, str):
            version = parse_version(version)
        if not isinstance(version, Version):
            return False
        if not all(bound.holds(version) for bound in self.bounds):
            return False
        if not version.prerelease:
            return True
        core = (version.major, version.minor, version.patch)
        return any(
            b.version.prerelease and (b.version.major, b.version.minor, b.version.patch) == core for b in self.bounds
        )

    def __str__(self) -> str:
        return self.text


@lru_cache(maxsize=4096)
def parse_range(text: str) -> VersionRange:
    """``text`` as a range. Raises VersionError, naming the part that is wrong."""
    bounds: list[_Bound] = []
    for part in text.split(","):
        piece = part.strip()
        if piece == "*":
            continue
        match = _PARTIAL.match(piece)
        if match is None:
            raise VersionError(
                f"{text!r} is not a version range: {piece!r} cannot be read.",
                expected="comparators such as ^1.2, ~1.2.3, >=1.2,<2 or *",
                found=text,
            )
        bounds.extend(_expand(match, text))
    return VersionRange(text=text, bounds=tuple(bounds))


def _expand(match: re.Match[str], text: str) -> list[_Bound]:
    major, minor, patch = (match.group(n) for n in ("major", "minor", "patch"))
    low = parse_version(f"{major}.{minor or 0}.{patch or 0}{match.group('rest')}")
    op = match.group("op") or "="
    above = Version(low.major + 1, 0, 0) if minor is None else Version(low.major, low.minor + 1, 0)
    if op == "^":
        return [_Bound(">=", low), _Bound("<", _caret_limit(low, minor, patch))]
    if op == "~":
        return [_Bound(">=", low), _Bound("<", above)]
    if patch is not None:
        return [_Bound(op, low)]
    # A partial version names a whole span: `>1` means past all of 1.x, `=1.2` any 1.2.x.
    return {
        "=": [_Bound(">=", low), _Bound("<", above)],
        ">=": [_Bound(">=", low)],
        "<": [_Bound("<", low)],
        ">": [_Bound(">=", above)],
        "<=": [_Bound("<", above)],
    }[op]


def _caret_limit(low: Version, minor: str | None, patch: str | None) -> Version:
    if low.major > 0 or minor is None:
        return Version(low.major + 1, 0, 0)
    if low.minor > 0 or patch is None:
        return Version(0, low.minor + 1, 0)
    return Version(0, 0, low.patch + 1)
