"""The command ``keelstone``. Other packages add their groups through entry points."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli import (
    consents,
    development,
    doctor,
    held,
    metering,
    operator,
    policy,
    ratings,
    secrets,
    server,
    tenant,
    upgrade,
    weaknesses,
)
from api.cli.connection import open_connection
from kernel.discovery import COMMANDS, entry_points
from kernel.settings import Settings
from plugin_sdk.terminal import CommandTree, err


def build() -> typer.Typer:
    """The whole command line: ours and what the packages contribute."""
    root = typer.Typer(
        name="keelstone",
        help="Keelstone: a platform on which every feature is a versioned plugin.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        add_completion=True,
    )

    @root.callback()
    def options(
        version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", is_eager=True)] = False,
    ) -> None:
        if version:
            from importlib.metadata import version as installed

            typer.echo(f"keelstone {installed('keelstone')}")
            raise typer.Exit

    tree = CommandTree(root, lambda: open_connection(Settings()))
    server.register(tree)
    for point in entry_points(COMMANDS):
        try:
            point.load()(tree)
        except ImportError as error:
            err.print(f"The commands of {point.name} are not available: {error}", style="yellow")
    operator.register(tree)
    tenant.register(tree)
    ratings.register(tree)
    held.register(tree)
    policy.register(tree)
    consents.register(tree)
    upgrade.register(tree)
    metering.register(tree)
    weaknesses.register(tree)
    secrets.register(tree)
    development.register(tree)
    doctor.register(tree)
    return root


def main() -> None:
    """Entry point of the console script."""
    build()()
