"""Consent receipts from the command line: list, export, and check without any platform."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from api.cli.tenant import TENANT_HELP, TenantArgument
from kernel.errors import ValidationFailed
from kernel.files import write_durably
from plugin_sdk.receipts import check_receipts
from plugin_sdk.terminal import CommandTree, JsonOption, command, out, show

FileArgument = Annotated[Path, typer.Argument(help="The export.", dir_okay=False)]


def register(tree: CommandTree) -> None:
    """Add ``consents`` to the group ``tenant``."""
    group = tree.group("tenant", TENANT_HELP)
    consents = typer.Typer(help="Receipts of what was consented to, signed by the platform.", no_args_is_help=True)
    group.add_typer(consents, name="consents")

    @consents.command("list")
    @command
    def list_receipts(
        tenant: TenantArgument,
        plugin: Annotated[str | None, typer.Option(help="Only of this plugin.")] = None,
        json: JsonOption = False,
    ) -> None:
        """List the newest receipts: who decided on which version, and when."""
        with tree.platform() as platform:
            path = f"/api/v1/tenants/{tenant}/consents"
            found = platform.request("GET", path, params={"plugin": plugin}, tenant=tenant)

        def text() -> None:
            table = Table("number", "plugin", "version", "by", "at", "sha256", box=None)
            for r in found:
                table.add_row(str(r["number"]), r["plugin"], r["version"], r["by"], r["at"], r["digest"][:16])
            out.print(table)

        show(found, json, text)

    @consents.command("export")
    @command
    def export(tenant: TenantArgument, file: FileArgument, json: JsonOption = False) -> None:
        """Write every receipt of the tenant to a file, with the public keys that check them."""
        with tree.platform() as platform:
            found = platform.request("GET", f"/api/v1/tenants/{tenant}/consents/export", tenant=tenant)
        write_durably(file, jsonlib.dumps(found, indent=2).encode())
        answer = {"tenant": tenant, "file": str(file), "receipts": len(found["receipts"])}
        told = f"{answer['receipts']} receipts of {tenant} are in {file}."
        show(answer, json, lambda: out.print(told, markup=False))

    @consents.command("verify")
    @command
    def verify(
        file: FileArgument,
        keys: Annotated[
            Path | None, typer.Option(help="The platform's public keys (jwks.json), from where you trust them.")
        ] = None,
        json: JsonOption = False,
    ) -> None:
        """Check every signature and link in an export. Needs no platform and no network."""
        known = None if keys is None else _read(keys)
        found = check_receipts(_read(file), known)
        last = found[-1] if found else None
        answer = {"receipts": len(found), "trusted_keys": keys is not None, "said": found}

        def text() -> None:
            for said in found:
                _show(said)
            out.print(f"{len(found)} receipts, each signed and each following the one before.", style="green")
            if last is not None:
                out.print(f"The newest is of {last['at']}; later ones would show in a later export.", markup=False)
            if keys is None:
                note = "The keys came with the file: that it is whole is shown, not whose it is. Give --keys."
                out.print(note, style="yellow", markup=False)

        show(answer, json, text)


def _show(said: dict[str, Any]) -> None:
    moved = f" (before: {said['replaces']})" if said["replaces"] else ""
    out.print(f"{said['number']}. {said['plugin']} {said['version']}{moved} at {said['at']}", markup=False)
    granted, denied = ", ".join(said["granted"]) or "nothing", ", ".join(said["denied"]) or "nothing"
    out.print(f"   by {said['by']}: granted {granted}; denied {denied}", markup=False)
    for words in said["changes"]:
        out.print(f"   {words}", markup=False)


def _read(file: Path) -> Any:
    try:
        return jsonlib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValidationFailed(f"{file} can't be read: {error.strerror}.", file=str(file)) from error
    except (ValueError, RecursionError) as error:
        raise ValidationFailed(
            f"{file} is not JSON: {error}.", file=str(file), expected="an export, or keys"
        ) from error
