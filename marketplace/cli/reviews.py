"""The review queue on the command line, and what became of a package that was handed in."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from marketplace.cli.shared import MARKETPLACE_HELP, PLUGIN_HELP, load_settings, print_rows, print_table
from plugin_sdk.terminal import CommandTree, JsonOption, command, out, show

Digest = Annotated[str, typer.Argument(help="SHA-256 of the package, as `marketplace queue` prints it.")]
Reviewer = Annotated[str, typer.Option("--reviewer", help="Whose verdict it is. Default: this machine's user.")]


def add_review_commands(tree: CommandTree) -> None:
    """Add them to the groups ``marketplace`` and ``plugin``."""
    group = tree.group("marketplace", MARKETPLACE_HELP)

    @group.command("queue")
    @command
    def queue(json: JsonOption = False) -> None:
        """List the releases that wait for a reviewer. Needs the marketplace's data folder."""
        from marketplace.datafolder import reading

        with reading(load_settings()) as reader:
            held = reader.reviews.queue()

        def text() -> None:
            rows = [[h.plugin, h.version, h.received, ", ".join(_why(h.findings)), h.digest] for h in held]
            print_table(("plugin", "version", "since", "held by", "digest"), rows, "Nothing waits for a reviewer.")

        show([asdict(each) for each in held], json, text)

    @group.command("review")
    @command
    def review(
        digest: Digest,
        save: Annotated[Path | None, typer.Option("--save", help="Write the package and its signature here.")] = None,
        json: JsonOption = False,
    ) -> None:
        """Show what is new in a release that waits for a reviewer."""
        from marketplace.datafolder import reading
        from marketplace.publishing import SignedPackage

        with reading(load_settings()) as reader:
            if save is not None:
                SignedPackage(*reader.reviews.package(digest)).write(save)
            found = reader.reviews.show(digest)

        def text() -> None:
            held = found.held
            print_rows(
                {
                    "release": f"{held.plugin} {held.version}",
                    "state": held.state,
                    "follows": found.base or "nothing: it is the first",
                    "code uses": ", ".join(found.imports_after) or "nothing of the host",
                    "code used": ", ".join(found.imports_before) or "nothing of the host",
                    "settings": "another schema" if found.settings_changed else "the same schema",
                }
            )
            for each in held.findings:
                out.print(f"  ! {each['problem']} [{each['rule']}]", style="yellow", markup=False)
            for change in found.changes:
                sign, style = ("+", "yellow") if change.widens else ("-", "dim")
                out.print(f"  {sign} {change.words}", style=style, markup=False)
            for cost in found.costs:
                took = f"{cost.now.fuel:,} instructions, {_bytes(cost.now.memory_bytes)} of memory"
                if cost.before is not None:
                    took += f" ({cost.before.fuel:,} and {_bytes(cost.before.memory_bytes)} in {cost.base})"
                out.print(f"  a call of {cost.hook} takes {took}", markup=False)
            rows = [[f.name, _bytes(f.before), _bytes(f.after)] for f in found.files]
            print_table(("file", "before", "after"), rows, "No file differs.")

        show(asdict(found), json, text)

    @group.command("approve")
    @command
    def approve(
        digest: Digest,
        reason: Annotated[str, typer.Option("--reason", help="What was looked at.")] = "",
        reviewer: Reviewer = "",
        json: JsonOption = False,
    ) -> None:
        """Let a held release go live. The verdict is signed and logged."""
        _decide(digest, approved=True, reason=reason, reviewer=reviewer, json=json)

    @group.command("reject")
    @command
    def reject(
        digest: Digest,
        reason: Annotated[str, typer.Option("--reason", help="Why, for its publisher.")],
        reviewer: Reviewer = "",
        json: JsonOption = False,
    ) -> None:
        """Turn a held release down, for ever. The verdict is signed and logged."""
        _decide(digest, approved=False, reason=reason, reviewer=reviewer, json=json)

    @tree.group("plugin", PLUGIN_HELP).command("state")
    @command
    def state(
        package: Annotated[str, typer.Argument(help="A package file, or the SHA-256 of one.")],
        json: JsonOption = False,
    ) -> None:
        """Say what became of a package that was handed in: scanned, held, live, or turned away, and why."""
        from hashlib import sha256

        from marketplace.door import open_door

        file = Path(package)
        digest = sha256(file.read_bytes()).hexdigest() if file.is_file() else package
        with open_door(tree, load_settings()) as door:
            found = door.request("GET", f"/publishes/{digest}")

        def text() -> None:
            receipt = found["receipt"]
            print_rows({k: receipt[k] for k in ("plugin", "version", "state", "published", "digest")})
            for each in found["findings"]:
                out.print(f"  ! {each['problem']} [{each['rule']}]. {each['fix']}", style="yellow", markup=False)
            if found["verdict"]:
                print_rows({"verdict": found["verdict"]["reason"] or "approved", "at": found["verdict"]["at"]})

        show(found, json, text)


def _decide(digest: str, *, approved: bool, reason: str, reviewer: str, json: bool) -> None:
    from marketplace.datafolder import change

    by = reviewer or getpass.getuser()
    receipt = change(
        load_settings(),
        lambda registry: registry.decide(digest, approved=approved, reason=reason, reviewer=by),
    )
    show(
        receipt.to_dict(),
        json,
        lambda: print_rows({"release": f"{receipt.plugin} {receipt.version}", "state": receipt.state}),
    )


def _why(findings: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({each["rule"] for each in findings if each["review"]})


def _bytes(size: int | None) -> str:
    return "-" if size is None else f"{size:,} B"
