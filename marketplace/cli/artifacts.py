"""Plugins at OCI registries: oci push, pull."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marketplace.cli.shared import MARKETPLACE_HELP, load_settings, print_rows
from plugin_sdk.terminal import CommandTree, JsonOption, command, out, progress, show


def add_artifact_commands(tree: CommandTree) -> None:
    """Add them to the group ``marketplace oci``."""
    group = typer.Typer(help="Carry plugins through OCI registries, where WebAssembly tools find them, too.")
    tree.group("marketplace", MARKETPLACE_HELP).add_typer(group, name="oci")

    @group.command("push")
    @command
    def push(
        plugin: Annotated[str, typer.Argument(help="The plugin's id, publisher/name.")],
        version: Annotated[str, typer.Argument(help="The release.")],
        target: Annotated[str, typer.Argument(help="HOST/REPOSITORY[:TAG], or oci:FOLDER[:TAG] for a layout.")],
        json: JsonOption = False,
    ) -> None:
        """Put a release at an OCI registry: its component, and the signed package with all proofs as its referrer."""
        from marketplace.oci.carrying import push_here

        with progress("Pushing", json=json):
            pushed = push_here(load_settings(), plugin, version, target)
        show(pushed, json, lambda: print_rows(pushed))

    @group.command("pull")
    @command
    def pull(
        source: Annotated[str, typer.Argument(help="HOST/REPOSITORY:TAG or @sha256:..., or oci:FOLDER:TAG.")],
        folder: Annotated[Path, typer.Option("--output", "-o", help="Folder to keep it in.")] = Path(),
        older: Annotated[
            bool, typer.Option("--older", help="Even if it shows the marketplace as it was before what is known here.")
        ] = False,
        json: JsonOption = False,
    ) -> None:
        """Pull a plugin from an OCI registry, verify it from a root that is trusted here, and keep it as a bundle."""
        from marketplace.oci.carrying import pull_here

        with progress("Pulling and verifying", json=json):
            pulled = pull_here(load_settings(), source, folder, older=older)

        def text() -> None:
            for link in pulled["chain"]:
                out.print(f"  checked: {link}", style="green", markup=False)
            print_rows({name: pulled[name] for name in ("plugin", "version", "file")})
            out.print(f"Next: keelstone marketplace install {pulled['plugin']} --from {pulled['file']}", markup=False)

        show(pulled, json, text)
