"""The operator's commands about what releases were linked from: importing OSV exports, and whom they affect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from marketplace.cli.shared import MARKETPLACE_HELP, load_settings, print_rows, print_table
from plugin_sdk.terminal import CommandTree, JsonOption, command, err, show

_HELP = "Known weaknesses of what releases were linked from, by exports in the OSV format."


def add_osv_commands(tree: CommandTree) -> None:
    """Add them to the group ``marketplace``."""
    group = typer.Typer(help=_HELP, no_args_is_help=True)
    tree.group("marketplace", MARKETPLACE_HELP).add_typer(group, name="osv")

    @group.command("import")
    @command
    def import_(
        files: Annotated[list[Path], typer.Argument(help="Exports: an ecosystem's zip, or single documents.")],
        json: JsonOption = False,
    ) -> None:
        """Take in exports, and say in advisories which published releases are affected. Needs the data folder."""
        from marketplace.datafolder import change, reading
        from marketplace.osv.export import read_export

        def documents() -> Iterator[Any]:
            for file in files:
                yield from read_export(file)

        settings = load_settings()
        imported = asdict(change(settings, lambda registry: registry.import_weaknesses(documents())))
        with reading(settings) as reader:
            affected = [each for each in reader.parts.affected() if each.grave]
        found = {
            **imported,
            "affected_releases": len({each.digest for each in affected}),
            "malicious_releases": len({each.digest for each in affected if each.weakness.malicious}),
        }

        def text() -> None:
            print_rows({name.replace("_", " "): f"{value:,}" for name, value in found.items()})
            if found["malicious_releases"]:
                err.print(
                    "Releases with a malicious part are live. See them with `keelstone marketplace osv affected`, and "
                    "end them with `keelstone marketplace kill`.",
                    style="red",
                )

        show(found, json, text)

    @group.command("state")
    @command
    def state(json: JsonOption = False) -> None:
        """Say what is known, and how old it is. Needs the data folder."""
        from marketplace.datafolder import reading

        with reading(load_settings()) as reader:
            found = asdict(reader.parts.index.state())

        def text() -> None:
            by_ecosystem = ", ".join(f"{name} {count:,}" for name, count in found["weaknesses"].items())
            print_rows(
                {
                    "imports": found["imports"],
                    "last import": found["imported"] or "never",
                    "weaknesses": by_ecosystem or "none",
                    "malicious packages": f"{found['malicious']:,}",
                }
            )

        show(found, json, text)

    @group.command("affected")
    @command
    def affected(
        all_: Annotated[bool, typer.Option("--all", help="Those that are not grave as well.")] = False,
        json: JsonOption = False,
    ) -> None:
        """List published releases that were linked from something with a known weakness. Needs the data folder."""
        from marketplace.datafolder import reading

        with reading(load_settings()) as reader:
            found = [asdict(each) for each in reader.parts.affected() if all_ or each.grave]

        def text() -> None:
            rows = [
                [
                    f"{each['plugin']} {each['version']}",
                    f"{each['package']} {each['package_version']} ({each['ecosystem']})",
                    "malicious" if each["weakness"]["malicious"] else each["weakness"]["severity"],
                    each["weakness"]["id"],
                    each["weakness"]["summary"],
                ]
                for each in found
            ]
            print_table(("release", "linked from", "severity", "weakness", "summary"), rows, "There is none.")

        show(found, json, text)
