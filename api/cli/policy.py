"""Policies from the command line: an operator's in the group ``marketplace``, an admin's in ``tenant``."""

from __future__ import annotations

import json as jsonlib
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from api.cli.tenant import TENANT_HELP, PluginArgument, TenantArgument
from kernel.errors import ValidationFailed
from marketplace.cli.shared import MARKETPLACE_HELP
from plugin_sdk.terminal import EXIT_FAILED, CommandTree, JsonOption, command, out, show

FileArgument = Annotated[
    Path, typer.Argument(help="The policy, as TOML or (*.json) JSON.", exists=True, dir_okay=False)
]
VersionArgument = Annotated[str, typer.Argument(help="The release's version.")]
RequestArgument = Annotated[str, typer.Argument(help="The request's id.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for whoever decides.")]
AnswerOption = Annotated[str, typer.Option(help="Why, for whoever asked.")]
DaysOption = Annotated[float | None, typer.Option(help="Days that it holds; for good if left out.")]
ReplacesOption = Annotated[
    int | None, typer.Option(help="Refuse unless this is the version it replaces (0: there is none).")
]


def register(tree: CommandTree) -> None:
    """Add ``policy`` and ``requests`` to both groups."""
    desk = _Desk(tree)
    _operators(tree, desk)
    _admins(tree, desk)


class _Desk:
    """What both groups do; ``tenant`` None is the operator's."""

    def __init__(self, tree: CommandTree) -> None:
        self._tree = tree

    def _ask(self, tenant: str | None, method: str, path: str = "", **options: Any) -> Any:
        base = "/api/v1/policy" if tenant is None else f"/api/v1/tenants/{tenant}/policy"
        with self._tree.platform() as platform:
            return platform.request(method, base + path, tenant=tenant, **options)

    def show(self, tenant: str | None, json: bool) -> None:
        found = self._ask(tenant, "GET")
        show(found, json, lambda: _show_policy(found))

    def set(self, tenant: str | None, file: Path, replaces: int | None, json: bool) -> None:
        found = self._ask(tenant, "PUT", json={"policy": read_policy(file), "version": replaces})
        show(found, json, lambda: _show_policy(found))

    def clear(self, tenant: str | None, json: bool) -> None:
        found = self._ask(tenant, "DELETE")
        show(found, json, lambda: _show_policy(found))

    def dry_run(self, tenant: str | None, file: Path, json: bool) -> None:
        found = self._ask(tenant, "POST", "/dry-run", json={"policy": read_policy(file)})

        def text() -> None:
            _show_nonconforming(found["nonconforming"])
            verdict = "It would block what is listed" if found["blocks"] else "It would block nothing that is here"
            out.print(f"{verdict}; nothing was changed.")

        show(found, json, text)
        if found["blocks"]:
            raise typer.Exit(EXIT_FAILED)

    def requests(self, tenant: str | None, all: bool, json: bool) -> None:
        found = [r for r in self._ask(tenant, "GET", "/requests") if all or r["state"] in ("open", "approved")]

        def text() -> None:
            table = Table("request", "tenant", "plugin", "version", "state", "decided by", "reason", box=None)
            for r in found:
                state = f"{r['state']} until {r['expires_at']}" if r["expires_at"] else r["state"]
                table.add_row(r["id"], r["tenant"], r["plugin"], r["version"], state, _decider(r), r["reason"])
            out.print(table)

        show(found, json, text)

    def request(self, tenant: str | None, plugin: str, version: str, reason: str, json: bool) -> None:
        body = {"plugin": plugin, "version": version, "reason": reason}
        found = self._ask(tenant, "POST", "/requests", json=body)

        def text() -> None:
            for r in found:
                out.print(f"Asked {_decider(r)}: request {r['id']}", markup=False)
                for finding in r["findings"]:
                    out.print(f"  {finding}", markup=False)

        show(found, json, text)

    def decide(self, tenant: str | None, id: str, verb: str, body: dict[str, Any], json: bool) -> None:
        done = self._ask(tenant, "POST", f"/requests/{id}/{verb}", json=body)
        what = f"{done['plugin']} {done['version']} for {done['tenant']}: {done['state']}"
        show(done, json, lambda: out.print(what, markup=False))


