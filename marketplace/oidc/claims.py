"""What identity tokens of each kind of issuer say of a job, in the words that all share.

Sources: GitHub Docs, "OpenID Connect reference"; GitLab Docs, "OpenID Connect (OIDC) Authentication Using ID Tokens".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from marketplace.errors import JobNotTrusted
from marketplace.jobs import Run

GITHUB, GITLAB = "github", "gitlab"
_COMMIT = re.compile(r"^[0-9a-f]{40}([0-9a-f]{24})?$")
_REPOSITORY = re.compile(r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)+$")
_NUMBER = re.compile(r"^[1-9][0-9]{0,19}$")
_EVENTS_OF_STRANGERS = {"pull_request_target", "pull_request", "workflow_run", "issue_comment"}
"""Events whose runs have the repository's own identity though anybody may cause them."""


def run_of(kind: str, issuer: str, claims: Mapping[str, Any]) -> Run:
    """The run that verified claims are about. Raises JobNotTrusted if they do not say what must be known."""
    return READERS[kind](issuer, claims)


def _github(issuer: str, claims: Mapping[str, Any]) -> Run:
    repository = _said(claims, "repository", _REPOSITORY)
    if _said(claims, "event_name") in _EVENTS_OF_STRANGERS:
        raise JobNotTrusted(
            "A run that strangers can cause may not release.",
            expected="a push, a tag, a release or a start by hand",
            found=str(claims["event_name"])[:100],
        )
    host = urlsplit(issuer).netloc
    # github.com issues its tokens at a host of its own; a GitHub Enterprise Server at its own address.
    place = "github.com" if host == "token.actions.githubusercontent.com" else host
    run_id = _said(claims, "run_id", _NUMBER)
    return Run(
        issuer=issuer,
        repository=repository,
        repository_id=_said(claims, "repository_id", _NUMBER),
        owner_id=_said(claims, "repository_owner_id", _NUMBER),
        workflow=_within(_said(claims, "job_workflow_ref"), f"{repository}/"),
        environment=str(claims.get("environment") or "")[:200],
        ref=_said(claims, "ref"),
        commit=_said(claims, "sha", _COMMIT),
        url=f"https://{place}/{repository}/actions/runs/{run_id}",
    )


def _gitlab(issuer: str, claims: Mapping[str, Any]) -> Run:
    repository = _said(claims, "project_path", _REPOSITORY)
    if str(claims.get("pipeline_source", "")) in ("merge_request_event", "external_pull_request_event"):
        raise JobNotTrusted(
            "A pipeline of a merge request may not release.", expected="a pipeline of a branch or a tag"
        )
    host = urlsplit(issuer).netloc
    kind = "tags" if _said(claims, "ref_type") == "tag" else "heads"
    return Run(
        issuer=issuer,
        repository=repository,
        repository_id=_said(claims, "project_id", _NUMBER),
        owner_id=_said(claims, "namespace_id", _NUMBER),
        workflow=_within(_said(claims, "ci_config_ref_uri"), f"{host}/{repository}//"),
        environment=str(claims.get("environment") or "")[:200],
        ref=f"refs/{kind}/{_said(claims, 'ref')}",
        commit=_said(claims, "sha", _COMMIT),
        url=f"https://{host}/{repository}/-/jobs/{_said(claims, 'job_id', _NUMBER)}",
    )


READERS: Mapping[str, Callable[[str, Mapping[str, Any]], Run]] = {GITHUB: _github, GITLAB: _gitlab}


def _within(reference: str, repository: str) -> str:
    """The file of a workflow, which must be the repository's own: ``<repository>/<file>@<ref>``."""
    path, at, _ = reference.partition("@")
    if not at or path[: len(repository)].casefold() != repository.casefold() or not path[len(repository) :]:
        raise JobNotTrusted(
            "The job runs a workflow of another repository.",
            expected=f"a file in {repository.rstrip('/')}",
            found=reference[:300],
        )
    return path[len(repository) :]


def _said(claims: Mapping[str, Any], name: str, pattern: re.Pattern[str] | None = None) -> str:
    value = claims.get(name)
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text or len(text) > 300 or not text.isprintable() or (pattern is not None and not pattern.match(text)):
        raise JobNotTrusted(f"The identity token does not say the job's {name} as it should.", found=text[:100])
    return text
