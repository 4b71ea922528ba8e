"""A tenant admin's commands: enable, disable, settings, grants."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated, Any

import typer
from rich.table import Table

from kernel.errors import ValidationFailed
from plugin_sdk.terminal import CommandTree, JsonOption, command, err, out, show

TENANT_HELP = "Switch plugins on and off for a tenant; consent to what they ask for."
TenantArgument = Annotated[str, typer.Argument(help="The tenant's id.")]
PluginArgument = Annotated[str, typer.Argument(help="publisher/name")]
Assignments = Annotated[list[str] | None, typer.Option("--set", help="name=value; the value is JSON, or else text.")]


def register(tree: CommandTree) -> None:
    """Add the group ``tenant``."""
    group = tree.group("tenant", TENANT_HELP)

    @group.command("enable")
    @command
    def enable(
        tenant: TenantArgument,
        plugin: PluginArgument,
        grant: Annotated[
            str | None, typer.Option(help="Capabilities to grant: all, none, or names with commas. Asks if left out.")
        ] = None,
        version: Annotated[str | None, typer.Option(help="A version; the newest installed if left out.")] = None,
        assign: Assignments = None,
        json: JsonOption = False,
    ) -> None:
        """Show what the plugin asks for, take the decision and switch it on."""
        path = _path(tenant, plugin)
        with tree.platform() as platform:
            asked = platform.request("GET", f"{path}/consent", params={"version": version}, tenant=tenant)
            if not json:
                _show_request(plugin, tenant, asked)
            body: dict[str, Any] = {"version": version, "grants": _decide(asked, grant, json)}
            if assign:
                body["settings"] = assignments(assign)
            activation = platform.request("PUT", path, json=body, tenant=tenant)
        show(activation, json, lambda: _show_activation(activation, "is active"))

    @group.command("disable")
    @command
    def disable(tenant: TenantArgument, plugin: PluginArgument, json: JsonOption = False) -> None:
        """Switch a plugin off; its settings, grants and state stay."""
        with tree.platform() as platform:
            activation = platform.request("DELETE", _path(tenant, plugin), tenant=tenant)
        show(activation, json, lambda: _show_activation(activation, "is off"))

    @group.command("settings")
    @command
    def settings(
        tenant: TenantArgument, plugin: PluginArgument, assign: Assignments = None, json: JsonOption = False
    ) -> None:
        """Show a plugin's settings, or change some with --set."""
        path = _path(tenant, plugin)
        with tree.platform() as platform:
            activation = platform.request("GET", path, tenant=tenant)
            if assign:
                changed = {**activation["settings"], **assignments(assign)}
                changed = {name: value for name, value in changed.items() if value is not None}
                activation = platform.request("PUT", f"{path}/settings", json=changed, tenant=tenant)
        show(activation["settings"], json, lambda: out.print_json(data=activation["settings"]))

    @group.command("grants")
    @command
    def grants(
        tenant: TenantArgument,
        plugin: PluginArgument,
        grant: Annotated[str | None, typer.Option(help="Capabilities to grant, with commas.")] = None,
        deny: Annotated[str | None, typer.Option(help="Capabilities to deny, with commas.")] = None,
        json: JsonOption = False,
    ) -> None:
        """Show what a plugin may do for the tenant, or decide again."""
        path = _path(tenant, plugin)
        with tree.platform() as platform:
            decisions = dict.fromkeys(_names(grant), True) | dict.fromkeys(_names(deny), False)
            if decisions:
                platform.request("PUT", f"{path}/grants", json=decisions, tenant=tenant)
            asked = platform.request("GET", f"{path}/consent", tenant=tenant)
        show(asked, json, lambda: _show_request(plugin, tenant, asked))

    @group.command("changes")
    @command
    def changes(
        tenant: TenantArgument,
        plugin: PluginArgument,
        to: Annotated[str | None, typer.Option("--to", help="An installed version; the newest if left out.")] = None,
        json: JsonOption = False,
    ) -> None:
        """Say in plain words what another version may do that the present one may not. On the newest already: what
        it may do that the one before might not."""
        with tree.platform() as platform:
            found = platform.request("GET", f"{_path(tenant, plugin)}/changes", params={"version": to}, tenant=tenant)
        show(found, json, lambda: _show_changes(plugin, found))

    @group.command("plugins")
    @command
    def plugins(tenant: TenantArgument, json: JsonOption = False) -> None:
        """List what is, or was, on for the tenant."""
        with tree.platform() as platform:
            found = platform.request("GET", f"/api/v1/tenants/{tenant}/activations", tenant=tenant)

        def text() -> None:
            table = Table("plugin", "version", "state", "grants", "denied", "policy", box=None)
            for item in found:
                grants, denied = ", ".join(item["grants"]), ", ".join(item["denied"])
                policy = "; ".join(item["policy"])
                table.add_row(item["plugin"], item["version"], item["state"], grants, denied, policy)
            out.print(table)
            for item in found:
                if item["newer"]:
                    newer = item["newer"]
                    out.print(f"{item['plugin']} {newer['after']} is here too: {newer['summary']}", markup=False)
                    if newer["needs_consent"]:
                        out.print(f"  to decide on: {', '.join(newer['needs_consent'])}", markup=False)

        show(found, json, text)

    @group.command("pin")
    @command
    def pin(
        tenant: TenantArgument,
        plugin: PluginArgument,
        off: Annotated[bool, typer.Option("--off", help="Follow upgrades again.")] = False,
        json: JsonOption = False,
    ) -> None:
        """Stay on the present version when the operator upgrades."""
        with tree.platform() as platform:
            path = f"{_path(tenant, plugin)}/pin"
            activation = platform.request("PUT", path, json={"pinned": not off}, tenant=tenant)
        state = "follows upgrades" if off else f"stays on {activation['version']}"
        show(activation, json, lambda: _show_activation(activation, state))


