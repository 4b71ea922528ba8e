"""The key ceremony on the command line: who holds which key, new keys, rotations, and a rehearsal."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marketplace.cli.shared import MARKETPLACE_HELP, load_settings, passphrases_of, print_rows, print_table
from plugin_sdk.terminal import CommandTree, JsonOption, command, out, show

if TYPE_CHECKING:
    from marketplace.carried import Carried
    from marketplace.ceremony import Rotation

Media = Annotated[
    list[Path] | None, typer.Option("--media", help="A folder with offline keys; once for each that is at hand.")
]
CarriedFile = Annotated[
    Path, typer.Argument(help="The change that goes from signer to signer.", exists=True, dir_okay=False)
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
_SHORT = 16


def add_ceremony_commands(tree: CommandTree) -> None:
    """Add them as the group ``marketplace ceremony``."""
    group = typer.Typer(help="Make, rotate and rehearse the marketplace's keys.", no_args_is_help=True)
    tree.group("marketplace", MARKETPLACE_HELP).add_typer(group, name="ceremony")

    @group.command("status")
    @command
    def status(media: Media = None, json: JsonOption = False) -> None:
        """Show each role's keys, which of them are at hand, and what expires when. Needs the data folder."""
        from marketplace.keyholding import status_here

        found = status_here(load_settings(), media or [])

        def text() -> None:
            rows = [
                [
                    r.role,
                    r.version,
                    r.threshold,
                    f"{len(r.at_hand)} of {len(r.keys)}",
                    r.expires or "never",
                    "" if r.days_left is None else f"{r.days_left:.0f}",
                ]
                for r in found
            ]
            print_table(("role", "version", "threshold", "keys at hand", "expires", "days left"), rows, "Nothing.")
            for role in found:
                for key in role.keys:
                    here = "at hand" if key in role.at_hand else "away"
                    out.print(f"{role.role:<9}  {key[:_SHORT]}  {here}", markup=False)

        show([asdict(each) for each in found], json, text)

    @group.command("begin")
    @command
    def begin(
        root_key: Annotated[
            list[Path] | None, typer.Option("--root-key", help="Folder for a root key, on its own medium; three times.")
        ] = None,
        targets_key: Annotated[
            Path | None, typer.Option("--targets-key", help="Folder for the targets key, on its own medium.")
        ] = None,
        yes: Yes = False,
        json: JsonOption = False,
    ) -> None:
        """Make new offline keys on their media, in the place of those that the first start made.

        Each gets a passphrase: asked for here, or from KEELSTONE_KEY_PASSPHRASE or KEELSTONE_KEY_PASSPHRASE_FILE. With
        --yes and neither, they get none.
        """
        from marketplace.keyholding import begin_here

        settings = load_settings()

        folders = list(root_key or [])
        if not yes:
            while len(folders) < 3:
                said = typer.prompt(f"Folder for root key {len(folders) + 1} of 3, on a medium of its own", err=True)
                folders.append(Path(said))
            targets_key = targets_key or Path(typer.prompt("Folder for the targets key", err=True))
            typer.confirm("Make four new keys there, and stop trusting the present ones?", abort=True, err=True)
        if targets_key is None:
            raise typer.BadParameter("with --yes, name --root-key three times and --targets-key once")
        done = begin_here(settings, folders, targets_key, passphrases_of(settings, ask=not yes))

        def text() -> None:
            for each in done:
                out.print(f"{each.role}: {_ids(each.added)}", markup=False)
            out.print("Part the media. The keys in keys/offline no longer count: delete them.")

        show([asdict(each) for each in done], json, text)

    @group.command("rotate")
    @command
    def rotate(
        role: Annotated[str, typer.Argument(help="root, targets, bins, snapshot, timestamp, log or receipts.")],
        media: Media = None,
        replace: Annotated[
            list[str] | None, typer.Option("--replace", help="A root key's id, or how it begins: the one that goes.")
        ] = None,
        onto: Annotated[
            list[Path] | None, typer.Option("--onto", help="Folder for the new root or targets key.")
        ] = None,
        yes: Yes = False,
        json: JsonOption = False,
    ) -> None:
        """Replace keys of a role. Takes two root keys; for bins, the targets key; for log and receipts, the log's own.
        Clients follow by themselves."""
        from marketplace.keyholding import rotate_here

        settings = load_settings()

        if not yes:
            typer.confirm(f"Replace the key of {role}? What the old one signs will be refused.", abort=True, err=True)
        passphrases = passphrases_of(settings, ask=not yes)
        done = rotate_here(settings, role, media or [], replace or [], onto or [], passphrases)
        show(asdict(done), json, lambda: _print_rotation(done))

    _add_carried(group)

    @group.command("rehearse")
    @command
    def rehearse(json: JsonOption = False) -> None:
        """Play loss, theft and expiry on a copy with keys of its own, and show what real clients then see."""
        from marketplace.keyholding import rehearse_here
        from marketplace.rehearsal import Step

        def tell(step: Step) -> None:
            if not json:
                sign, style = ("✓", "green") if step.as_expected else ("✗", "red")
                out.print(f"{sign} {step.day}: {step.happened}", style=style, markup=False)
                out.print(f"    {step.seen}", markup=False)

        done = rehearse_here(load_settings(), tell)
        show([asdict(each) for each in done], json, lambda: None)
        if not all(each.as_expected for each in done):
            raise typer.Exit(1)


