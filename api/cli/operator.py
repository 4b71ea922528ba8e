"""An operator's commands: install, upgrade, roll back, uninstall; tenants."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.table import Table

from kernel.errors import NotFound
from marketplace.cli.shared import MARKETPLACE_HELP
from plugin_sdk.terminal import EXIT_REFUSED, CommandTree, JsonOption, command, out, progress, show

PluginArgument = Annotated[str, typer.Argument(help="publisher/name")]


def register(tree: CommandTree) -> None:
    """Add the commands to the group ``marketplace``, beside search and info."""
    group = tree.group("marketplace", MARKETPLACE_HELP)

    @group.command("install")
    @command
    def install(
        plugin: PluginArgument,
        version: Annotated[str, typer.Option(help="A range; the newest fitting release is taken.")] = "*",
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be installed.")] = False,
        bundle: Annotated[
            Path | None,
            typer.Option("--from", help="A bundle, instead of the marketplace: frozen at the moment it was made."),
        ] = None,
        older: Annotated[
            bool, typer.Option("--older", help="Even if the bundle is older than what is known here.")
        ] = False,
        json: JsonOption = False,
    ) -> None:
        """Verify, compile and install a plugin with what it requires."""
        body = {"plugin": plugin, "version": version, "dry_run": dry_run}
        with tree.platform() as platform, progress(f"Installing {plugin}", json=json):
            if bundle is None:
                releases = platform.request("POST", "/api/v1/plugins/install", json=body)
            else:
                with open_file(bundle) as file:
                    told = {"plugin": plugin, "version": version, "dry_run": str(dry_run), "older": str(older)}
                    fields = {name: (None, value) for name, value in told.items()}
                    parts = {"bundle": (bundle.name, file, "application/zip"), **fields}
                    releases = platform.request("POST", "/api/v1/bundles/install", files=parts)
            page = platform.request("GET", f"/api/v1/plugins/{plugin}") if not dry_run else None

        def text() -> None:
            for release in releases:
                verb = "Would install" if dry_run else "Installed"
                out.print(f"{verb} [bold]{release['id']}[/] {release['version']}")
            if page:
                for link in page["chain"]:
                    out.print(f"  checked: {link}", style="green", markup=False)
                out.print(f"Next: keelstone tenant enable TENANT {plugin}")

        show(releases, json, text)

    @group.command("upgrade")
    @command
    def upgrade(
        plugin: PluginArgument,
        version: Annotated[str | None, typer.Option(help="The version; the newest if left out.")] = None,
        json: JsonOption = False,
    ) -> None:
        """Move every tenant that follows to another version; calls under way end in the old one."""
        with tree.platform() as platform, progress(f"Upgrading {plugin}", json=json):
            moves = platform.request("POST", f"/api/v1/plugins/{plugin}/upgrade", json={"version": version})
        show(moves, json, lambda: _moves(moves))
        _fail_if_stuck(moves)

    @group.command("rollback")
    @command
    def rollback(plugin: PluginArgument, json: JsonOption = False) -> None:
        """Move every tenant back to the version it ran before."""
        with tree.platform() as platform, progress(f"Rolling back {plugin}", json=json):
            moves = platform.request("POST", f"/api/v1/plugins/{plugin}/rollback")
        show(moves, json, lambda: _moves(moves))
        _fail_if_stuck(moves)

    @group.command("uninstall")
    @command
    def uninstall(
        plugin: PluginArgument,
        version: Annotated[str | None, typer.Option(help="Only this version.")] = None,
        data: Annotated[str, typer.Option(help="retain, purge or export the plugin's data.")] = "retain",
        json: JsonOption = False,
    ) -> None:
        """Take a plugin off the platform and say what is left of it."""
        params = {"version": version, "data": data}
        with tree.platform() as platform:
            removal = platform.request("DELETE", f"/api/v1/plugins/{plugin}", params=params)

        def text() -> None:
            out.print(f"Uninstalled {plugin} {', '.join(removal['versions'])}.")
            if removal["kept_keys"]:
                out.print(f"  {removal['kept_keys']} stored keys are kept for a later install.")
            if removal["exported"] is not None:
                out.print_json(data=removal["exported"])
            left = ", ".join(removal["residue"]) or "nothing"
            out.print(f"  Residue: {left}", style="red" if removal["residue"] else "green")

        show(removal, json, text)

    @group.command("installed")
    @command
    def installed(json: JsonOption = False) -> None:
        """List what is installed on the platform."""
        with tree.platform() as platform:
            found = platform.request("GET", "/api/v1/plugins")

        def text() -> None:
            table = Table("plugin", "version", "kind", "state", "hooks", box=None)
            for item in found:
                table.add_row(item["id"], item["version"], item["kind"], item["state"], ", ".join(item["hooks"]))
            out.print(table)

        show(found, json, text)


def open_file(file: Path) -> BinaryIO:
    """The file, open for reading. Raises NotFound."""
    try:
        return file.open("rb")
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}.", file=str(file)) from error


def _moves(moves: list[dict[str, Any]]) -> None:
    if not moves:
        out.print("No tenant had to move.")
    for move in moves:
        if move["error"]:
            out.print(f"  {move['tenant']}: stays on {move['before']}: {move['error']}", style="red", markup=False)
            continue
        ask = f"; asks for {', '.join(move['needs_consent'])} (denied for now)" if move["needs_consent"] else ""
        out.print(f"  {move['tenant']}: {move['before']} -> {move['after']}{ask}", markup=False)


def _fail_if_stuck(moves: list[dict[str, Any]]) -> None:
    if any(m["error"] for m in moves):
        raise typer.Exit(EXIT_REFUSED)
