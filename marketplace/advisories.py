"""Advisories: known weaknesses of plugins, in the OSV format, signed for by the marketplace.

An advisory is OSV's JSON (https://ossf.github.io/osv-schema/) about plugins: ecosystem ``Keelstone``, names as
``publisher/name``, ranges of type ``SEMVER``. All of them are one TUF target, and each is a signed statement in the
transparency log. Whether a version is affected follows OSV's evaluation: it is listed by name, or lies in a range
from ``introduced`` up to ``fixed`` (excluded) or ``last_affected`` (included). A withdrawn one affects nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from kernel.capabilities import check_plugin_id
from kernel.errors import ValidationFailed, VersionError
from kernel.versions import parse_version
from marketplace.keys import SigningKey
from marketplace.listed import listed_document, read_listed
from marketplace.signing import ADVISORY, canonical_json, sign_statement
from plugin_sdk.services import Advisory, AffectedRange

ADVISORIES_TARGET = "registry/advisories.json"
ECOSYSTEM = "Keelstone"
INHERITED = "DEP-"
"""How the ids of advisories begin that follow from a plugin's parts; nobody else gives one."""
MAX_BYTES = 16 * 1024
MAX_AFFECTED, MAX_EVENTS, MAX_VERSIONS = 20, 100, 500
_ID = re.compile(r"^[A-Z][A-Za-z0-9]{1,15}(-[A-Za-z0-9]{1,24}){1,4}$")


def read_advisory(body: bytes, *, by: str) -> Advisory:
    """The advisory in an OSV document, about plugins; ``by`` is ``marketplace`` or the publisher who signed it.

    Raises ValidationFailed, which says what is wrong with it.
    """
    if len(body) > MAX_BYTES:
        raise _bad(f"it has {len(body):,} bytes", f"at most {MAX_BYTES:,}")
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _bad(f"it is not JSON: {error}", "an OSV document") from error
    if not isinstance(said, dict) or not _ID.match(str(said.get("id", ""))):
        raise _bad("it has no id", "an OSV document with an id such as ACME-2026-0001")
    if said["id"].startswith(INHERITED):
        raise _bad(f"ids with {INHERITED} are the marketplace's, of what follows from parts", "an id of your own")
    try:
        affected = tuple(_affected(said["affected"]))
        return Advisory(
            id=said["id"],
            modified=_moment(said["modified"]),
            published=_moment(said.get("published", said["modified"])),
            withdrawn=_moment(said["withdrawn"]) if said.get("withdrawn") else None,
            summary=" ".join(str(said["summary"]).split())[:200],
            details=str(said.get("details", ""))[:4_000],
            severity=_severity(said),
            aliases=tuple(str(each)[:50] for each in said.get("aliases", [])[:10]),
            references=tuple(_link(each["url"]) for each in said.get("references", [])[:10]),
            affected=affected,
            by=by,
        )
    except (KeyError, TypeError, ValueError, AttributeError, VersionError) as error:
        raise _bad(f"{type(error).__name__}: {error}", "id, modified, summary and affected, as OSV says") from error


def _affected(said: Any) -> Iterator[AffectedRange]:
    if not isinstance(said, list) or not 1 <= len(said) <= MAX_AFFECTED:
        raise ValueError(f"affected must name 1 to {MAX_AFFECTED} plugins")
    for each in said:
        package = each["package"]
        if package["ecosystem"] != ECOSYSTEM:
            raise ValueError(f"affected must be about plugins, of the ecosystem {ECOSYSTEM}")
        check_plugin_id(str(package["name"]))
        versions = tuple(str(parse_version(str(v))) for v in each.get("versions", []))
        events: list[tuple[str, str]] = []
        for span in each.get("ranges", []):
            if span["type"] != "SEMVER":
                raise ValueError("a plugin's range is of type SEMVER")
            events += _events(span["events"])
        if len(versions) > MAX_VERSIONS or len(events) > MAX_EVENTS or not (versions or events):
            raise ValueError(f"each plugin needs ranges or versions, at most {MAX_VERSIONS} versions")
        yield AffectedRange(str(package["name"]), tuple(events), versions)


def _events(said: Any) -> Iterator[tuple[str, str]]:
    """In the order of their versions, as OSV evaluates them; what ends a range at a version comes after what begins
    one there."""
    found = []
    for each in said:
        ((kind, version),) = each.items()
        if kind not in ("introduced", "fixed", "last_affected"):
            raise ValueError(f"a range has no event {kind!r}")
        found.append((kind, "0.0.0-0" if version == "0" else str(parse_version(str(version)))))
    if not any(kind == "introduced" for kind, _ in found):
        raise ValueError("a range begins with introduced")
    yield from sorted(found, key=lambda event: (parse_version(event[1]), event[0] != "introduced"))


def _severity(said: Mapping[str, Any]) -> str | None:
    listed = said.get("severity") or []
    return str(listed[0]["score"])[:200] if listed else None


def _moment(text: Any) -> str:
    at = datetime.fromisoformat(str(text))
    if at.tzinfo is None:
        raise ValueError("moments are in UTC: 2026-11-23T10:00:00Z")
    return str(text)[:40]


def _link(url: Any) -> str:
    if not str(url).startswith(("https://", "http://")):
        raise ValueError("a reference is a web address")
    return str(url)[:500]


def _bad(problem: str, expected: str) -> ValidationFailed:
    return ValidationFailed(
        f"The advisory cannot be taken: {problem}.",
        expected=expected,
        fix="See ossf.github.io/osv-schema; the how-to on advisories has an example.",
    )


def advisories_document(advisories: Iterable[Advisory]) -> bytes:
    """The target's bytes."""
    return listed_document("advisories", advisories)


def read_advisories(document: bytes | None) -> tuple[Advisory, ...]:
    """The advisories in a verified document; None: there never was one. Raises VerificationFailed."""
    return read_listed(document, "advisories", "advisories", ADVISORIES_TARGET, advisory_from_dict)


def advisory_from_dict(said: Mapping[str, Any]) -> Advisory:
    """The advisory that plain data says. Raises KeyError or TypeError."""
    affected = tuple(
        AffectedRange(str(a["plugin"]), tuple((str(k), str(v)) for k, v in a["events"]), tuple(map(str, a["versions"])))
        for a in said["affected"]
    )
    texts = {"aliases": tuple(map(str, said["aliases"])), "references": tuple(map(str, said["references"]))}
    return Advisory(**{**said, **texts, "affected": affected})


def sign_advisory(body: bytes, key: SigningKey) -> bytes:
    """The signed statement of an OSV document about plugins. Raises ValidationFailed."""
    said = read_advisory(body, by="")
    document = canonical_json(json.loads(body))
    predicate = {"plugin": said.affected[0].plugin, "osv": json.loads(document)}
    return sign_statement(ADVISORY, {said.id: hashlib.sha256(document).hexdigest()}, predicate, key)