def _operators(tree: CommandTree, desk: _Desk) -> None:
    group = tree.group("marketplace", MARKETPLACE_HELP)
    policy = _subgroup(group, "policy", "Say which plugins may come in, for everybody.")

    @policy.command("show")
    @command
    def show_policy(json: JsonOption = False) -> None:
        """Show the platform's policy, what does not conform to it, and the exceptions."""
        desk.show(None, json)

    @policy.command("set")
    @command
    def set_policy(file: FileArgument, replaces: ReplacesOption = None, json: JsonOption = False) -> None:
        """Set the platform's policy. Nothing that runs is switched off; what no longer conforms is told."""
        desk.set(None, file, replaces, json)

    @policy.command("clear")
    @command
    def clear(json: JsonOption = False) -> None:
        """Take the platform's policy away."""
        desk.clear(None, json)

    @policy.command("dry-run")
    @command
    def dry_run(file: FileArgument, json: JsonOption = False) -> None:
        """Say what a policy would block of what is installed, and change nothing. Ends with 1 if it would."""
        desk.dry_run(None, file, json)

    requests = _subgroup(group, "requests", "Requests for an exception from the platform's policy.")

    @requests.command("list")
    @command
    def list_requests(
        all: Annotated[bool, typer.Option("--all", help="Declined and revoked ones too.")] = False,
        json: JsonOption = False,
    ) -> None:
        """List what was asked for and approved, in every tenant."""
        desk.requests(None, all, json)

    @requests.command("ask")
    @command
    def ask(plugin: PluginArgument, version: VersionArgument, reason: ReasonOption, json: JsonOption = False) -> None:
        """Ask for an exception that is for every tenant."""
        desk.request(None, plugin, version, reason, json)

    @requests.command("approve")
    @command
    def approve(
        request: RequestArgument, days: DaysOption = None, answer: AnswerOption = "", json: JsonOption = False
    ) -> None:
        """Let exactly that release in, for the tenant that asked."""
        desk.decide(None, request, "approve", _approval(days, answer), json)

    @requests.command("decline")
    @command
    def decline(request: RequestArgument, answer: AnswerOption = "", json: JsonOption = False) -> None:
        """Decline a request."""
        desk.decide(None, request, "decline", {"answer": answer}, json)

    @requests.command("revoke")
    @command
    def revoke(request: RequestArgument, answer: AnswerOption = "", json: JsonOption = False) -> None:
        """Take an approval back: what runs goes on, nothing new comes in."""
        desk.decide(None, request, "revoke", {"answer": answer}, json)


