"""What must not be inside a package: secrets left behind, hosts that nobody was told of.

The secrets' forms are those that their issuers publish for scanners. Forms that need an entropy guess
are left out: a refusal must be right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from kernel.manifest import MANIFEST_FILE
from marketplace.package import CHANGELOG, COMPONENT, README
from marketplace.rules.rule import Problem, Rule, Submission

_FORMS: tuple[tuple[str, re.Pattern[bytes]], ...] = tuple(
    (what, re.compile(form))
    for what, form in (
        ("a private key", rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----\s+[A-Za-z0-9+/=]{40}"),
        ("an AWS access key", rb"(?:AKIA|ASIA)[2-7A-Z]{16}(?<!EXAMPLE)"),
        ("a GitHub token", rb"(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{82})"),
        ("a GitLab token", rb"glpat-[A-Za-z0-9_-]{20}"),
        ("a Slack token", rb"xox[abprs]-[0-9]{8,}-[0-9A-Za-z-]{16,}"),
        ("a Google API key", rb"AIza[0-9A-Za-z_-]{35}"),
        ("a Stripe live key", rb"[sr]k_live_[0-9A-Za-z]{24,}"),
        ("an npm token", rb"npm_[A-Za-z0-9]{36}"),
        ("an OpenAI key", rb"sk-proj-[A-Za-z0-9_-]{40,}"),
        ("an Anthropic key", rb"sk-ant-[a-z0-9]+-[A-Za-z0-9_-]{40,}"),
    )
)
# In compiled code a key's header alone is a parser's constant; in texts it says enough.
_PRIVATE_KEY = _FORMS[0][1]
_KEY_HEADER = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")
_ADDRESS = re.compile(rb"(?:https?|wss?)://([a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+)")
_NAMES_ONLY = ("w3.org", "json-schema.org", "schema.org", "example.com", "example.org", "example.net")
"""Hosts that are names of formats, or stand in for a host in examples."""
_TOLD_AT_MOST = 8


def _members(submission: Submission) -> Iterator[tuple[str, bytes]]:
    package = submission.package
    yield MANIFEST_FILE, package.manifest_bytes
    yield README, package.readme.encode()
    yield CHANGELOG, package.changelog.encode()
    if package.settings_schema is not None:
        yield str(package.manifest.settings), json.dumps(package.settings_schema, ensure_ascii=False).encode()
    yield COMPONENT, package.component
    # Languages that keep strings as UTF-16 (AssemblyScript, JavaScript) have a zero after each such letter.
    yield COMPONENT, package.component.replace(b"\0", b"")


def _secrets(submission: Submission) -> Iterator[Problem]:
    fix = "Take it out, and replace it everywhere: whoever can read the package can use it."
    found = dict.fromkeys(
        (name, what)
        for name, data in _members(submission)
        for what, form in _FORMS
        if form.search(data) or (form is _PRIVATE_KEY and name != COMPONENT and _KEY_HEADER.search(data))
    )
    for name, what in found:
        yield Problem(f"{name} contains {what}", fix)


def _hosts(submission: Submission) -> Iterator[Problem]:
    http = submission.manifest.capabilities.http
    if http is None:
        # Without the capability nothing can be reached, whatever the code names.
        return
    declared = {host.partition(":")[0] for host in http.hosts if not host.startswith("setting:")}
    found: dict[str, str] = {}
    for name, data in _members(submission):
        if name in (COMPONENT, submission.manifest.settings):
            for match in _ADDRESS.finditer(data):
                host = match.group(1).decode()
                if not any(_covers(allowed, host) for allowed in declared) and not _is_name(host):
                    found.setdefault(host, name)
    told = [f"{host} (in {where})" for host, where in sorted(found.items())]
    if told:
        more = f" and {len(told) - _TOLD_AT_MOST} more" if len(told) > _TOLD_AT_MOST else ""
        yield Problem(
            f"it names hosts that it does not ask for: {', '.join(told[:_TOLD_AT_MOST])}{more}",
            "Add them to capabilities.http.hosts, or take the addresses out; requests to them are refused.",
        )


def _covers(allowed: str, host: str) -> bool:
    return host == allowed or (allowed.startswith("*.") and host.endswith(allowed[1:]))


def _is_name(host: str) -> bool:
    return any(host == name or host.endswith(f".{name}") for name in _NAMES_ONLY)


CONTENT = (
    Rule("secrets", "No secret is left in the code, texts or settings.", _secrets),
    Rule("hosts", "Code and settings name no host that is not asked for.", _hosts, mode="monitored"),
)
