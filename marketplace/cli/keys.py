"""Publishers' keys from the command line: propose a key set, sign it (several people, each where their key is), submit
it; hand a namespace over; recover one as the marketplace's operator."""

from __future__ import annotations

import json as jsonlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketplace.cli.shared import (
    MARKETPLACE_HELP,
    PLUGIN_HELP,
    load_settings,
    own_keys,
    print_rows,
    print_table,
    signing_key,
)
from marketplace.cli.statements import hand_in
from plugin_sdk.terminal import CommandTree, JsonOption, RemoteError, command, out, show

if TYPE_CHECKING:
    from kernel.settings import Settings
    from marketplace.door import Door
    from marketplace.namespaces import KeySet, Proposal

PublisherArgument = Annotated[str, typer.Argument(help="The namespace: the first part of its plugins' ids.")]
FileArgument = Annotated[Path, typer.Argument(help="The key set that is being signed.", exists=True, dir_okay=False)]
OutOption = Annotated[Path | None, typer.Option("--out", help="The file to write. Default: PUBLISHER.keys-vN.json.")]
KeyOption = Annotated[
    list[str] | None, typer.Option("--key", help="A key on this machine, by its file's name. Default: the publisher's.")
]
AddOption = Annotated[
    list[str] | None, typer.Option("--add", help="A public key (`keys public`), or a key on this machine by name.")
]


def add_key_commands(tree: CommandTree) -> None:
    """Add the group ``plugin keys``, and ``transfer`` and ``recover`` to the group ``marketplace``."""
    keys = typer.Typer(help="Who may publish under a name: key sets, signed by several people.", no_args_is_help=True)
    tree.group("plugin", PLUGIN_HELP).add_typer(keys, name="keys")
    _add_looking(tree, keys)
    _add_changing(tree, keys)
    _add_handing_over(tree)
    _add_domain(tree)


def _add_looking(tree: CommandTree, keys: typer.Typer) -> None:
    @keys.command("show")
    @command
    def show_keys(publisher: PublisherArgument, json: JsonOption = False) -> None:
        """Show a namespace's key sets over time, and which of the keys are on this machine."""
        from marketplace.door import open_door
        from marketplace.ownkeys import OwnKeys

        own = OwnKeys(load_settings(), publisher)
        with open_door(tree, load_settings()) as door:
            found = door.request("GET", f"/namespaces/{publisher}/keys")
        here = {own.public(name).keyid: name for name in own.names()}
        if here:
            own.remember(jsonlib.dumps(found["document"]).encode())

        def text() -> None:
            rows = [
                [
                    f"v{each['version']}",
                    each["at"] or "from the beginning",
                    f"{each['threshold']} of {len(each['keys'])}",
                    f"{each['releases']} of {len(each['keys'])}",
                    ", ".join(key[:16] + (f" ({here[key]})" if key in here else "") for key in each["keys"]),
                    "recovered by the operator" if each["recovered"] else each["owner"] or "",
                ]
                for each in found["versions"]
            ]
            print_table(("keys", "since", "to change", "to release", "which", "new owner"), rows, "None.")

        show({**found, "here": here}, json, text)

    @keys.command("public")
    @command
    def public(
        publisher: PublisherArgument,
        name: Annotated[
            str | None, typer.Option("--key", help="The key's file name. Default: the publisher's.")
        ] = None,
        out_file: OutOption = None,
        json: JsonOption = False,
    ) -> None:
        """Write a key's public half into a file, for whoever proposes the next key set."""
        from marketplace.ownkeys import OwnKeys

        key = OwnKeys(load_settings(), publisher).public(name or publisher)
        file = out_file or Path(f"{name or publisher}.pub.json")
        file.write_text(jsonlib.dumps(key.to_dict(), indent=2) + "\n", encoding="utf-8")
        show({"key": key.keyid, "file": str(file)}, json, lambda: print_rows({"key": key.keyid, "file": str(file)}))


