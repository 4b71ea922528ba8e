"""A tenant admin's commands for plugins' secrets."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.table import Table

from api.cli.tenant import PluginArgument, TenantArgument
from kernel.errors import ValidationFailed
from plugin_sdk.terminal import CommandTree, JsonOption, command, out, show

NameArgument = Annotated[str, typer.Argument(help="The secret's name, as the plugin's manifest has it.")]


def register(tree: CommandTree) -> None:
    """Add the group ``secret``."""
    group = tree.group("secret", "Enter secrets that plugins may have sent and can never read.")

    @group.command("list")
    @command
    def list_secrets(tenant: TenantArgument, plugin: PluginArgument, json: JsonOption = False) -> None:
        """List the secrets that a plugin asks for, and whether they were entered; never their values."""
        with tree.platform() as platform:
            found = platform.request("GET", _path(tenant, plugin), tenant=tenant)

        def text() -> None:
            table = Table("secret", "entered", "sent to", "in", "why", box=None)
            for item in found:
                state = "yes" if item["entered"] else "no"
                table.add_row(item["name"], state, ", ".join(item["hosts"]), ", ".join(item["places"]), item["why"])
            out.print(table)

        show(found, json, text)

    @group.command("set")
    @command
    def set_secret(
        tenant: TenantArgument, plugin: PluginArgument, name: NameArgument, json: JsonOption = False
    ) -> None:
        """Enter or replace a secret. Its value is asked for, or read from standard input: an argument would
        stay in the shell's history."""
        value = _read(name)
        with tree.platform() as platform:
            platform.request("PUT", f"{_path(tenant, plugin)}/{name}", json={"value": value}, tenant=tenant)
        answer = {"plugin": plugin, "name": name, "entered": True}
        show(answer, json, lambda: out.print(f"{name} of {plugin} is kept for {tenant}.", markup=False))

    @group.command("remove")
    @command
    def remove_secret(
        tenant: TenantArgument, plugin: PluginArgument, name: NameArgument, json: JsonOption = False
    ) -> None:
        """Delete a secret."""
        with tree.platform() as platform:
            platform.request("DELETE", f"{_path(tenant, plugin)}/{name}", tenant=tenant)
        answer = {"plugin": plugin, "name": name, "entered": False}
        show(answer, json, lambda: out.print(f"{name} of {plugin} is deleted.", markup=False))


def _path(tenant: str, plugin: str) -> str:
    return f"/api/v1/tenants/{tenant}/activations/{plugin}/secrets"


def _read(name: str) -> str:
    if sys.stdin.isatty():
        return str(typer.prompt(f"Value of {name}", hide_input=True, err=True))
    value = sys.stdin.readline().rstrip("\r\n")
    if not value:
        raise ValidationFailed(
            "There is no value on standard input.", expected="the secret's value in one line", found="nothing"
        )
    return value