def _admins(tree: CommandTree, desk: _Desk) -> None:
    group = tree.group("tenant", TENANT_HELP)
    policy = _subgroup(group, "policy", "Say which plugins may come in, for a tenant; the platform's policy holds too.")

    @policy.command("show")
    @command
    def show_policy(tenant: TenantArgument, json: JsonOption = False) -> None:
        """Show the tenant's policy, what does not conform to it or to the platform's, and the exceptions."""
        desk.show(tenant, json)

    @policy.command("set")
    @command
    def set_policy(
        tenant: TenantArgument, file: FileArgument, replaces: ReplacesOption = None, json: JsonOption = False
    ) -> None:
        """Set the tenant's policy. Nothing that runs is switched off; what no longer conforms is told."""
        desk.set(tenant, file, replaces, json)

    @policy.command("clear")
    @command
    def clear(tenant: TenantArgument, json: JsonOption = False) -> None:
        """Take the tenant's policy away; the platform's still holds."""
        desk.clear(tenant, json)

    @policy.command("dry-run")
    @command
    def dry_run(tenant: TenantArgument, file: FileArgument, json: JsonOption = False) -> None:
        """Say what a policy would block of what is active, and change nothing. Ends with 1 if it would."""
        desk.dry_run(tenant, file, json)

    requests = _subgroup(group, "requests", "Requests for an exception from a policy.")

    @requests.command("list")
    @command
    def list_requests(
        tenant: TenantArgument,
        all: Annotated[bool, typer.Option("--all", help="Declined and revoked ones too.")] = False,
        json: JsonOption = False,
    ) -> None:
        """List what the tenant asked for, of its own admins and of the operator."""
        desk.requests(tenant, all, json)

    @requests.command("ask")
    @command
    def ask(
        tenant: TenantArgument,
        plugin: PluginArgument,
        version: VersionArgument,
        reason: ReasonOption,
        json: JsonOption = False,
    ) -> None:
        """Ask that a release be let in although a policy stands against it."""
        desk.request(tenant, plugin, version, reason, json)

    @requests.command("approve")
    @command
    def approve(
        tenant: TenantArgument,
        request: RequestArgument,
        days: DaysOption = None,
        answer: AnswerOption = "",
        json: JsonOption = False,
    ) -> None:
        """Except exactly that release from the tenant's policy."""
        desk.decide(tenant, request, "approve", _approval(days, answer), json)

    @requests.command("decline")
    @command
    def decline(
        tenant: TenantArgument, request: RequestArgument, answer: AnswerOption = "", json: JsonOption = False
    ) -> None:
        """Decline a request."""
        desk.decide(tenant, request, "decline", {"answer": answer}, json)

    @requests.command("revoke")
    @command
    def revoke(
        tenant: TenantArgument, request: RequestArgument, answer: AnswerOption = "", json: JsonOption = False
    ) -> None:
        """Take an approval back: what runs goes on, nothing new comes in."""
        desk.decide(tenant, request, "revoke", {"answer": answer}, json)


def _subgroup(group: typer.Typer, name: str, help: str) -> typer.Typer:
    made = typer.Typer(help=help, no_args_is_help=True)
    group.add_typer(made, name=name)
    return made


def read_policy(file: Path) -> dict[str, Any]:
    """The document in a file, TOML or JSON. Raises ValidationFailed; what is in it, the platform checks."""
    parse: Callable[[str], Any] = jsonlib.loads if file.suffix == ".json" else tomllib.loads
    try:
        found = parse(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValidationFailed(
            f"The policy can't be read: {error}.", file=str(file), expected="TOML or JSON"
        ) from error
    if not isinstance(found, dict):
        raise ValidationFailed("A policy is a table of rules.", file=str(file), found=type(found).__name__)
    return found


def _approval(days: float | None, answer: str) -> dict[str, Any]:
    until = None if days is None else (datetime.now(UTC) + timedelta(days=days)).isoformat()
    return {"answer": answer, "expires_at": until}


def _decider(request: dict[str, Any]) -> str:
    return "the operator" if request["level"] == "operator" else "the tenant's admins"


def _show_policy(found: dict[str, Any]) -> None:
    if found["policy"] is None:
        out.print("There is no policy of its own: nothing stands against any plugin.")
    else:
        out.print(f"Version {found['version']}, set {found['changed_at']} by {found['changed_by']}", markup=False)
        out.print_json(data=_said(found["policy"]))
    if found["operator"]:
        out.print("The platform's policy holds too:")
        out.print_json(data=_said(found["operator"]))
    _show_nonconforming(found["nonconforming"])
    for r in found["approvals"]:
        until = f" until {r['expires_at']}" if r["expires_at"] else ""
        out.print(f"Excepted{until}: {r['plugin']} {r['version']} for {r['tenant']} ({r['reason']})", markup=False)


def _said(policy: dict[str, Any]) -> dict[str, Any]:
    """The rules that say something."""
    return {name: rule for name, rule in policy.items() if rule not in ([], {}, "any", 0, 0.0)}


def _show_nonconforming(found: list[dict[str, Any]]) -> None:
    for item in found:
        where = f" in {item['tenant']}" if item["tenant"] else ""
        out.print(f"{item['plugin']} {item['version']}{where} does not conform:", style="yellow", markup=False)
        for finding in item["findings"]:
            out.print(f"  {finding['rule']}: {finding['detail']} ({finding['who']} may change it)", markup=False)
