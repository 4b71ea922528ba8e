"""Rating a plugin from the command line, in the group ``tenant``."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.tenant import TENANT_HELP, PluginArgument, TenantArgument
from plugin_sdk.terminal import CommandTree, JsonOption, command, out, show


def register(tree: CommandTree) -> None:
    """Add the command to the group ``tenant``."""
    group = tree.group("tenant", TENANT_HELP)

    @group.command("rate")
    @command
    def rate(
        tenant: TenantArgument,
        plugin: PluginArgument,
        stars: Annotated[int, typer.Option("--stars", min=1, max=5, help="1 (bad) to 5 (good).")],
        text: Annotated[str, typer.Option("--text", help="Why, for everybody to read.")] = "",
        json: JsonOption = False,
    ) -> None:
        """Rate the version of a plugin that is on for the tenant. Replaces what the tenant said of it before; the
        marketplace learns neither who the tenant is nor what else it runs."""
        with tree.platform() as platform:
            path = f"/api/v1/tenants/{tenant}/activations/{plugin}/rating"
            rated = platform.request("PUT", path, json={"stars": stars, "text": text}, tenant=tenant)
        what, who = f"{rated['plugin']} {rated['version']}", f"{rated['tenant']} on {rated['platform']}"
        what, who = f"{rated['plugin']} {rated['version']}", f"{rated['tenant']} on {rated['platform']}"
        said = f"{what}: {rated['stars']} of 5, as {who}."
        show(rated, json, lambda: out.print(said, markup=False))
