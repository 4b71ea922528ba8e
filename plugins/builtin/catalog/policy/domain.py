"""A policy: which releases may come in, and what may be granted to them. Pure rules.

The operator's policy is about everybody; a tenant's is about that tenant. A release must satisfy both, so
a tenant's can only be stricter.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from plugin_sdk import KeelstoneError, PluginManifest
from plugins.builtin.catalog.policy.licenses import allows

Level = Literal["operator", "tenant"]
OPERATOR: Level = "operator"
TENANT: Level = "tenant"
CAPABILITIES = tuple(sorted(type(PluginManifest.model_fields["capabilities"].default).model_fields))
LIMITS = tuple(type(PluginManifest.model_fields["limits"].default).model_fields)
_PUBLISHER = re.compile(r"[a-z][a-z0-9-]{0,38}[a-z0-9]")
_HOST = re.compile(r"(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_SETTING = "setting:"
_EXPECTED = {
    "domain": "a publisher with a verified domain",
    "repository": "a publisher with a repository that releases, or a verified domain",
}


class PolicyBlocked(KeelstoneError):
    """The operator's policy or the tenant's does not let the release in, or not with these grants."""

    code, status, title = "policy-blocked", 403, "Against the policy"


def _named(known: Collection[str], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"{value!r} is no {what}: {', '.join(known)}")
        return value

    return AfterValidator(check)


def _formed(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"{value!r} is not {what}")
        return value

    return AfterValidator(check)


PublisherName = Annotated[str, _formed(_PUBLISHER, "a publisher: the part of a plugin's id before the slash")]
CapabilityName = Annotated[str, _named(CAPABILITIES, "capability")]
LimitName = Annotated[str, _named(LIMITS, "limit of a manifest")]
HostPattern = Annotated[str, _formed(_HOST, "a host: use evil.example or *.evil.example, without a port")]
LicenseName = Annotated[str, Field(min_length=2, max_length=120)]


Verification = Literal["none", "repository", "domain"]
VERIFICATIONS: tuple[Verification, ...] = get_args(Verification)
"""Each is worth more than the one before."""


def verification_of(domain: str | None, repository: str | None) -> Verification:
    """What vouches for a publisher, by what the marketplace's index says of it."""
    return "domain" if domain is not None else "repository" if repository is not None else "none"


