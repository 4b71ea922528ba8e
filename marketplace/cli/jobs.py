"""Releasing from CI without a key: ``plugin trust-job``, and what ``plugin publish --from-job`` does."""

from __future__ import annotations

import json as jsonlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketplace.cli.shared import PLUGIN_HELP, load_settings, print_rows, print_table, signing_key
from marketplace.cli.statements import hand_in
from plugin_sdk.terminal import CommandTree, JsonOption, command, show

if TYPE_CHECKING:
    from kernel.settings import Settings
    from marketplace.door import Door
    from marketplace.jobs import JobList
    from marketplace.publishing import SignedPackage

PublisherArgument = Annotated[str, typer.Argument(help="The namespace: the part of the plugins' ids before the slash.")]
GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
GITLAB_ISSUER = "https://gitlab.com"


def add_job_commands(tree: CommandTree) -> None:
    """Add the group ``plugin trust-job``."""
    group = typer.Typer(help="Which CI jobs may release your plugins, without a key.", no_args_is_help=True)
    tree.group("plugin", PLUGIN_HELP).add_typer(group, name="trust-job")

    @group.command("list")
    @command
    def list_jobs(publisher: PublisherArgument, json: JsonOption = False) -> None:
        """List the CI jobs that may release a namespace's plugins."""
        from marketplace.door import open_door

        with open_door(tree, load_settings()) as door:
            found = door.request("GET", f"/namespaces/{publisher}/jobs")

        def text() -> None:
            columns = ("job", "repository", "workflow", "environment", "plugins", "issuer")
            print_table(columns, [_row(publisher, job) for job in found["jobs"]], "No CI job may release here.")

        show({**found, "jobs": [{"id": _job(job).id, **job} for job in found["jobs"]]}, json, text)

    @group.command("add")
    @command
    def add(
        publisher: PublisherArgument,
        repository: Annotated[str, typer.Option("--repository", help="OWNER/NAME, or a GitLab project's path.")],
        repository_id: Annotated[str, typer.Option("--repository-id", help="Its number, which is never given again.")],
        owner_id: Annotated[str, typer.Option("--owner-id", help="The number of its owner, or of its namespace.")],
        workflow: Annotated[str, typer.Option("--workflow", help="The file, such as .github/workflows/release.yml.")],
        environment: Annotated[
            str | None,
            typer.Option("--environment", help="The job must run in it: who may start that, you decide there."),
        ] = None,
        plugin: Annotated[
            list[str] | None, typer.Option("--plugin", help="A plugin that it may release, by name. Default: all.")
        ] = None,
        issuer: Annotated[
            str, typer.Option("--issuer", help="Who vouches for the job: github, gitlab, or an https address.")
        ] = "github",
        key: Annotated[str | None, typer.Option("--key", help="A key on this machine, by its file's name.")] = None,
        json: JsonOption = False,
    ) -> None:
        """Let a CI job release your plugins. Where two must sign, the statement goes into a file for the other."""
        from marketplace.jobs import ANY_PLUGIN, Job

        known = {"github": GITHUB_ISSUER, "gitlab": GITLAB_ISSUER}
        names = tuple(name.removeprefix(f"{publisher}/") for name in plugin or ()) or (ANY_PLUGIN,)
        address = known.get(issuer, issuer).rstrip("/")
        job = Job(address, repository, repository_id, owner_id, workflow, names, environment)
        _change(tree, publisher, lambda jobs: [*(each for each in jobs if each != job), job], job, key, json)

    @group.command("remove")
    @command
    def remove(
        publisher: PublisherArgument,
        job: Annotated[str, typer.Argument(help="The job's id, as `trust-job list` shows it.")],
        key: Annotated[str | None, typer.Option("--key", help="A key on this machine, by its file's name.")] = None,
        json: JsonOption = False,
    ) -> None:
        """Let a CI job release no longer. What it has released stays as it is."""
        from kernel.errors import NotFound

        def without(jobs: list[Any]) -> list[Any]:
            kept = [each for each in jobs if each.id != job]
            if len(kept) == len(jobs):
                raise NotFound(f"{publisher} has no job {job} on its list.", found=job, fix="See `trust-job list`.")
            return kept

        _change(tree, publisher, without, None, key, json)


def sign_in_job(door: Door, settings: Settings, path: Path, audience: str | None) -> tuple[Path, SignedPackage]:
    """Pack a plugin's folder (or take a package) and sign it as the CI job that this runs in; the package's file."""
    from kernel.manifest import load_manifest
    from marketplace.binding import prove_key
    from marketplace.keys import generate_key
    from marketplace.oidc.here import token_here
    from marketplace.package import component_path, read_package
    from marketplace.publishing import read_signed, sign_folder, sign_package

    limit, key = settings.max_package_mb * 1024 * 1024, generate_key()
    if path.is_dir():
        manifest = load_manifest(path)
        signed = sign_folder(path, component_path(path, manifest.short_name), key, max_bytes=limit)
        file = path / "build" / signed.package.file_name
    else:
        data, _ = read_signed(path, max_bytes=limit)
        signed, file = sign_package(data, key, max_bytes=limit), path
        manifest = read_package(data, max_bytes=limit).manifest
    meant = audience or _audience(settings)
    token = token_here(meant, os.environ)
    proof = jsonlib.loads(prove_key(key, token, manifest.id, meant))
    asked = {"token": token, "plugin": manifest.id, "key": key.public.to_dict(), "proof": proof}
    door.request("POST", "/job-keys", json=asked)
    return file, signed


def _audience(settings: Settings) -> str:
    """Whom the token is for: the marketplace whose root is trusted here, and not whoever answers."""
    from marketplace.connect import open_logbook
    from marketplace.oidc.issuers import audience_of

    logbook = open_logbook(settings)
    try:
        return audience_of(logbook.origin())
    finally:
        logbook.close()


def _change(tree: CommandTree, publisher: str, change: Any, added: Any, key: str | None, json: bool) -> None:
    from marketplace.door import open_door
    from marketplace.jobs import read_jobs, sign_jobs

    settings = load_settings()
    by = signing_key(settings, publisher, key)
    with open_door(tree, settings) as door:
        found = door.request("GET", f"/namespaces/{publisher}/jobs")
        before: JobList | None = read_jobs(found["statement"]) if found["statement"] else None
        jobs = change(list(before.jobs) if before else [])
        taken = hand_in(door, sign_jobs(publisher, before, jobs, by))
    rows = {"namespace": publisher, "list": f"v{taken['version']}", "jobs": len(taken["jobs"])}
    if added is not None:
        rows["added"] = added.id
    show({**taken, "jobs": [{"id": _job(job).id, **job} for job in taken["jobs"]]}, json, lambda: print_rows(rows))


def _job(said: dict[str, Any]) -> Any:
    from marketplace.jobs import Job

    return Job(**{**said, "plugins": tuple(said["plugins"])})


def _row(publisher: str, job: dict[str, Any]) -> list[Any]:
    plugins = ", ".join(f"{publisher}/{name}" for name in job["plugins"])
    place = f"{job['repository']} ({job['repository_id']} of {job['owner_id']})"
    return [_job(job).id, place, job["workflow"], job["environment"] or "any", plugins, job["issuer"]]
