"""What the component was linked from: whether the package says so, and what is known of its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from marketplace.rules.rule import Problem, Rule, Submission, WeakPart
from plugin_sdk.sbom import SBOM_FILE, SbomInvalid, read_sbom

_BUILD = "Build it with `keelstone plugin build`, which writes one, and sign again."
_TOLD_AT_MOST = 20


def _listed(submission: Submission) -> Iterator[Problem]:
    if submission.package.sbom is None:
        yield Problem(f"the package has no {SBOM_FILE}, so nobody can tell which parts are inside", _BUILD)


def _valid(submission: Submission) -> Iterator[Problem]:
    package, manifest = submission.package, submission.manifest
    if package.sbom is None:
        return
    try:
        said = read_sbom(package.sbom)
    except SbomInvalid as error:
        yield Problem(f"{SBOM_FILE}: {error.detail}", _BUILD)
        return
    if (said.plugin, said.version) != (manifest.id, manifest.version):
        about = f"{said.plugin} {said.version}".strip() or "nothing"
        yield Problem(f"{SBOM_FILE} is about {about} and not about {manifest.id} {manifest.version}", _BUILD)
    elif said.component != package.component_digest:
        yield Problem(f"{SBOM_FILE} is about another component than the one in the package", _BUILD)


def _malicious(submission: Submission) -> Iterator[Problem]:
    for part in _known(submission, lambda each: each.weakness.malicious):
        yield Problem(
            f"{part.part.purl} is malicious: {_told(part)}",
            "Take the package out, and look after every machine on which it was ever installed.",
        )


def _grave(submission: Submission) -> Iterator[Problem]:
    for part in _known(submission, lambda each: each.grave and not each.weakness.malicious):
        yield Problem(f"{part.part.purl} has a grave weakness: {_told(part)}", "Update the part, and build again.")


def _minor(submission: Submission) -> Iterator[Problem]:
    for part in _known(submission, lambda each: not (each.grave or each.weakness.malicious)):
        yield Problem(f"{part.part.purl} has a weakness: {_told(part)}", "Update the part when you can.")


def _known(submission: Submission, wanted: Callable[[WeakPart], bool]) -> list[WeakPart]:
    found = submission.weak_parts() if submission.weak_parts is not None else ()
    return [each for each in found if wanted(each)][:_TOLD_AT_MOST]


def _told(part: WeakPart) -> str:
    weakness = part.weakness
    return f"{weakness.id} ({weakness.severity}) {weakness.summary}".strip()


PARTS = (
    Rule("parts-listed", "The package lists what it was linked from.", _listed, mode="monitored"),
    Rule("parts-valid", "The list of parts can be read, and is about this component.", _valid),
    Rule("parts-malicious", "No part is known to be malicious.", _malicious, fixed=True, needs="weak_parts"),
    Rule("parts-weak", "No part has a grave known weakness.", _grave, mode="review", needs="weak_parts"),
    Rule("parts-weak-minor", "No part has a known weakness.", _minor, mode="monitored", needs="weak_parts"),
)