class Publishers(BaseModel):
    """Whose plugins may come in."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    allowed: Literal["everybody"] | tuple[PublisherName, ...] = "everybody"
    """Only these, or everybody."""
    blocked: tuple[PublisherName, ...] = ()
    """None of these, even if they are allowed."""


class Policy(BaseModel):
    """What may come in, and what may be granted to it. An empty one stands against nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    publishers: Publishers = Publishers()
    """Whose plugins may come in."""
    capabilities_never: tuple[CapabilityName, ...] = ()
    """Capabilities that nobody may grant. A plugin that asks for one still runs, with it denied."""
    hosts_never: tuple[HostPattern, ...] = Field(default=(), max_length=500)
    """Hosts that no plugin may reach: `http` is not granted to one that could. `*.x.com` is every host below x.com."""
    licenses: Literal["any"] | tuple[LicenseName, ...] = "any"
    """SPDX identifiers. Of `A OR B` one must be here, of `A AND B` both."""
    verification: Verification = "none"
    """What at least must vouch for the publisher: nothing, a repository whose CI job has released plugins of theirs, or
    a domain that the marketplace has verified."""
    cool_down_hours: float = Field(default=0.0, ge=0, le=8_760)
    """How long a release must have been published before it comes in, dependencies too."""
    fixes_wait: bool = False
    """Whether the cool-down holds for a release too that mends a weakness, by an advisory of the marketplace."""
    limits: dict[LimitName, Annotated[int, Field(ge=0)]] = {}
    """The most that a manifest may ask for, by the names under `[limits]`."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A release that wants to come in. ``since`` is when it was first published or, where that is not known,
    first seen here; None for one that was never seen before."""

    manifest: PluginManifest
    digest: str = ""
    since: datetime | None = None
    mends: bool = False
    """Whether an advisory of the marketplace says that it mends a weakness."""
    verification: Verification = "none"
    """What vouches for its publisher; what came with the platform itself needs no more."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that stands against a release. ``subject`` is the capability, host or limit it is about."""

    level: Level
    rule: str
    subject: str
    expected: str
    found: str
    detail: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What an exception lifts."""
        return self.level, self.rule, self.subject


@dataclass(frozen=True, slots=True)
class Approval:
    """A request that one release be let in although a policy stands against it, and what came of it.

    It lifts exactly the ``rules`` (rule, subject) that it was asked for, of exactly this plugin, version and
    digest, in the tenant that asked; what the operator asked for and approved is for every tenant.
    ``state`` is ``open``, ``approved``, ``declined`` or ``revoked``.
    """

    id: str
    tenant: str
    level: Level
    plugin: str
    version: str
    digest: str
    reason: str
    rules: tuple[tuple[str, str], ...]
    findings: tuple[str, ...]
    asked_by: str
    asked_at: datetime
    state: str = "open"
    decided_by: str = ""
    decided_at: datetime | None = None
    answer: str = ""
    expires_at: datetime | None = None

    def lifts(self, finding: Finding, candidate: Candidate, now: datetime) -> bool:
        """Whether the finding is excepted."""
        release = (candidate.manifest.id, candidate.manifest.version)
        return (
            self.state == "approved"
            and (self.expires_at is None or now < self.expires_at)
            and (self.plugin, self.version) == release
            and (not self.digest or not candidate.digest or self.digest == candidate.digest)
            and self.level == finding.level
            and (finding.rule, finding.subject) in self.rules
        )


@dataclass(frozen=True, slots=True)
class Standing:
    """The policies that a tenant is under, with the approvals that count there. For the platform's own tenant,
    ``tenant`` is None: the operator's policy is its only one."""

    operator: Policy | None = None
    tenant: Policy | None = None
    approvals: Sequence[Approval] = field(default_factory=tuple)

    def of_release(self, candidate: Candidate, now: datetime) -> list[Finding]:
        """What stands against the release as such, whatever is granted to it."""
        found = [f for level, policy in self._policies() for f in _release(level, policy, candidate, now)]
        return self._open(found, candidate, now)

    def of_grants(
        self, candidate: Candidate, granted: Collection[str], settings: Mapping[str, Any], now: datetime
    ) -> list[Finding]:
        """What stands against granting these capabilities to it, with these settings."""
        found = [f for level, policy in self._policies() for f in _grants(level, policy, candidate, granted, settings)]
        return self._open(found, candidate, now)

    def check(self, candidate: Candidate, found: Sequence[Finding], tenant: str | None = None) -> None:
        """Raise PolicyBlocked, which tells all of ``found``, if there is any."""
        if found:
            raise blocked(candidate.manifest, found, tenant)

    def _policies(self) -> list[tuple[Level, Policy]]:
        both: list[tuple[Level, Policy | None]] = [(OPERATOR, self.operator), (TENANT, self.tenant)]
        return [(level, policy) for level, policy in both if policy is not None]

    def _open(self, found: list[Finding], candidate: Candidate, now: datetime) -> list[Finding]:
        return [f for f in found if not any(a.lifts(f, candidate, now) for a in self.approvals)]


def added(after: Iterable[Finding], before: Iterable[Finding]) -> list[Finding]:
    """The findings that a change brings: what stood there before is not the change's fault."""
    known = {f.key for f in before}
    return [f for f in after if f.key not in known]


def _release(level: Level, policy: Policy, candidate: Candidate, now: datetime) -> list[Finding]:
    manifest, found = candidate.manifest, []
    allowed, publisher = policy.publishers.allowed, manifest.publisher
    if publisher in policy.publishers.blocked:
        found.append(_finding(level, "publishers", publisher, "another publisher", f"{publisher} is blocked"))
    elif allowed != "everybody" and publisher not in allowed:
        expected = ", ".join(allowed) or "no publisher at all"
        found.append(_finding(level, "publishers", publisher, expected, f"{publisher} is not allowed"))
    if policy.licenses != "any" and not allows(policy.licenses, manifest.license):
        expected = ", ".join(policy.licenses) or "no licence at all"
        found.append(_finding(level, "licenses", manifest.license, expected, f"its licence is {manifest.license}"))
    if VERIFICATIONS.index(candidate.verification) < VERIFICATIONS.index(policy.verification):
        what, expected = f"no domain that the marketplace has verified speaks for {publisher}", _EXPECTED["domain"]
        if policy.verification == "repository":
            what, expected = f"no repository is known to release for {publisher}", _EXPECTED["repository"]
        found.append(_finding(level, "verification", publisher, expected, what, candidate.verification))
    if policy.fixes_wait or not candidate.mends:
        found += _cool_down(level, policy.cool_down_hours, candidate.since, now)
    for name, most in sorted(policy.limits.items()):
        asked = getattr(manifest.limits, name)
        if asked > most:
            what = f"it asks for {name} = {asked}, and at most {most} is allowed"
            found.append(_finding(level, "limits", name, f"{name} <= {most}", what, f"{name} = {asked}"))
    return found


