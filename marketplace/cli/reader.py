"""Commands for everybody: search, info."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from marketplace.cli.shared import MARKETPLACE_HELP, load_settings, print_rows, print_table
from plugin_sdk.terminal import CommandTree, JsonOption, command, err, show


def add_reader_commands(tree: CommandTree) -> None:
    """Add them to the group ``marketplace``."""
    group = tree.group("marketplace", MARKETPLACE_HELP)

    @group.command("search")
    @command
    def search(
        query: Annotated[str, typer.Argument(help="Words to look for. Nothing: the newest plugins.")] = "",
        limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="At most this many.")] = 20,
        publisher: Annotated[str | None, typer.Option("--publisher", help="Only plugins of this publisher.")] = None,
        license: Annotated[str | None, typer.Option("--license", help="Only plugins under this licence.")] = None,
        capability: Annotated[
            str | None, typer.Option("--capability", help="Only plugins that ask for this, e.g. http.")
        ] = None,
        keyword: Annotated[str | None, typer.Option("--keyword", help="Only plugins with this keyword.")] = None,
        all: Annotated[
            bool, typer.Option("--all", help="Also plugins of which no release runs on this platform.")
        ] = False,
        facets: Annotated[
            bool, typer.Option("--facets", help="Also show what the best matches could be narrowed to.")
        ] = False,
        json: JsonOption = False,
    ) -> None:
        """Find plugins by name, keyword or text; those that run on this platform unless told otherwise."""
        from kernel.hookspecs import CONTRACT_GENERATIONS
        from marketplace.door import open_door

        narrowed = {"publisher": publisher, "license": license, "capability": capability, "keyword": keyword}
        asked = {
            "q": query,
            "limit": limit,
            "facets": facets,
            "contracts": [] if all else list(CONTRACT_GENERATIONS),
            **{name: value for name, value in narrowed.items() if value},
        }
        with open_door(tree, load_settings()) as door:
            answer = door.request("GET", "/search", params=asked)
        results = answer["results"]
        columns = ("id", "latest", "name", "summary")
        marks = ["(deprecated) " if entry["deprecated"] else "" for entry in results]
        rows = [[e["id"], e["latest"], e["name"], mark + e["summary"]] for mark, e in zip(marks, results, strict=True)]

        def text() -> None:
            print_table(columns, rows, "Nothing found.")
            for facet, counts in ((answer["facets"] or {}).get("values") or {}).items():
                if counts:
                    print_table((facet, "plugins"), [[value, str(count)] for value, count in counts.items()], "")

        show(answer, json, text)

    @group.command("info")
    @command
    def info(
        plugin: Annotated[str, typer.Argument(help="The plugin's id, publisher/name.")], json: JsonOption = False
    ) -> None:
        """Show a plugin: what it does, what it asks for, and its releases."""
        from marketplace.door import open_door
        from marketplace.index import Deprecation

        with open_door(tree, load_settings()) as door:
            page = door.request("GET", f"/plugins/{plugin}")
            entry = page["entry"]
            detail = door.request("GET", f"/plugins/{plugin}/versions/{entry['latest']}") if entry else None

        def text() -> None:
            if entry and detail:
                shown = {k: entry[k] for k in ("id", "name", "summary", "latest", "license", "publisher")}
                print_rows(shown | ({"domain": f"{entry['domain']} (verified)"} if entry["domain"] else {}))
                if (built := detail["release"].get("build")) is not None:
                    print_rows(_built(built))
                if page["deprecated"]:
                    advice = Deprecation(**page["deprecated"]).advice
                    err.print(f"Deprecated: {advice}", style="yellow", markup=False)
                asked = detail["manifest"].get("capabilities", {})
                reasons = [[name, asked[name]["why"]] for name in entry["capabilities"]]
                print_table(("asks for", "why"), reasons, "It asks for nothing.")
            columns = ("version", "published", "kernel", "withdrawn", "sha256")
            rows = [
                [r["version"], r["published"], r["kernel"], (r["yanked"] or {}).get("reason", ""), r["digest"][:16]]
                for r in page["releases"]
            ]
            print_table(columns, rows, "No releases.")

        show({**page, "manifest": detail["manifest"] if detail else None}, json, text)


def _built(build: dict[str, Any]) -> dict[str, Any]:
    """What made and signed a release, in rows."""
    return {
        "built by": f"{build['host']}/{build['repository']}, {build['workflow']}",
        "from": f"commit {build['commit']}, {build['ref']}",
        "run": build["url"],
    }
