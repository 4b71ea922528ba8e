"""Ratings from the command line: a publisher answers them, the marketplace's operator hides them."""

from __future__ import annotations

from typing import Annotated

import typer

from marketplace.cli.shared import MARKETPLACE_HELP, PLUGIN_HELP, load_settings, print_rows, print_table, signing_key
from marketplace.cli.statements import hand_in
from plugin_sdk.terminal import CommandTree, JsonOption, command, out, show


def add_rating_commands(tree: CommandTree) -> None:
    """Add them to the groups ``plugin`` and ``marketplace``."""
    author, operator = tree.group("plugin", PLUGIN_HELP), tree.group("marketplace", MARKETPLACE_HELP)

    @operator.command("ratings")
    @command
    def ratings(
        plugin: Annotated[str, typer.Argument(help="The plugin's id, publisher/name.")], json: JsonOption = False
    ) -> None:
        """Show what tenants say who run a plugin."""
        from marketplace.door import open_door

        with open_door(tree, load_settings()) as door:
            found = door.request("GET", f"/plugins/{plugin}/ratings")

        def text() -> None:
            rows = [[r["id"], r["version"], "*" * r["stars"], r["text"], r["at"]] for r in found["ratings"]]
            print_table(("rating", "version", "stars", "text", "at"), rows, "Nobody has rated it yet.")
            if rows:
                summary = found["summary"]
                on = f"{summary['platforms']} platform{'' if summary['platforms'] == 1 else 's'}"
                out.print(f"{summary['mean']:.1f} of 5, from {summary['number']} on {on}.")

        show(found, json, text)

    @author.command("answer")
    @command
    def answer(
        plugin: Annotated[str, typer.Argument(help="Your plugin's id, publisher/name.")],
        rating: Annotated[str, typer.Argument(help="The rating, as `marketplace ratings` lists it.")],
        text: Annotated[str, typer.Option("--text", help="What you say to it, for everybody to read.")] = "",
        undo: Annotated[bool, typer.Option("--undo", help="Take your answer back.")] = False,
        json: JsonOption = False,
    ) -> None:
        """Answer a rating of your plugin, signed with your key."""
        from datetime import UTC, datetime

        from kernel.errors import ValidationFailed
        from marketplace.door import open_door
        from marketplace.signing import sign_answer

        if not undo and not text.strip():
            raise ValidationFailed("Say something.", plugin=plugin, expected="--text TEXT", fix="Or --undo.")
        settings = load_settings()
        key = signing_key(settings, plugin.partition("/")[0])
        now = datetime.now(UTC).isoformat(timespec="seconds")
        envelope = sign_answer(plugin, rating, None if undo else text, now, key)
        with open_door(tree, settings) as door:
            hand_in(door, envelope)
        shown = {"plugin": plugin, "rating": rating, "answer": "none" if undo else text}
        show(shown, json, lambda: print_rows(shown))

    @operator.command("hide-rating")
    @command
    def hide_rating(
        rating: Annotated[str, typer.Argument(help="The rating, as `marketplace ratings` lists it.")],
        reason: Annotated[str, typer.Option("--reason", help="Why; kept with it.")] = "",
        undo: Annotated[bool, typer.Option("--undo", help="Show it again.")] = False,
        json: JsonOption = False,
    ) -> None:
        """Hide a rating, so that it neither shows nor counts. Needs the marketplace's data folder."""
        from marketplace.moderation import hide_here

        hide_here(load_settings(), rating, None if undo else reason)
        shown = {"rating": rating, "hidden": "no" if undo else "yes"}
        show(shown, json, lambda: print_rows(shown))

    @operator.command("ignore-platform")
    @command
    def ignore_platform(
        platform: Annotated[str, typer.Argument(help="The platform's name, platform-...")],
        reason: Annotated[str, typer.Option("--reason", help="Why; told to it when it reports again.")] = "",
        undo: Annotated[bool, typer.Option("--undo", help="Listen again.")] = False,
        json: JsonOption = False,
    ) -> None:
        """Count nothing that a platform said or says: neither ratings nor figures. Needs the data folder."""
        from marketplace.moderation import ignore_here

        ignore_here(load_settings(), platform, None if undo else reason)
        shown = {"platform": platform, "ignored": "no" if undo else "yes"}
        show(shown, json, lambda: print_rows(shown))