def _add_changing(tree: CommandTree, keys: typer.Typer) -> None:
    @keys.command("propose")
    @command
    def propose_keys(
        publisher: PublisherArgument,
        add: AddOption = None,
        remove: Annotated[list[str] | None, typer.Option("--remove", help="A key's id, or its beginning.")] = None,
        stolen: Annotated[
            list[str] | None,
            typer.Option("--stolen", help="As --remove, for a key that a thief has: KEY, or KEY@MOMENT (ISO 8601)."),
        ] = None,
        threshold: Annotated[int | None, typer.Option(help="How many keys must sign the next key set.")] = None,
        releases: Annotated[int | None, typer.Option(help="How many must sign a release. Default: as many.")] = None,
        out_file: OutOption = None,
        json: JsonOption = False,
    ) -> None:
        """Write the next key set into a file and sign it with this machine's keys; then others sign it."""
        settings = load_settings()
        before = _present(tree, settings, publisher)
        document = _proposal(settings, publisher, before, add, remove, stolen, threshold, releases, None)
        _write(settings, publisher, document, before, out_file, json)

    @keys.command("sign")
    @command
    def sign_keys(file: FileArgument, key: KeyOption = None, json: JsonOption = False) -> None:
        """Add this machine's signatures to a key set, in its file. Needs no network."""
        from marketplace.namespaces import look_at, sign_proposal
        from marketplace.signing import peek_payload

        document = file.read_bytes()
        publisher = str(peek_payload(document).get("publisher", ""))
        own = own_keys(load_settings(), publisher)
        document = sign_proposal(document, [own.load(name) for name in key] if key else own.all())
        file.write_bytes(document)
        _show_proposal(file, look_at(document, own.present()), json)

    @keys.command("submit")
    @command
    def submit(file: FileArgument, json: JsonOption = False) -> None:
        """Hand a signed key set in: from then on its keys count, and no others."""
        from kernel.errors import Conflict
        from marketplace.door import open_door
        from marketplace.namespaces import look_at
        from marketplace.ownkeys import OwnKeys
        from marketplace.signing import peek_payload

        settings, document = load_settings(), file.read_bytes()
        publisher = str(peek_payload(document)["publisher"])
        before, version = _present(tree, settings, publisher), peek_payload(document)["version"]
        seen = look_at(document, before if before is not None and version == before.version + 1 else None)
        if not seen.complete:
            raise Conflict(
                f"{file} has not been signed by everybody who must.",
                file=str(file),
                expected=_missing(seen),
                found=f"signed by {', '.join(key[:16] for key in seen.signed) or 'nobody'}",
                fix=f"They run `keelstone plugin keys sign {file.name}` where their keys are, and send it back.",
            )
        with open_door(tree, settings) as door:
            record = door.request("POST", "/namespaces", json=jsonlib.loads(document))
            found = door.request("GET", f"/namespaces/{publisher}/keys")
        OwnKeys(settings, publisher).remember(jsonlib.dumps(found["document"]).encode())
        rows = {
            "namespace": publisher,
            "key set": f"v{record['version']}",
            "to change it": f"{record['threshold']} of {len(record['keys'])}",
            "to release": f"{record['releases']} of {len(record['keys'])}",
        }
        show(record, json, lambda: print_rows(rows))


def _add_handing_over(tree: CommandTree) -> None:
    group = tree.group("marketplace", MARKETPLACE_HELP)

    @group.command("transfer")
    @command
    def transfer(
        publisher: PublisherArgument,
        to: Annotated[str, typer.Option("--to", help="Who holds it from now on, for everybody to read.")],
        add: Annotated[list[str], typer.Option("--add", help="The new owner's public key (`plugin keys public`).")],
        threshold: Annotated[int | None, typer.Option(help="How many of the new keys must sign what follows.")] = None,
        out_file: OutOption = None,
        json: JsonOption = False,
    ) -> None:
        """Hand a namespace over: sign it as its owner; the new owner accepts with `plugin keys sign` and `submit`."""
        settings = load_settings()
        if "/" in publisher:
            from kernel.errors import ValidationFailed

            raise ValidationFailed(
                "A plugin is handed over with its namespace: its id never changes.",
                found=publisher,
                expected=f"the namespace {publisher.partition('/')[0]}",
                fix="To give one plugin away, the new owner publishes it under a namespace of their own, and you "
                f"`keelstone plugin deprecate {publisher} --successor THEIRS/NAME --reason WHY`.",
            )
        before = _present(tree, settings, publisher)
        gone = list(before.keys) if before else []
        document = _proposal(settings, publisher, before, add, gone, None, threshold or 1, None, to)
        _write(settings, publisher, document, before, out_file or Path(f"{publisher}.transfer.json"), json)

    @group.command("recover")
    @command
    def recover(
        file: FileArgument,
        reason: Annotated[str, typer.Option("--reason", help="Why, for everybody: how you know who asks.")],
        yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
        json: JsonOption = False,
    ) -> None:
        """Put new keys in place of a publisher's lost ones. Needs the marketplace's data folder. The log says so, and
        platforms hold what the new keys sign."""
        from dataclasses import asdict

        from marketplace.datafolder import change

        if not yes:
            typer.confirm("The old keys will count for nothing any more. Recover the namespace?", abort=True, err=True)
        document = file.read_bytes()
        record = change(load_settings(), lambda registry: registry.recover_namespace(document, reason))
        rows = {"namespace": record.publisher, "key set": f"v{record.version}", "keys": ", ".join(record.keys)}
        show(asdict(record), json, lambda: print_rows(rows))


