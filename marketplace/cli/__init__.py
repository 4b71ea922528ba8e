"""Commands of the marketplace: ``keelstone plugin keygen|sign|verify|publish|yank`` and
``keelstone marketplace search|info|trust|serve|audit|proof|check-proof|witness``. Installing is the platform's
(``api.cli``)."""

from __future__ import annotations

from marketplace.cli.author import add_author_commands
from marketplace.cli.log import add_log_commands
from marketplace.cli.operator import add_operator_commands
from marketplace.cli.reader import add_reader_commands
from plugin_sdk.terminal import CommandTree

__all__ = ["register"]


def register(tree: CommandTree) -> None:
    """Add the commands to the tree (entry point ``keelstone.commands``)."""
    add_author_commands(tree)
    add_reader_commands(tree)
    add_operator_commands(tree)
    add_log_commands(tree)
