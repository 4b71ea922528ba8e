"""Bundles: bundle export, import, show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marketplace.cli.mirrors import print_outcome
from marketplace.cli.shared import MARKETPLACE_HELP, load_settings, print_rows, print_table
from plugin_sdk.terminal import CommandTree, JsonOption, command, progress, show

FileArgument = Annotated[Path, typer.Argument(help="A bundle.")]


def add_bundle_commands(tree: CommandTree) -> None:
    """Add them to the group ``marketplace bundle``."""
    group = typer.Typer(help="Carry plugins over an air gap, in one file with all that proves them.")
    tree.group("marketplace", MARKETPLACE_HELP).add_typer(group, name="bundle")

    @group.command("export")
    @command
    def export(
        out: Annotated[Path, typer.Argument(help="The file to write.")],
        plugins: Annotated[
            list[str] | None, typer.Argument(help="acme/guard or acme/guard@^1.2, several. None: everything.")
        ] = None,
        with_requirements: Annotated[
            bool, typer.Option("--with-requirements", help="Also what they require, the newest that fits.")
        ] = False,
        without_packages: Annotated[
            bool, typer.Option("--without-packages", help="Only the proofs; the packages come another way.")
        ] = False,
        json: JsonOption = False,
    ) -> None:
        """Write a bundle of the marketplace that this machine trusts: packages, metadata, proofs, revocations."""
        from marketplace.mirror.here import export_here

        with progress("Exporting", json=json):
            made = export_here(
                load_settings(), out, plugins or (), requirements=with_requirements, packages=not without_packages
            )

        def text() -> None:
            releases = [[plugin, ", ".join(versions)] for plugin, versions in made["releases"].items()]
            print_table(("plugin", "versions"), releases, "The marketplace has no releases yet.")
            print_rows({name: made[name] for name in ("file", "size", "made", "log")})

        show(made, json, text)

    @group.command("import")
    @command
    def import_(
        file: FileArgument,
        root: Annotated[
            Path | None,
            typer.Option("--root", help="Root metadata of the marketplace it is from, the first time one comes."),
        ] = None,
        name: Annotated[str | None, typer.Option("--name", help="What to call that marketplace here.")] = None,
        older: Annotated[
            bool,
            typer.Option("--older", help="Even if it is older than what is here: adds what is missing, no more."),
        ] = False,
        json: JsonOption = False,
    ) -> None:
        """Verify a bundle and serve what it has, signed anew under this marketplace's root. Needs the data folder."""
        from marketplace.mirror.here import import_here

        with progress("Verifying and importing", json=json):
            outcome = import_here(load_settings(), file, root, name, older=older)
        show(outcome, json, lambda: print_outcome(outcome))

    @group.command("show")
    @command
    def show_(file: FileArgument, json: JsonOption = False) -> None:
        """Say what a bundle has inside, and whether it is of a marketplace that is trusted here."""
        from marketplace.mirror.here import show_here

        found = show_here(load_settings(), file)

        def text() -> None:
            releases = [[plugin, ", ".join(versions)] for plugin, versions in found["releases"].items()]
            print_table(("plugin", "versions"), releases, "It has no releases.")
            whose = found["trusted"] or "no marketplace that is trusted here: nothing below is verified"
            print_rows({"of": whose, "frozen at": found["made"], "log": found["log"]})

        show(found, json, text)