def _add_carried(group: typer.Typer) -> None:
    """The same changes, signed one after the other where each key is."""

    @group.command("key")
    @command
    def key(
        folder: Annotated[Path, typer.Argument(help="The medium's folder.")],
        out_file: Annotated[Path, typer.Option("--out", help="File for the public half, for `propose --public`.")],
        targets: Annotated[bool, typer.Option("--targets", help="A targets key, not a root key.")] = False,
        yes: Yes = False,
        json: JsonOption = False,
    ) -> None:
        """Make an offline key on its medium, where its holder is. Its passphrase comes as for `begin`."""
        from marketplace.ceremony import create_key

        settings = load_settings()
        made = create_key(folder, "targets" if targets else "root", passphrases_of(settings, ask=not yes))
        out_file.write_text(jsonlib.dumps(made.public.to_dict(), indent=2) + "\n", encoding="utf-8")
        document = {"key": made.id, "folder": str(folder), "file": str(out_file)}
        show(document, json, lambda: print_rows(document))

    @group.command("propose")
    @command
    def propose(
        role: Annotated[str, typer.Argument(help="root, targets, snapshot or timestamp.")],
        out_file: Annotated[Path, typer.Option("--out", help="The file that goes from signer to signer.")],
        replace: Annotated[
            list[str] | None, typer.Option("--replace", help="A root key's id, or how it begins: the one that goes.")
        ] = None,
        public: Annotated[
            list[Path] | None, typer.Option("--public", help="The public half of a new root or targets key.")
        ] = None,
        json: JsonOption = False,
    ) -> None:
        """Begin a change of keys whose signers do not meet. Needs the data folder; changes nothing yet."""
        from kernel.errors import NotFound, ValidationFailed
        from marketplace.keyholding import propose_here
        from marketplace.keys import public_key

        fresh = []
        for file in public or []:
            try:
                fresh.append(public_key(jsonlib.loads(file.read_bytes())))
            except OSError as error:
                raise NotFound(f"{file} cannot be read: {error.strerror}.", file=str(file)) from error
            except ValueError as error:
                raise ValidationFailed("This is no public key.", file=str(file)) from error
        carried = propose_here(load_settings(), role, replace or [], fresh)
        out_file.write_bytes(carried.to_bytes())
        _show_carried(carried, out_file, json)

    @group.command("sign")
    @command
    def sign(
        file: CarriedFile,
        media: Media = None,
        yes: Yes = False,
        json: JsonOption = False,
    ) -> None:
        """Look at a change of keys, and sign it with what is at hand. Needs neither network nor data folder."""
        from marketplace.carried import keys_on, read_carried_file

        settings, carried = load_settings(), read_carried_file(file)
        if not yes:
            print_rows(_carried_rows(carried))
            typer.confirm("Sign this?", abort=True, err=True)
        carried.sign(keys_on(media or [], carried.asked(), passphrases_of(settings, ask=not yes)))
        file.write_bytes(carried.to_bytes())
        _show_carried(carried, file, json)

    @group.command("submit")
    @command
    def submit(file: CarriedFile, json: JsonOption = False) -> None:
        """Let a change of keys count that enough have signed. Needs the data folder. Clients follow by themselves."""
        from marketplace.carried import read_carried_file
        from marketplace.keyholding import submit_here

        done = submit_here(load_settings(), read_carried_file(file))
        show(asdict(done), json, lambda: _print_rotation(done))


def _show_carried(carried: Carried, file: Path, json: bool) -> None:
    summary = carried.summary()

    def text() -> None:
        print_rows(_carried_rows(carried))
        for missing in summary["missing"]:
            out.print(f"Next: `keelstone marketplace ceremony sign {file.name}` by {missing}", markup=False)
        if not summary["missing"]:
            out.print(f"Next: keelstone marketplace ceremony submit {file.name}", markup=False)

    show({"file": str(file), **summary}, json, text)


def _carried_rows(carried: Carried) -> dict[str, str]:
    rows = {"root": f"v{carried.root.signed.version}, from v{carried.before.signed.version}"}
    for role, (gone, come) in carried.changes().items():
        rows["root keys" if role == "root" else role] = f"without {_ids(gone)}, with {_ids(come)}"
    rows |= {f"{role} takes": f"{new} signatures, not {old}" for role, (old, new) in carried.thresholds().items()}
    return rows | {"signed by": _ids(carried.signers())}


def _ids(keys: Sequence[str]) -> str:
    return ", ".join(key[:_SHORT] for key in keys) or "none"


def _print_rotation(done: Rotation) -> None:
    print_rows(
        {
            "role": done.role,
            "retired": _ids(done.retired),
            "added": _ids(done.added),
            "root": f"v{done.root}",
        }
    )
