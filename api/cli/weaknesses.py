"""What runs here, looked at from outside: known weaknesses, and who ran a package."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from api.cli.metering import PLUGINS_HELP, OneTenant
from plugin_sdk.terminal import CommandTree, JsonOption, command, out, show


def register(tree: CommandTree) -> None:
    """Add the commands to the group ``plugins``."""
    group = tree.group("plugins", PLUGINS_HELP)

    @group.command("runs")
    @command
    def runs(
        digest: Annotated[str, typer.Argument(help="SHA-256 of a package.")],
        tenant: OneTenant = None,
        json: JsonOption = False,
    ) -> None:
        """Say who ran a package, with which grants, since and until when, and by whose word."""
        with tree.platform() as platform:
            found = platform.request("GET", f"/api/v1/runs/{digest}", tenant=tenant)

        def text() -> None:
            table = Table("tenant", "version", "since", "until", "granted", "by", "receipt", box=None)
            for each in found:
                until = each["until"] or "now"
                said = [", ".join(each["granted"]) or "nothing", each["by"], each["receipt"][:16]]
                table.add_row(each["tenant"], each["version"], each["since"], until, *said)
            out.print(table if found else "No tenant has run it.")

        show(found, json, text)

    @group.command("advisories")
    @command
    def advisories(
        tenant: OneTenant = None,
        installed: Annotated[
            bool, typer.Option("--installed", help="Everything installed, whether it is active or not.")
        ] = False,
        json: JsonOption = False,
    ) -> None:
        """Show active plugins with a known weakness, and the versions without it. Ends with 1 if there is one."""
        with tree.platform() as platform:
            path = "/api/v1/plugins/affected" if installed else "/api/v1/plugins/advisories"
            found = platform.request("GET", path, tenant=tenant)

        def text() -> None:
            table = Table("tenant", "plugin", "version", "advisory", "fixed in", "summary", box=None)
            for each in found:
                said = [each[name] for name in ("tenant", "plugin", "version", "advisory")]
                fixed = ", ".join(each["fixed_in"]) or "-"
                table.add_row(*said, fixed, each["summary"].replace("[", "\\["))
            out.print(table if found else "No active plugin has a known weakness.")

        def releases() -> None:
            table = Table("plugin", "version", "advisory", "fixed in", "installed", "run by", "summary", box=None)
            for each in found:
                said = [each[name] for name in ("plugin", "version", "advisory")]
                lists = [", ".join(each[name]) or "-" for name in ("fixed_in", "mends", "tenants")]
                table.add_row(*said, *lists, each["summary"].replace("[", "\\["))
            out.print(table if found else "No installed release has a known weakness.")

        show(found, json, releases if installed else text)
        if found:
            raise typer.Exit(1)
