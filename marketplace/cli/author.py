"""The author's commands: keygen, sign, verify, validate, rules, publish, yank, deprecate."""

from __future__ import annotations

import asyncio
import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marketplace.cli.jobs import sign_in_job
from marketplace.cli.shared import PLUGIN_HELP, load_settings, new_passphrase, print_rows, signing_key
from marketplace.cli.statements import hand_in
from plugin_sdk.terminal import EXIT_REFUSED, CommandTree, JsonOption, RemoteError, command, err, out, progress, show

if TYPE_CHECKING:
    from kernel.settings import Settings
    from marketplace.door import Door

FileArgument = Annotated[Path, typer.Argument(help="A package, <publisher>.<name>-<version>.keelstone.")]


def add_author_commands(tree: CommandTree) -> None:
    """Add them to the group ``plugin``."""
    group = tree.group("plugin", PLUGIN_HELP)

    @group.command("keygen")
    @command
    def keygen(
        publisher: Annotated[str, typer.Argument(help="The namespace to publish under: the id's first part.")],
        name: Annotated[
            str | None, typer.Option("--name", help="Another key for the same namespace, kept as PUBLISHER.NAME.")
        ] = None,
        passphrase: Annotated[
            bool,
            typer.Option(
                "--passphrase",
                help="Keep it under a passphrase: asked for here, or KEELSTONE_KEY_PASSPHRASE or "
                "KEELSTONE_KEY_PASSPHRASE_FILE.",
            ),
        ] = False,
        json: JsonOption = False,
    ) -> None:
        """Make the signing key of a publisher. Keep its file: who loses it loses the namespace."""
        from marketplace.keys import publisher_keys
        from marketplace.ownkeys import key_name

        settings, kept = load_settings(), key_name(publisher, name)
        path = publisher_keys(settings.home).path(kept)
        folder = publisher_keys(settings.home, new_passphrase(settings, path) if passphrase else None)
        key = folder.create(kept)
        data = {
            "publisher": publisher,
            "key": key.id,
            "file": str(folder.path(kept)),
            "public": key.public.to_dict(),
        }
        show(data, json, lambda: print_rows({"publisher": publisher, "key": key.id, "file": data["file"]}))

    @group.command("sign")
    @command
    def sign(
        path: Annotated[Path, typer.Argument(help="The plugin's folder, or a package to sign as well.")] = Path("."),
        key: Annotated[str | None, typer.Option("--key", help="A key on this machine, by its file's name.")] = None,
        json: JsonOption = False,
    ) -> None:
        """Pack the built plugin and sign it with its publisher's key, beside those who have signed the same package."""
        from kernel.manifest import load_manifest
        from marketplace.package import component_path, read_package
        from marketplace.publishing import (
            join_signature,
            read_signed,
            sign_folder,
            sign_package,
            signature_path,
        )
        from marketplace.signing import signers_named

        settings = load_settings()
        limit = settings.max_package_mb * 1024 * 1024
        data = b"" if path.is_dir() else read_signed(path, max_bytes=limit)[0]
        manifest = read_package(data, max_bytes=limit).manifest if data else load_manifest(path)
        by = signing_key(settings, manifest.publisher, key)  # who is asked for a passphrase sees no progress bar
        with progress("Packing and signing", json=json):
            if path.is_dir():
                signed = sign_folder(path, component_path(path, manifest.short_name), by, max_bytes=limit)
                file = path / "build" / signed.package.file_name
            else:
                signed, file = sign_package(data, by, max_bytes=limit), path
            envelope = join_signature(file, signed, by)
        signature, package = signature_path(file), signed.package
        result: dict[str, Any] = {
            "plugin": package.manifest.id,
            "version": package.manifest.version,
            "file": str(file),
            "signature": str(signature),
            "digest": package.digest,
            "size": len(package.data),
            "signers": list(signers_named(envelope)),
        }
        rows = {**result, "signers": ", ".join(signer[:16] for signer in result["signers"])}
        show(result, json, lambda: print_rows(rows))

    @group.command("verify")
    @command
    def verify(
        file: FileArgument,
        offline: Annotated[bool, typer.Option("--offline", help="Do not ask the marketplace for news.")] = False,
        json: JsonOption = False,
    ) -> None:
        """Check a package link by link, from the trusted root to its manifest."""
        from marketplace.connect import open_client
        from marketplace.publishing import read_signed

        settings = load_settings()
        data, envelope = read_signed(file, max_bytes=settings.max_package_mb * 1024 * 1024)
        client = open_client(settings)

        async def run() -> Any:
            try:
                return await client.verify(data, envelope, offline=offline)
            finally:
                await client.close()

        with progress("Verifying", json=json):
            result = asyncio.run(run())
        package = result.package
        document = {
            "verified": True,
            "plugin": package.manifest.id,
            "version": package.manifest.version,
            "digest": package.digest,
            "chain": list(package.chain),
            "notes": list(result.notes),
        }

        def text() -> None:
            for line in package.chain:
                out.print(f"  ✓ {line}", markup=False)
            for note in result.notes:
                err.print(f"  ! {note}", style="yellow", markup=False)
            out.print(f"{package.manifest.id} {package.manifest.version} is verified.", markup=False)

        show(document, json, text)

    @group.command("validate")
    @command
    def validate(
        path: Annotated[Path, typer.Argument(help="A built plugin's folder, or a package.")] = Path("."),
        offline: Annotated[bool, typer.Option("--offline", help="Do not ask the marketplace.")] = False,
        json: JsonOption = False,
    ) -> None:
        """Look whether a plugin would be published, by every rule, here and in the marketplace; ends with 3 if not."""
        from marketplace.checking import check_here, merged
        from marketplace.door import open_door

        settings = load_settings()
        with progress("Looking at it", json=json):
            package, seen = check_here(path, settings)
        if not offline:
            parts = {"package": (package.file_name, package.data, "application/zip")}
            with open_door(tree, settings) as door, progress("Asking the marketplace", json=json):
                seen = merged(seen, door.request("POST", "/validate", files=parts))

        refused = bool(seen.enforced)
        document = {**asdict(seen), "refused": refused}

        def text() -> None:
            _print_findings(document["findings"])
            for rule in seen.unseen:
                err.print(f"  ? not looked at: {rule}", style="dim", markup=False)
            for hook, used in sorted(seen.profile.items()):
                needed = f"{used.fuel:,} instructions, {used.memory_bytes / (1 << 20):.1f} MiB of memory"
                err.print(f"  {hook} needs for a sample: {needed}", style="dim", markup=False)
            verdict = "would be refused" if refused else "may be published"
            out.print(f"{seen.plugin} {seen.version} {verdict}.", markup=False)

        show(document, json, text)
        if refused:
            raise typer.Exit(EXIT_REFUSED)

    @group.command("rules")
    @command
    def rules(json: JsonOption = False) -> None:
        """List the rules that a release must pass in this marketplace."""
        from marketplace.door import open_door

        with open_door(tree, load_settings()) as door:
            found = door.request("GET", "/rules")

        def text() -> None:
            for rule in found:
                mode = "always enforced" if rule["fixed"] else rule["mode"]
                out.print(f"{rule['id']}: {rule['summary']} ({mode})", markup=False)

        show(found, json, text)

    @group.command("publish")
    @command
    def publish(
        file: Annotated[Path | None, typer.Argument(help="The signed package. Default: the newest in build/.")] = None,
        from_job: Annotated[
            bool,
            typer.Option("--from-job", help="In CI: sign it as this job (FILE may be the built plugin's folder)."),
        ] = False,
        audience: Annotated[
            str | None,
            typer.Option("--audience", help="With --from-job: the marketplace. Default: the one trusted here."),
        ] = None,
        json: JsonOption = False,
    ) -> None:
        """Publish a signed package; the first one also binds the namespace to your key."""
        from marketplace.door import open_door
        from marketplace.package import read_package
        from marketplace.publishing import read_signed, signature_path

        settings = load_settings()
        limit = settings.max_package_mb * 1024 * 1024
        if from_job:
            with open_door(tree, settings) as door, progress("Signing as this job", json=json):
                file, signed = sign_in_job(door, settings, file or Path("."), audience)
            signed.write(file.parent)
        file = file or _newest_package(Path("build"))
        data, envelope = read_signed(file, max_bytes=limit)
        publisher = read_package(data, max_bytes=limit).manifest.publisher
        parts = {"package": (file.name, data, "application/zip")}
        if envelope is not None:
            parts["signature"] = (signature_path(file).name, envelope, "application/json")
        with open_door(tree, settings) as door, progress("Publishing", json=json):
            registered = _ensure_namespace(door, settings, publisher, envelope)
            receipt = door.request("POST", "/publish", files=parts)
            while receipt["state"] in ("received", "scanning"):
                # Each request waits for the scan itself, so this asks a few times a minute.
                receipt = door.request("POST", "/publish", files=parts)
            page = door.request("GET", f"/publishes/{receipt['digest']}")
        file.with_name(file.name + ".receipt.json").write_text(jsonlib.dumps(receipt, indent=2), encoding="utf-8")
        live = receipt["state"] == "live"
        confirmed = _confirm(settings, receipt, data) if live else None

        def text() -> None:
            if registered:
                out.print(f"Namespace {publisher} is now bound to your key {registered['keys'][0][:16]}.", markup=False)
            _print_findings(page["findings"])
            print_rows({k: receipt[k] for k in ("plugin", "version", "state", "digest", "size", "published")})
            if not live:
                err.print(_NOT_LIVE[receipt["state"]], style="yellow", markup=False)
            elif confirmed is None:
                err.print("The receipt was not checked: no marketplace is trusted here.", style="dim", markup=False)
            else:
                print_rows({"logged": confirmed})

        document = {"namespace": registered, "receipt": receipt, "findings": page["findings"]}
        show({**document, "confirmed": confirmed is not None}, json, text)

    @group.command("yank")
    @command
    def yank(
        plugin: Annotated[str, typer.Argument(help="The plugin's id, publisher/name.")],
        version: Annotated[str, typer.Argument(help="The version to withdraw.")],
        reason: Annotated[str, typer.Option("--reason", help="Why; shown to everybody.")],
        json: JsonOption = False,
    ) -> None:
        """Withdraw a release from new installs. Those who run it keep it."""
        from marketplace.door import open_door
        from marketplace.signing import sign_yank

        settings = load_settings()
        key = signing_key(settings, plugin.partition("/")[0])
        with open_door(tree, settings) as door:
            page = door.request("GET", f"/plugins/{plugin}/versions/{version}")
            envelope = sign_yank(plugin, version, page["release"]["digest"], reason, key)
            receipt = hand_in(door, envelope)
        show(receipt, json, lambda: print_rows({k: receipt[k] for k in ("plugin", "version", "state")}))

    @group.command("deprecate")
    @command
    def deprecate(
        plugin: Annotated[str, typer.Argument(help="The plugin's id, publisher/name.")],
        reason: Annotated[str, typer.Option("--reason", help="Why; shown to everybody.")] = "",
        successor: Annotated[str | None, typer.Option("--successor", help="The plugin to use instead.")] = None,
        undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
        json: JsonOption = False,
    ) -> None:
        """Advise against choosing a plugin. Its releases stay installable; search ranks it lower."""
        from datetime import UTC, datetime

        from kernel.errors import ValidationFailed
        from marketplace.door import open_door
        from marketplace.signing import sign_deprecation

        if not undo and not reason.strip():
            raise ValidationFailed(
                "Say why.", plugin=plugin, expected="--reason TEXT", fix="Or --undo, to take it back."
            )
        settings = load_settings()
        key = signing_key(settings, plugin.partition("/")[0])
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        envelope = sign_deprecation(plugin, None if undo else reason, None if undo else successor, now, key)
        with open_door(tree, settings) as door:
            record = hand_in(door, envelope)
        shown = {"plugin": plugin, "deprecated": record["reason"] or "no", "successor": record["successor"] or "none"}
        show(record, json, lambda: print_rows(shown))