def _cool_down(level: Level, hours: float, since: datetime | None, now: datetime) -> list[Finding]:
    if not hours:
        return []
    until = (since or now) + timedelta(hours=hours)
    if since is not None and until <= now:
        return []
    if since is None:
        what = f"when it was published is not known, and it must be {hours:g} hours ago"
        return [_finding(level, "cool_down_hours", "", f"published {hours:g} hours ago", what, "not known")]
    what = f"it was published {_hours(now - since)} hours ago and may come in from {until:%Y-%m-%d %H:%M} UTC"
    return [
        _finding(level, "cool_down_hours", "", f"published {hours:g} hours ago", what, f"{since:%Y-%m-%d %H:%M} UTC")
    ]


def _hours(age: timedelta) -> str:
    return f"{max(age.total_seconds(), 0) / 3_600:.1f}"


def _grants(
    level: Level, policy: Policy, candidate: Candidate, granted: Collection[str], settings: Mapping[str, Any]
) -> list[Finding]:
    found = []
    for name in sorted(set(policy.capabilities_never) & set(granted)):
        expected = f"{name} denied"
        found.append(_finding(level, "capabilities_never", name, expected, f"{name} is never granted", "granted"))
    http = candidate.manifest.capabilities.http
    if http is None or "http" not in granted:
        return found
    reached = {name for host in http.hosts if (name := reachable(host, settings))}
    for pattern in policy.hosts_never:
        for name in sorted(n for n in reached if overlap(pattern, n)):
            what = f"with http it could reach {name}, and nothing may reach {pattern}"
            found.append(_finding(level, "hosts_never", name, f"http denied, or no host of {pattern}", what, name))
    return found


def reachable(host: str, settings: Mapping[str, Any]) -> str:
    """The host of an entry under ``http.hosts``, without its port; of a setting, the host of its URL. Empty if
    that setting is not made (then nothing is reached by it)."""
    if not host.startswith(_SETTING):
        return host.partition(":")[0]
    value = settings.get(host.removeprefix(_SETTING))
    try:
        return (urlsplit(value).hostname or "").rstrip(".").lower() if isinstance(value, str) else ""
    except ValueError:
        return ""


def overlap(one: str, other: str) -> bool:
    """Whether two patterns (a host, or ``*.suffix`` for every host below) have a host in common."""
    if one.startswith("*.") and other.startswith("*."):
        return one[1:].endswith(other[1:]) or other[1:].endswith(one[1:])
    if one.startswith("*."):
        return other.endswith(one[1:])
    return (other.startswith("*.") and one.endswith(other[1:])) or one == other


def _finding(level: Level, rule: str, subject: str, expected: str, detail: str, found: str | None = None) -> Finding:
    return Finding(level, rule, subject, expected, subject if found is None else found, detail)


def who_changes(level: Level) -> str:
    """Who may change the policy, in words."""
    return "an operator of the platform" if level == OPERATOR else "an admin of the tenant"


def told(finding: Finding) -> str:
    """A finding as people read it."""
    whose = "the operator's policy" if finding.level == OPERATOR else "the tenant's policy"
    return f"{finding.detail} ({finding.rule} of {whose})"


def blocked(manifest: PluginManifest, found: Sequence[Finding], tenant: str | None = None) -> PolicyBlocked:
    """The error that tells every finding, who can change the rule, and how to ask."""
    levels: list[Level] = [level for level in (OPERATOR, TENANT) if any(f.level == level for f in found)]
    deciders = " and ".join(who_changes(level) for level in levels)
    release = f"{manifest.id} {manifest.version}"
    where = "marketplace requests ask" if tenant is None else f"tenant requests ask {tenant}"
    denied = sorted({f.subject for f in found if f.rule == "capabilities_never"})
    without = f"Deny {', '.join(denied)}, or ask" if denied and tenant is not None else "Ask"
    return PolicyBlocked(
        f"{release} is against the policy: {'; '.join(told(f) for f in found)}.",
        plugin=manifest.id,
        tenant=tenant,
        expected="; ".join(f"{f.rule}: {f.expected}" for f in found),
        found="; ".join(f"{f.rule}: {f.found}" for f in found),
        fix=f"{without} for an approval of this release (`keelstone {where} {release} --reason WHY`); "
        f"{deciders} approves it or changes the policy.",
        extra={"findings": [plain(f) for f in found]},
    )


def plain(finding: Finding) -> dict[str, Any]:
    """A finding, JSON-ready."""
    return asdict(finding) | {"who": who_changes(finding.level)}
