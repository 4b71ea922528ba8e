"""Advisories on the command line: the operator's word, a publisher's, and reading them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from marketplace.cli.shared import MARKETPLACE_HELP, PLUGIN_HELP, load_settings, print_rows, print_table, signing_key
from marketplace.cli.statements import hand_in
from plugin_sdk.terminal import CommandTree, JsonOption, command, show

File = Annotated[Path, typer.Argument(help="An OSV document about plugins.", exists=True, dir_okay=False)]


def add_advisory_commands(tree: CommandTree) -> None:
    """Add them to the groups ``marketplace`` and ``plugin``."""
    group = tree.group("marketplace", MARKETPLACE_HELP)

    @group.command("advise")
    @command
    def advise(file: File, json: JsonOption = False) -> None:
        """Publish an advisory about plugins, or a newer word of one. Needs the marketplace's data folder."""
        from marketplace.datafolder import change

        body = file.read_bytes()
        taken = asdict(change(load_settings(), lambda registry: registry.advise(body)))
        show(taken, json, lambda: _print(taken))

    @group.command("advisories")
    @command
    def advisories(
        plugin: Annotated[str | None, typer.Argument(help="Only those about this plugin.")] = None,
        json: JsonOption = False,
    ) -> None:
        """List known weaknesses of plugins, and the versions that mend them."""
        from marketplace.door import open_door

        with open_door(tree, load_settings()) as door:
            found = door.request("GET", "/advisories", params={"plugin": plugin} if plugin else None)

        def text() -> None:
            rows = [
                [each["id"], about["plugin"], _fixed(about), each["by"], each["summary"]]
                for each in found
                for about in each["affected"]
                if not each["withdrawn"]
            ]
            print_table(("advisory", "plugin", "fixed in", "by", "summary"), rows, "There is none.")

        show(found, json, text)

    @tree.group("plugin", PLUGIN_HELP).command("advisory")
    @command
    def advisory(file: File, json: JsonOption = False) -> None:
        """Publish an advisory about plugins of your own, signed with your key."""
        from marketplace.advisories import read_advisory, sign_advisory
        from marketplace.door import open_door

        settings, body = load_settings(), file.read_bytes()
        publisher = read_advisory(body, by="").affected[0].plugin.partition("/")[0]
        envelope = sign_advisory(body, signing_key(settings, publisher))
        with open_door(tree, settings) as door:
            taken = hand_in(door, envelope)
        show(taken, json, lambda: _print(taken))


def _print(taken: dict[str, Any]) -> None:
    plugins = ", ".join(each["plugin"] for each in taken["affected"])
    print_rows({"advisory": taken["id"], "about": plugins, "by": taken["by"], "summary": taken["summary"]})


def _fixed(about: dict[str, Any]) -> str:
    return ", ".join(version for kind, version in about["events"] if kind == "fixed") or "-"