_NOT_LIVE = {
    "quarantined": "A person looks at it before it goes live. `keelstone plugin state` says what became of it.",
    "rejected": "A reviewer has turned this release down. `keelstone plugin state` says why.",
    "refused": "It breaks a rule. Mend what is said above, and sign and publish it again.",
}


def _print_findings(findings: list[dict[str, Any]]) -> None:
    for each in findings:
        sign, style = ("✗", "red") if each["enforced"] else ("!", "yellow")
        err.print(f"  {sign} {each['problem']} [{each['rule']}]. {each['fix']}", style=style, markup=False)


def _ensure_namespace(door: Door, settings: Settings, publisher: str, envelope: bytes | None) -> dict[str, Any] | None:
    """Register the namespace with this machine's key if nobody has yet; what was registered. Raises SignatureInvalid
    if people who must sign its releases have not signed this one."""
    from marketplace.namespaces import make_key_set
    from marketplace.publishing import check_signers

    try:
        present = door.request("GET", f"/namespaces/{publisher}")
        check_signers(envelope, publisher, present["keys"], present["releases"])
        return None
    except RemoteError as error:
        if error.body.get("code") != "namespace-unknown":
            raise
    document = make_key_set(publisher, [signing_key(settings, publisher)]).document
    registered: dict[str, Any] = door.request("POST", "/namespaces", json=jsonlib.loads(document))
    return registered


def _confirm(settings: Settings, receipt: dict[str, Any], package: bytes) -> str | None:
    """What the log says of the receipt, checked; None if no marketplace is trusted here. Raises VerificationFailed."""
    from hashlib import sha256

    from marketplace.connect import open_logbook
    from marketplace.errors import VerificationFailed

    try:
        logbook = open_logbook(settings)
    except VerificationFailed:
        return None
    try:
        proof, checkpoint = logbook.confirm(receipt, sha256(package).hexdigest())
    finally:
        logbook.close()
    return f"entry {proof.index} of {checkpoint.size}, root {checkpoint.root.hex()[:16]}"


def _newest_package(folder: Path) -> Path:
    from kernel.errors import NotFound
    from marketplace.package import SUFFIX

    found = sorted(folder.glob(f"*{SUFFIX}"), key=lambda p: p.stat().st_mtime)
    if not found:
        raise NotFound(f"There is no package in {folder}.", file=str(folder), fix="Run `keelstone plugin sign` first.")
    return found[-1]
