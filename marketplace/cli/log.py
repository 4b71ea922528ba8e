"""Commands about the transparency log: audit, proof, check-proof, witness."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketplace.cli.shared import MARKETPLACE_HELP, load_settings, print_rows, print_table
from plugin_sdk.terminal import EXIT_REFUSED, CommandTree, JsonOption, command, err, out, progress, show

if TYPE_CHECKING:
    from kernel.settings import Settings
    from marketplace.log.checkpoint import Checkpoint
    from marketplace.log.proof import LogProof
    from marketplace.logbook import Logbook


def add_log_commands(tree: CommandTree) -> None:
    """Add them to the group ``marketplace``."""
    group = tree.group("marketplace", MARKETPLACE_HELP)

    @group.command("audit")
    @command
    def audit(
        publisher: Annotated[str | None, typer.Option("--publisher", help="Show this namespace only.")] = None,
        whole: Annotated[bool, typer.Option("--whole", help="From the log's beginning, not the last audit.")] = False,
        json: JsonOption = False,
    ) -> None:
        """Follow the marketplace's log: that it only grew, and what is new. Ends with 3 if it contradicts itself."""
        with _logbook(load_settings()) as logbook, progress("Following the log", json=json):
            key, found = logbook.audit(publisher, whole=whole)
        newest = [{"index": index, **entry.to_dict()} for index, entry in reversed(found.newest)]
        checkpoint = _described(found.checkpoint)
        document = {
            "checkpoint": checkpoint,
            "key": str(key),
            "before": found.before,
            "entries": found.entries,
            "kinds": dict(found.kinds),
            "newest": newest,
            "problems": found.problems,
        }

        def text() -> None:
            print_rows({**checkpoint, "key": key})
            kinds = ", ".join(f"{count} {kind}" for kind, count in found.kinds.most_common())
            out.print(f"{found.entries} new since entry {found.before}{': ' + kinds if kinds else ''}.", markup=False)
            rows = [
                [e["index"], e["kind"], e.get("plugin", e["publisher"]), e.get("version", ""), e["at"]] for e in newest
            ]
            print_table(("entry", "kind", "about", "version", "at"), rows, "Nothing to show.")
            for problem in found.problems:
                err.print(f"  ✗ {problem}", style="red", markup=False)

        show(document, json, text)
        if found.problems:
            raise typer.Exit(EXIT_REFUSED)

    @group.command("proof")
    @command
    def proof(
        output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
        plugin: Annotated[str | None, typer.Argument(help="The plugin's id, publisher/name.")] = None,
        version: Annotated[str | None, typer.Argument(help="The released version.")] = None,
        entry: Annotated[
            int | None, typer.Option("--entry", min=0, help="Any entry, by its number in `audit`.")
        ] = None,
        json: JsonOption = False,
    ) -> None:
        """Save the proof that a release is in the marketplace's log. Anybody can check the file without the network."""
        from kernel.errors import ValidationFailed

        if (entry is None) != (plugin is not None and version is not None):
            raise ValidationFailed("Say what to prove.", expected="a plugin and its version, or --entry")
        with _logbook(load_settings()) as logbook:
            if entry is not None:
                found, checkpoint = logbook.entry(entry)
            else:
                found, checkpoint = logbook.proof(str(plugin), str(version))
        output.write_bytes(found.to_bytes())
        document = {"file": str(output), **_proved(found, checkpoint)}
        show(document, json, lambda: print_rows({"file": output, **_in_short(found, checkpoint)}))

    @group.command("check-proof")
    @command
    def check_proof(
        file: Annotated[Path, typer.Argument(help="A proof file.")],
        key: Annotated[
            str | None, typer.Option("--key", help="The log's key, as `audit` prints it. Default: as known here.")
        ] = None,
        json: JsonOption = False,
    ) -> None:
        """Check a proof file without the network; ends with 3 if it proves nothing."""
        from kernel.errors import NotFound
        from marketplace.log.note import read_vkey
        from marketplace.log.proof import read_proof

        try:
            body = file.read_bytes()
        except OSError as error:
            raise NotFound(f"{file} cannot be read: {error.strerror}.", file=str(file)) from error
        if key:
            found = read_proof(body)
            checkpoint = found.verify(read_vkey(key))
        else:
            with _logbook(load_settings()) as logbook:
                found, checkpoint = logbook.check(body)
        document = {"proved": True, **_proved(found, checkpoint)}

        def text() -> None:
            print_rows(_in_short(found, checkpoint))
            out.print("The entry is in the log.")

        show(document, json, text)

    @group.command("witness")
    @command
    def witness(
        name: Annotated[str | None, typer.Option("--name", help="What to be called. Default: after the key.")] = None,
        key_only: Annotated[bool, typer.Option("--key-only", help="Print the key, and sign nothing.")] = False,
        json: JsonOption = False,
    ) -> None:
        """Sign the log's checkpoint as a witness, after checking that it only grew, and hand the signature in."""
        from marketplace.door import open_door
        from marketplace.log.witness import witness_key, witness_vkey

        settings = load_settings()
        key = witness_key(settings.home)
        vkey = witness_vkey(key, name)
        document: dict[str, Any] = {"witness": str(vkey)}
        if not key_only:
            with _logbook(settings) as logbook:
                signed = logbook.witness(key, vkey.name, time.time())
            with open_door(tree, settings) as door:
                taken = door.request("POST", "/log/cosignatures", json={"checkpoint": signed.to_bytes().decode()})
            document |= {"checkpoint": _described(signed), "witnesses": taken["witnesses"]}

        def text() -> None:
            print_rows({"witness": vkey, **document.get("checkpoint", {})})

        show(document, json, text)


@contextmanager
def _logbook(settings: Settings) -> Iterator[Logbook]:
    from marketplace.connect import open_logbook

    logbook = open_logbook(settings)
    try:
        yield logbook
    finally:
        logbook.close()


def _described(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"log": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex()}


def _proved(proof: LogProof, checkpoint: Checkpoint) -> dict[str, Any]:
    return {"index": proof.index, "entry": proof.entry.to_dict(), "checkpoint": _described(checkpoint)}


def _in_short(proof: LogProof, checkpoint: Checkpoint) -> dict[str, Any]:
    return {"entry": f"{proof.index}: {proof.entry}", "digest": proof.entry.digest, **_described(checkpoint)}
