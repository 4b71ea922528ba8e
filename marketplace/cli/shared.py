"""What the marketplace's commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from plugin_sdk.terminal import out

if TYPE_CHECKING:
    from kernel.settings import Settings
    from marketplace.keys import SigningKey

PLUGIN_HELP = "Write, build, test, sign and publish plugins."
MARKETPLACE_HELP = "Find, install and keep up to date what others have published."


def load_settings() -> Settings:
    """The settings of this machine."""
    from kernel.settings import Settings

    return Settings()


def signing_key(settings: Settings, publisher: str, name: str | None = None) -> SigningKey:
    """The publisher's private key on this machine: one that counts, or the one called ``name``. Raises KeyMissing."""
    from marketplace.ownkeys import OwnKeys

    own = OwnKeys(settings, publisher)
    return own.load(name) if name else own.signing()


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
