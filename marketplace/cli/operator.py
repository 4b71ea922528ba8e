"""The operator's commands: trust, serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marketplace.cli.shared import MARKETPLACE_HELP, load_settings, print_rows
from plugin_sdk.terminal import CommandTree, JsonOption, command, show


def add_operator_commands(tree: CommandTree) -> None:
    """Add them to the group ``marketplace``."""
    group = tree.group("marketplace", MARKETPLACE_HELP)

    @group.command("trust")
    @command
    def trust(
        root: Annotated[Path | None, typer.Argument(help="Root metadata, got from the marketplace's operator.")] = None,
        first_use: Annotated[
            bool, typer.Option("--first-use", help="Fetch the root from KEELSTONE_MARKETPLACE_URL and trust it.")
        ] = False,
        json: JsonOption = False,
    ) -> None:
        """Pin the root that everything from a marketplace is checked against."""
        from marketplace.pinning import fetch_root, pin_root

        settings = load_settings()
        body = fetch_root(settings, root, first_use=first_use)
        pinned = pin_root(settings, body)
        show(pinned, json, lambda: print_rows(pinned))

    @group.command("serve")
    @command
    def serve(
        host: Annotated[str | None, typer.Option("--host", help="Address. Default: KEELSTONE_HOST.")] = None,
        port: Annotated[int | None, typer.Option("--port", help="Port. Default: KEELSTONE_PORT.")] = None,
        open_namespaces: Annotated[
            bool, typer.Option(help="Whether anybody may register a namespace that is free.")
        ] = True,
    ) -> None:
        """Run the marketplace as a service of its own, over the data folder."""
        from marketplace.serving import serve_registry

        settings = load_settings()
        serve_registry(
            settings, host or settings.host, settings.port if port is None else port, open_namespaces=open_namespaces
        )
