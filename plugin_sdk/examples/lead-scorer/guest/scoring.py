"""The rules of scoring, pure: a person and the tenant's weights in, points and reasons out."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

TITLE_ATTRIBUTES = ("title", "role", "job_title")


@dataclass(frozen=True)
class Person:
    """Who is scored."""

    email: str
    name: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def domain(self) -> str:
        """The domain of the address in lower case; empty if there is none."""
        return self.email.rpartition("@")[2].strip().lower() if "@" in self.email else ""


@dataclass(frozen=True)
class Rules:
    """The tenant's weights, in points."""

    company_domain_points: int = 30
    free_mail_domains: frozenset[str] = frozenset()
    domain_points: Mapping[str, int] = field(default_factory=dict)
    title_points: Mapping[str, int] = field(default_factory=dict)
    attribute_points: Mapping[str, int] = field(default_factory=dict)
    colleague_points: int = 5
    colleague_limit: int = 20
    hot_from: int = 60

    @classmethod
    def from_settings(cls, get: Callable[[str, Any], Any]) -> "Rules":
        """The rules in the plugin's settings; ``get(name, otherwise)`` reads one."""
        return cls(
            company_domain_points=get("company_domain_points", 30),
            free_mail_domains=frozenset(d.lower() for d in get("free_mail_domains", [])),
            domain_points={d.lower(): p for d, p in get("domain_points", {}).items()},
            title_points={w.lower(): p for w, p in get("title_points", {}).items()},
            attribute_points=get("attribute_points", {}),
            colleague_points=get("colleague_points", 5),
            colleague_limit=get("colleague_limit", 20),
            hot_from=get("hot_from", 60),
        )


@dataclass(frozen=True)
class Score:
    """``points`` from 0 to 100, ``band`` (hot, warm or cold) and what it was made of."""

    points: int
    band: str
    reasons: list[str]


def score(person: Person, rules: Rules, colleagues: int) -> Score:
    """The score of ``person``, of whose company ``colleagues`` people came before."""
    parts: list[tuple[int, str]] = []
    domain = person.domain
    if domain and domain not in rules.free_mail_domains:
        parts.append((rules.company_domain_points, f"company address at {domain}"))
        parts.append(
            (min(colleagues * rules.colleague_points, rules.colleague_limit), f"{colleagues} from {domain} before")
        )
    parts.append((rules.domain_points.get(domain, 0), f"named domain {domain}"))
    parts.append(_title(person, rules))
    for wanted, points in rules.attribute_points.items():
        name, _, value = wanted.partition("=")
        if name in person.attributes and str(person.attributes[name]).lower() == value.lower():
            parts.append((points, wanted))
    points = max(0, min(100, sum(p for p, _ in parts)))
    band = "hot" if points >= rules.hot_from else "warm" if points * 2 >= rules.hot_from else "cold"
    return Score(points, band, [f"{p:+d} {why}" for p, why in parts if p])


def _title(person: Person, rules: Rules) -> tuple[int, str]:
    """The word of a title or role that weighs most, in either direction."""
    words: set[str] = set()
    for name in TITLE_ATTRIBUTES:
        words.update(re.findall(r"[a-z0-9]+", str(person.attributes.get(name, "")).lower()))
    found = sorted((w for w in words if w in rules.title_points), key=lambda w: (-abs(rules.title_points[w]), w))
    return (rules.title_points[found[0]], f"title says {found[0]}") if found else (0, "")
