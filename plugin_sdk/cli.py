"""The author's commands: ``keelstone plugin new``, ``build`` and ``test``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plugin_sdk.terminal import EXIT_FAILED, CommandTree, JsonOption, command, err, out, progress, show

FolderArgument = Annotated[Path, typer.Argument(help="The plugin's folder.", file_okay=False)]


def register(tree: CommandTree) -> None:
    """Add the commands to the group ``plugin``."""
    group = tree.group("plugin", "Write, build, test, sign and publish plugins.")
    group.command("new")(new)
    group.command("build")(build)
    group.command("test")(check)


@command
def new(
    name: Annotated[str, typer.Argument(help="Name of the plugin: lower-case letters, digits, hyphens.")],
    language: Annotated[
        str, typer.Option(help="assemblyscript, c, go, javascript, python, rust, typescript or zig.")
    ] = "assemblyscript",
    publisher: Annotated[str, typer.Option(help="Your namespace: the part of the id before the slash.")] = "me",
    parent: Annotated[Path, typer.Option("--in", help="Where to make the plugin's folder.", file_okay=False)] = Path(),
    json: JsonOption = False,
) -> None:
    """Make a plugin that builds, tests and does something small and useful."""
    from plugin_sdk.scaffold import new_plugin

    folder = new_plugin(parent, name, language, publisher)

    def text() -> None:
        out.print(f"Made {folder} ({publisher}/{name}, {language}).")
        out.print("Next:")
        out.print(f"  cd {folder}", markup=False)
        out.print("  keelstone plugin build")
        out.print("  keelstone plugin test")

    show({"id": f"{publisher}/{name}", "folder": str(folder), "language": language}, json, text)


@command
def build(
    folder: FolderArgument = Path(),
    force: Annotated[bool, typer.Option("--force", help="Compile even if nothing changed.")] = False,
    json: JsonOption = False,
) -> None:
    """Compile the plugin's source to a component. Fetches the compiler once."""
    from plugin_sdk.toolchain import Toolchains, build_plugin

    with progress("Building", json=json) as advance:
        tools = Toolchains(say=lambda what: advance(0, what))
        built = build_plugin(folder, tools, force=force)
    path = _shown(built.path)

    def text() -> None:
        out.print(f"{'Built' if built.fresh else 'Up to date:'} {path}", markup=False)
        out.print(f"  size     {built.size:,} bytes")
        out.print(f"  digest   sha256:{built.digest}")
        out.print(f"  imports  {', '.join(built.imports) or 'nothing: it asks nothing of the host'}")
        out.print(f"  parts    {len(built.parts)} by others, listed in {_shown(built.sbom)}", markup=False)
        if built.unused:
            err.print(
                f"The manifest asks for {', '.join(built.unused)}, which the source does not use.", style="yellow"
            )

    show(
        {
            "component": path,
            "size": built.size,
            "digest": built.digest,
            "imports": list(built.imports),
            "unused": list(built.unused),
            "fresh": built.fresh,
            "sbom": _shown(built.sbom),
            "parts": list(built.parts),
        },
        json,
        text,
    )


@command
def check(
    folder: FolderArgument = Path(),
    host: Annotated[
        str | None,
        typer.Option(help="sandbox, or memory: a Python guest's source without a build. Default: what its tests want."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run the built plugin in the real sandbox: the contract of its hooks, then its own tests."""
    from plugin_sdk.testing.runner import run_tests

    with progress("Testing", json=json):
        report = run_tests(folder, host)  # type: ignore[arg-type]
    own = report.own

    def text() -> None:
        out.print(f"Contract of {report.plugin}", markup=False)
        for one in report.checks:
            out.print(f"  {'passed' if one.passed else 'FAILED'}  {one.name}", markup=False)
            if one.problem:
                out.print(f"          {one.problem}", markup=False, style="red")
        if own is None:
            out.print("It has no tests of its own (tests/test_*.py).")
            return
        out.print(f"Its own tests: {own.passed} passed, {own.failed} failed, {own.skipped} skipped")
        if not own.ended_well:
            out.print(own.output, markup=False)

    show(report.describe(), json, text)
    if not report.passed:
        raise typer.Exit(EXIT_FAILED)


def _shown(path: Path) -> str:
    """The path as people would type it here."""
    here = Path.cwd().resolve()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
