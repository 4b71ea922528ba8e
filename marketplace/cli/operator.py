"""The operator's commands: trust, kill, reach, pages, serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marketplace.cli.shared import MARKETPLACE_HELP, load_settings, print_rows, print_table
from plugin_sdk.terminal import CommandTree, JsonOption, command, out, show


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

    @group.command("kill")
    @command
    def kill(
        plugin: Annotated[str, typer.Argument(help="The plugin's id, publisher/name.")],
        version: Annotated[str, typer.Argument(help="The release to end.")],
        reason: Annotated[str, typer.Option("--reason", help="Why, for everybody who ran it.")],
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
        json: JsonOption = False,
    ) -> None:
        """End a release of this marketplace everywhere, at once and for ever. Needs the marketplace's data folder."""
        from dataclasses import asdict

        from marketplace.datafolder import change

        if not yes:
            typer.confirm(
                f"Platforms will quarantine {plugin} {version} within seconds, and nothing takes that back. End it?",
                abort=True,
                err=True,
            )
        revoked = change(load_settings(), lambda registry: registry.revoke(plugin, version, reason))
        show(asdict(revoked), json, lambda: print_rows(asdict(revoked)))

    @group.command("reach")
    @command
    def reach(
        digest: Annotated[str, typer.Argument(help="SHA-256 of a revoked package, as `marketplace kill` printed it.")],
        json: JsonOption = False,
    ) -> None:
        """Say which platforms have carried out a revocation, and how long it took."""
        from marketplace.revoking import reach_here

        found = reach_here(load_settings(), digest)

        def text() -> None:
            print_rows({k: found[k] for k in ("plugin", "version", "reason", "at", "platforms", "had_it", "slowest")})
            columns = ("platform", "had it", "seconds")
            rows = [[r["host"], "yes" if r["installed"] else "no", f"{r['seconds']:.1f}"] for r in found["reached"]]
            print_table(columns, rows, "No platform has reported yet.")

        show(found, json, text)

    @group.command("pages")
    @command
    def pages(
        at: Annotated[
            str | None, typer.Option("--at", help="Where it is served. Default: 127.0.0.1 and KEELSTONE_PORT.")
        ] = None,
        json: JsonOption = False,
    ) -> None:
        """Print a link to the operator's pages, for this machine's browser, once. Needs the data folder."""
        from marketplace.desklink import make_desk_link

        settings = load_settings()
        link = make_desk_link(settings, at or f"127.0.0.1:{settings.port}")
        show({"link": link}, json, lambda: out.print(link, markup=False, soft_wrap=True))

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
