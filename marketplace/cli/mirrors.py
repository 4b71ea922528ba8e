"""The operator's commands for marketplaces behind this one: mirror add, sync, list, claim, remove."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from marketplace.cli.shared import MARKETPLACE_HELP, load_settings, print_rows, print_table
from plugin_sdk.terminal import CommandTree, JsonOption, command, err, out, progress, show

NameArgument = Annotated[str, typer.Argument(help="What the upstream is called here, see `mirror list`.")]


def add_mirror_commands(tree: CommandTree) -> None:
    """Add them to the group ``marketplace mirror``."""
    group = typer.Typer(help="Serve what another marketplace publishes, beside what is published here.")
    tree.group("marketplace", MARKETPLACE_HELP).add_typer(group, name="mirror")

    @group.command("add")
    @command
    def add(
        url: Annotated[str, typer.Argument(help="Where the other marketplace is served.")],
        root: Annotated[Path, typer.Option("--root", help="Its root metadata, got from its operator.")],
        name: Annotated[str | None, typer.Option("--name", help="What to call it here. Default: its host.")] = None,
        only: Annotated[
            list[str] | None, typer.Option("--only", help="Mirror only this: acme/* or acme/guard. May come again.")
        ] = None,
        local: Annotated[
            list[str] | None,
            typer.Option("--local", help="A namespace that is never the upstream's. May come again."),
        ] = None,
        witness: Annotated[
            list[str] | None, typer.Option("--witness", help="A witness of its log (a vkey). May come again.")
        ] = None,
        witnesses_needed: Annotated[
            int, typer.Option("--witnesses-needed", min=0, help="How many must have signed its checkpoint.")
        ] = 0,
        json: JsonOption = False,
    ) -> None:
        """Mirror another marketplace from now on, verified from the root that you pin. Needs the data folder."""
        from marketplace.mirror.here import add_here

        asked = (only or (), local or (), witness or (), witnesses_needed)
        added = add_here(load_settings(), url, root, name, *asked)

        def text() -> None:
            print_rows(_row(added))
            out.print(f"Next: keelstone marketplace mirror sync {added['name']}", markup=False)

        show(added, json, text)

    @group.command("sync")
    @command
    def sync(
        name: Annotated[str | None, typer.Argument(help="One upstream. Default: all that have an address.")] = None,
        ahead: Annotated[
            bool, typer.Option("--ahead", help="Fetch packages now. Otherwise each comes when it is first asked for.")
        ] = False,
        json: JsonOption = False,
    ) -> None:
        """Take over what is new upstream: releases, withdrawals, revocations, advisories, keys."""
        from marketplace.mirror.here import sync_here

        with progress("Mirroring", json=json):
            outcomes = sync_here(load_settings(), name, ahead=ahead)

        def text() -> None:
            for each in outcomes:
                print_outcome(each)
            if not outcomes:
                out.print("There is no upstream with an address.")

        show(outcomes, json, text)

    @group.command("list")
    @command
    def list_(json: JsonOption = False) -> None:
        """List the upstreams, how far each was seen, and where namespaces resolve."""
        from marketplace.mirror.here import list_here

        found = list_here(load_settings())

        def text() -> None:
            rows = [list(_row(each).values()) for each in found["upstreams"]]
            print_table(("name", "url", "root", "only", "plugins", "as of"), rows, "There is no upstream.")
            claims = [[publisher, where] for publisher, where in found["namespaces"].items()]
            print_table(("namespace", "resolves at"), claims, "No namespace was decided about.")

        show(found, json, text)

    @group.command("claim")
    @command
    def claim(
        publisher: Annotated[str, typer.Argument(help="The namespace.")],
        where: Annotated[str, typer.Argument(help="local, or an upstream's name.")],
        json: JsonOption = False,
    ) -> None:
        """Decide where a namespace resolves, once and for all."""
        from marketplace.mirror.here import claim_here

        claim_here(load_settings(), publisher, where)
        said = {"publisher": publisher, "where": where}
        show(said, json, lambda: out.print(f"{publisher} resolves at {where} from now on.", markup=False))

    @group.command("remove")
    @command
    def remove(name: NameArgument, json: JsonOption = False) -> None:
        """Follow an upstream no more. What was taken stays installable, and its namespaces stay its own."""
        from marketplace.mirror.here import remove_here

        removed = remove_here(load_settings(), name)
        show(removed, json, lambda: out.print(f"{name} is not followed any more.", markup=False))


def print_outcome(outcome: dict[str, Any]) -> None:
    """What taking something over came to, for people."""
    counted = ("released", "withdrawn", "revoked", "deprecated", "advisories")
    rows = {"upstream": outcome["upstream"], "as of": outcome["at"]}
    rows |= {name: ", ".join(outcome[name]) for name in counted if outcome[name]}
    print_rows(rows if len(rows) > 2 else {**rows, "news": "nothing"})
    for publisher, why in outcome["held"].items():
        err.print(f"Left out {publisher}: {why}", style="yellow", markup=False)
    for problem in outcome["problems"]:
        err.print(problem, style="yellow", markup=False)


def _row(upstream: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": upstream["name"],
        "url": upstream["url"] or "in bundles",
        "root": f"sha256 {upstream['root'][:16]}",
        "only": ", ".join(upstream["only"]) or "everything",
        "plugins": upstream["plugins"],
        "as of": upstream["seen"]["at"] if upstream["seen"] else "never",
    }
