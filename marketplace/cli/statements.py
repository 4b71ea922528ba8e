"""What a publisher says, handed in; and where two must sign it, carried from one to the other as a file."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketplace.cli.shared import PLUGIN_HELP, load_settings, print_rows, signing_key
from plugin_sdk.terminal import CommandTree, JsonOption, command, out, show

if TYPE_CHECKING:
    from marketplace.door import Door
    from marketplace.statements import Word

File = Annotated[Path, typer.Argument(help="The statement that is being signed.", exists=True, dir_okay=False)]


def hand_in(door: Door, envelope: bytes) -> Any:
    """Hand a publisher's statement in; the marketplace's answer. If others must sign it first, write it to a file in
    this folder, and raise SignatureInvalid that says who.
    """
    from marketplace.statements import read_word

    word = read_word(envelope)
    return _submit(door, word, Path(word.file_name), keep=True)


def add_statement_commands(tree: CommandTree) -> None:
    """Add the group ``plugin statement``."""
    group = typer.Typer(help="What your namespace says, where two must sign it.", no_args_is_help=True)
    tree.group("plugin", PLUGIN_HELP).add_typer(group, name="statement")

    @group.command("sign")
    @command
    def sign(
        file: File,
        key: Annotated[str | None, typer.Option("--key", help="A key on this machine, by its file's name.")] = None,
        json: JsonOption = False,
    ) -> None:
        """Sign a withdrawal, advice, an answer, an advisory or a domain as well, and show it. Needs no network."""
        from marketplace.statements import read_word_file, sign_word

        word = read_word_file(file)
        signed = sign_word(word, signing_key(load_settings(), word.publisher, key))
        file.write_bytes(signed.envelope)
        document = {"file": str(file), **_plain(signed)}

        def text() -> None:
            print_rows(_rows(signed))
            out.print(f"Next: keelstone plugin statement submit {file.name}", markup=False)

        show(document, json, text)

    @group.command("submit")
    @command
    def submit(file: File, json: JsonOption = False) -> None:
        """Hand a statement in that enough have signed."""
        from marketplace.door import open_door
        from marketplace.statements import read_word_file

        word = read_word_file(file)
        with open_door(tree, load_settings()) as door:
            taken = _submit(door, word, file, keep=False)
        show({**_plain(word), "taken": taken}, json, lambda: print_rows(_rows(word)))


def _submit(door: Door, word: Word, file: Path, *, keep: bool) -> Any:
    from marketplace.errors import SignatureInvalid

    present = door.request("GET", f"/namespaces/{word.publisher}")
    try:
        word.check_signed(present["keys"], present["releases"], file)
    except SignatureInvalid:
        if keep:
            file.write_bytes(word.envelope)
        raise
    return door.request("POST", word.path, json=jsonlib.loads(word.envelope))


def _plain(word: Word) -> dict[str, Any]:
    return {"kind": word.kind, "about": word.about, "says": dict(word.says), "signers": list(word.signers)}


def _rows(word: Word) -> dict[str, Any]:
    said = {name: value for name, value in word.says.items() if value is not None and name != "osv"}
    signers = ", ".join(key[:16] for key in word.signers)
    return {"statement": word.kind, "about": word.about, **said, "signers": signers}