def _present(tree: CommandTree, settings: Settings, publisher: str) -> KeySet | None:
    """The marketplace's present key set, checked from the first one on; None if there is no such namespace."""
    from marketplace.door import open_door

    with open_door(tree, settings) as door:
        return _ask(door, settings, publisher)


def _ask(door: Door, settings: Settings, publisher: str) -> KeySet | None:
    from marketplace.ownkeys import OwnKeys
    from marketplace.succession import read_succession

    try:
        found = door.request("GET", f"/namespaces/{publisher}/keys")
    except RemoteError as error:
        if error.body.get("code") != "namespace-unknown":
            raise
        return None
    body = jsonlib.dumps(found["document"]).encode()
    if (own := OwnKeys(settings, publisher)).names():
        own.remember(body)
    return read_succession(body).newest


def _proposal(
    settings: Settings,
    publisher: str,
    before: KeySet | None,
    add: list[str] | None,
    remove: list[str] | None,
    stolen: list[str] | None,
    threshold: int | None,
    releases: int | None,
    owner: str | None,
) -> bytes:
    from marketplace.namespaces import propose, sign_proposal

    own, present = own_keys(settings, publisher), dict(before.keys) if before else {}
    taken = {}
    for said in stolen or ():
        key, _, moment = said.partition("@")
        taken[_one(key, present)] = moment or datetime.now(UTC).isoformat(timespec="seconds")
    gone = {*taken, *(_one(key, present) for key in remove or ())}
    kept = [key for id, key in present.items() if id not in gone]
    document = propose(
        before,
        [*kept, *(_public(own, said) for said in add or ())],
        publisher=publisher,
        threshold=threshold or (before.threshold if before and owner is None else 1),
        releases=releases if releases is not None or owner is not None or before is None else before.releases,
        stolen=taken,
        owner=owner,
    )
    return sign_proposal(document, [own.load(name) for name in own.names()])


def _one(beginning: str, keys: dict[str, Any]) -> str:
    from kernel.errors import ValidationFailed

    found = [key for key in keys if key.startswith(beginning)]
    if len(found) != 1 or len(beginning) < 8:
        raise ValidationFailed(
            f"{beginning!r} does not name one key of the present key set.",
            expected=", ".join(key[:16] for key in keys),
            found=beginning,
        )
    return found[0]


def _public(own: Any, said: str) -> Any:
    from kernel.errors import ValidationFailed
    from marketplace.keys import public_key

    path = Path(said)
    if not path.is_file():
        return own.public(said)
    try:
        return public_key(jsonlib.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValidationFailed("This is no public key.", file=str(path), fix="See `plugin keys public`.") from error


def _write(
    settings: Settings, publisher: str, document: bytes, before: KeySet | None, file: Path | None, json: bool
) -> None:
    from marketplace.namespaces import look_at

    seen = look_at(document, before)
    path = file or Path(f"{publisher}.keys-v{seen.body['version']}.json")
    path.write_bytes(document)
    _show_proposal(path, seen, json)


def _show_proposal(file: Path, seen: Proposal, json: bool) -> None:
    data = {
        "file": str(file),
        "publisher": seen.body["publisher"],
        "version": seen.body["version"],
        "signed": list(seen.signed),
        "missing": [*seen.missing_new],
        "missing_of_before": seen.missing_old,
        "complete": seen.complete,
    }

    def text() -> None:
        print_rows({"file": file, "key set": f"{seen.body['publisher']} v{seen.body['version']}"})
        print_rows({"signed by": ", ".join(key[:16] for key in seen.signed) or "nobody yet"})
        following = f"keelstone plugin keys submit {file}"
        if not seen.complete:
            following = f"{_missing(seen)} must sign it: `keelstone plugin keys sign {file.name}` where the key is"
        out.print(f"Next: {following}", markup=False)

    show(data, json, text)


def _missing(seen: Proposal) -> str:
    parts = [f"key {key[:16]}" for key in seen.missing_new]
    if seen.missing_old:
        parts.append(f"{seen.missing_old} of the present keys {', '.join(key[:16] for key in seen.could_sign)}")
    return " and ".join(parts)


def _add_domain(tree: CommandTree) -> None:
    @tree.group("plugin", PLUGIN_HELP).command("verify-namespace")
    @command
    def verify_namespace(
        publisher: PublisherArgument,
        domain: Annotated[str, typer.Argument(help="A domain of yours, such as acme.example.")],
        json: JsonOption = False,
    ) -> None:
        """Show that a namespace belongs to a domain: it must have a TXT record that names the namespace."""
        from marketplace.door import open_door
        from marketplace.signing import sign_domain

        settings = load_settings()
        envelope = sign_domain(publisher, domain, signing_key(settings, publisher))
        with open_door(tree, settings) as door:
            found = hand_in(door, envelope)
        show(found, json, lambda: print_rows(found))