def _show_changes(plugin: str, found: dict[str, Any]) -> None:
    out.print(f"{plugin} {found['before']} -> {found['after']}", markup=False)
    for change in found["changes"]:
        out.print(f"  {change['words']}", style="yellow" if change["widens"] else "", markup=False)
    if not found["changes"]:
        out.print(f"  {found['summary']}", markup=False)
    if found["needs_consent"]:
        out.print(f"To decide on: {', '.join(found['needs_consent'])}", markup=False)


def _path(tenant: str, plugin: str) -> str:
    return f"/api/v1/tenants/{tenant}/activations/{plugin}"


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def assignments(pairs: list[str]) -> dict[str, Any]:
    """Settings out of ``name=value`` pairs; a value that is JSON is taken as such. Raises ValidationFailed."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            raise ValidationFailed(f"{pair!r} is not an assignment.", expected="name=value", found=pair)
        try:
            values[name] = jsonlib.loads(text)
        except ValueError:
            values[name] = text
    return values


def _decide(asked: list[dict[str, Any]], grant: str | None, json: bool) -> dict[str, bool]:
    open_questions = [a for a in asked if a["decision"] == "undecided"]
    if grant is not None:
        names = [a["name"] for a in asked]
        wanted = names if grant == "all" else [] if grant == "none" else _names(grant)
        return {name: name in wanted for name in {*names, *wanted}}
    if json or not open_questions:
        # Nobody is there to ask: the platform answers what is missing.
        return {}
    # What a policy forbids is not worth a question.
    return {
        a["name"]: not a["policy"] and typer.confirm(f"Grant {a['name']}?", default=False, err=True)
        for a in open_questions
    }


def _show_request(plugin: str, tenant: str, asked: list[dict[str, Any]]) -> None:
    if not asked:
        err.print(f"{plugin} asks for nothing in {tenant}.")
    for item in asked:
        err.print(f"[bold]{item['name']}[/] ({item['decision']})", markup=True)
        for label, key in (("", "what"), ("why: ", "why"), ("at worst: ", "worst"), ("not to be granted: ", "policy")):
            if item[key]:
                err.print(f"  {label}{item[key]}", markup=False)


def _show_activation(activation: dict[str, Any], state: str) -> None:
    out.print(f"{activation['plugin']} {activation['version']} {state}.", markup=False)
    if activation["grants"] or activation["denied"]:
        out.print(f"  may: {', '.join(activation['grants']) or 'nothing'}", markup=False)
    if activation["denied"]:
        out.print(f"  may not: {', '.join(activation['denied'])}", markup=False)
