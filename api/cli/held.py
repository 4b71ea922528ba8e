"""Held updates from the command line: an operator's in the group ``marketplace``, an admin's in ``tenant``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli.tenant import TENANT_HELP, PluginArgument, TenantArgument
from marketplace.cli.shared import MARKETPLACE_HELP, print_rows, print_table
from plugin_sdk.terminal import CommandTree, JsonOption, command, out, show

VersionArgument = Annotated[str, typer.Argument(help="The version that is held.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why you trust it, for whoever reads it later.")]


def register(tree: CommandTree) -> None:
    """Add ``held`` and ``allow`` to both groups."""
    operators, admins = tree.group("marketplace", MARKETPLACE_HELP), tree.group("tenant", TENANT_HELP)

    def ask(tenant: str | None, method: str, path: str = "", **options: Any) -> Any:
        base = "/api/v1/held-updates" if tenant is None else f"/api/v1/tenants/{tenant}/held-updates"
        with tree.platform() as platform:
            return platform.request(method, base + path, tenant=tenant, **options)

    def held(tenant: str | None, json: bool) -> None:
        found = ask(tenant, "GET")
        show(found, json, lambda: _show(found))

    def new_owners(tenant: str | None, json: bool) -> None:
        with tree.platform() as platform:
            found = platform.request("GET", "/api/v1/plugins/new-owners", tenant=tenant)
        show(found, json, lambda: _show_owners(found))

    def allow(tenant: str | None, plugin: str, version: str, reason: str, json: bool) -> None:
        done = ask(tenant, "POST", "/allow", json={"plugin": plugin, "version": version, "reason": reason})
        where = "in every tenant" if tenant is None else f"in {tenant}"

        def text() -> None:
            print_rows({"plugin": plugin, "version": version, "state": f"allowed {where}", "reason": reason})
            out.print("It comes with the next upgrade: `keelstone marketplace upgrade`.", style="dim", markup=False)

        show(done, json, text)

    @operators.command("held")
    @command
    def held_everywhere(json: JsonOption = False) -> None:
        """List updates that wait until a person allows them: somebody else stands behind them than behind what runs."""
        held(None, json)

    @operators.command("new-owners")
    @command
    def owners_everywhere(json: JsonOption = False) -> None:
        """List active plugins that belong to somebody else than when they came: their updates wait."""
        new_owners(None, json)

    @admins.command("new-owners")
    @command
    def owners_here(tenant: TenantArgument, json: JsonOption = False) -> None:
        """List the tenant's active plugins that belong to somebody else than when they came."""
        new_owners(tenant, json)

    @operators.command("allow")
    @command
    def allow_everywhere(
        plugin: PluginArgument, version: VersionArgument, reason: ReasonOption, json: JsonOption = False
    ) -> None:
        """Let a held update through, in every tenant."""
        allow(None, plugin, version, reason, json)

    @admins.command("held")
    @command
    def held_here(tenant: TenantArgument, json: JsonOption = False) -> None:
        """List the tenant's updates behind which somebody else stands than behind what runs."""
        held(tenant, json)

    @admins.command("allow")
    @command
    def allow_here(
        tenant: TenantArgument,
        plugin: PluginArgument,
        version: VersionArgument,
        reason: ReasonOption,
        json: JsonOption = False,
    ) -> None:
        """Let a held update through, in this tenant."""
        allow(tenant, plugin, version, reason, json)


def _show_owners(found: list[dict[str, Any]]) -> None:
    rows = [[f"{o['plugin']} {o['version']}", o["tenant"], o["why"], o["until"] or ""] for o in found]
    print_table(("plugin", "tenant", "why", "updates wait until"), rows, "Everything belongs to whom it came from.")


def _show(found: list[dict[str, Any]]) -> None:
    rows = [
        [f"{h['plugin']} {h['version']}", h["tenant"], h["state"], "; ".join(d["words"] for d in h["doubts"])]
        for h in found
    ]
    print_table(("update", "tenant", "state", "why"), rows, "No update is held.")
