"""What the marketplace's commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from plugin_sdk.terminal import out

if TYPE_CHECKING:
    from kernel.settings import Settings
    from marketplace.keys import SigningKey
    from marketplace.ownkeys import OwnKeys
    from marketplace.passphrases import Passphrases

PLUGIN_HELP = "Write, build, test, sign and publish plugins."
MARKETPLACE_HELP = "Find, install and keep up to date what others have published."


def load_settings() -> Settings:
    """The settings of this machine."""
    from kernel.settings import Settings

    return Settings()


def signing_key(settings: Settings, publisher: str, name: str | None = None) -> SigningKey:
    """The publisher's private key on this machine: one that counts, or the one called ``name``. Raises KeyMissing."""
    own = own_keys(settings, publisher)
    return own.load(name) if name else own.signing()


def own_keys(settings: Settings, publisher: str) -> OwnKeys:
    """The publisher's keys on this machine. Who sits at a terminal is asked for the passphrase of one that has it."""
    from marketplace.ownkeys import OwnKeys

    return OwnKeys(settings, publisher, passphrases_of(settings, ask=sys.stdin.isatty()))


class _Typed:
    """Passphrases typed on the terminal, unseen."""

    def of(self, path: Path) -> str:
        return str(typer.prompt(f"Passphrase of {path}", hide_input=True, err=True))

    def new(self, path: Path) -> str | None:
        from marketplace.passphrases import checked_passphrase

        asked = f"New passphrase for the key in {path.parent} (empty: none)"
        said = typer.prompt(asked, default="", show_default=False, hide_input=True, confirmation_prompt=True, err=True)
        return checked_passphrase(said) if said else None


def passphrases_of(settings: Settings, *, ask: bool) -> Passphrases:
    """What the settings give, else (``ask``) whoever sits at the terminal, else none. Raises NotFound."""
    from kernel.errors import NotFound
    from marketplace.passphrases import OnePassphrase

    file = settings.key_passphrase_file
    if settings.key_passphrase is not None:
        return OnePassphrase(settings.key_passphrase.get_secret_value())
    if file is None:
        return _Typed() if ask else OnePassphrase(None)
    try:
        return OnePassphrase(next(iter(file.read_text(encoding="utf-8").splitlines()), ""))
    except OSError as error:
        raise NotFound(f"{file} cannot be read: {error.strerror}.", file=str(file)) from error


def new_passphrase(settings: Settings, path: Path) -> Passphrases:
    """The passphrase that a key to be made in ``path`` must get. Raises ValidationFailed if nobody gives one."""
    from kernel.errors import ValidationFailed
    from marketplace.passphrases import OnePassphrase

    said = passphrases_of(settings, ask=sys.stdin.isatty()).new(path)
    if said is None:
        raise ValidationFailed(
            "A passphrase was asked for, and none was given.",
            file=str(path),
            fix="Type one on a terminal, or set KEELSTONE_KEY_PASSPHRASE or KEELSTONE_KEY_PASSPHRASE_FILE.",
        )
    return OnePassphrase(said)


def print_rows(rows: dict[str, Any]) -> None:
    """Names and values, one a line."""
    width = max(len(name) for name in rows)
    for name, value in rows.items():
        out.print(f"{name:<{width}}  {value}", markup=False)


def print_table(columns: tuple[str, ...], rows: list[list[Any]], empty: str) -> None:
    """A table for people, or the sentence ``empty``."""
    from rich.table import Table
    from rich.text import Text

    if not rows:
        out.print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, column in enumerate(columns):
        # The first column is what people copy: never shortened.
        table.add_column(column, no_wrap=at == 0, overflow="ignore" if at == 0 else "fold")
    for row in rows:
        # Text, because a publisher's words must not act as markup.
        table.add_row(*(Text(str(cell)) for cell in row))
    out.print(table)
