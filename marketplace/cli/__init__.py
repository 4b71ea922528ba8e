"""Commands of the marketplace, in the groups ``plugin`` (authors) and ``marketplace`` (operators and readers): a module
for each desk. Installing is the platform's (``api.cli``)."""

from __future__ import annotations

from marketplace.cli.advisories import add_advisory_commands
from marketplace.cli.artifacts import add_artifact_commands
from marketplace.cli.author import add_author_commands
from marketplace.cli.bundles import add_bundle_commands
from marketplace.cli.ceremony import add_ceremony_commands
from marketplace.cli.jobs import add_job_commands
from marketplace.cli.keys import add_key_commands
from marketplace.cli.log import add_log_commands
from marketplace.cli.mirrors import add_mirror_commands
from marketplace.cli.operator import add_operator_commands
from marketplace.cli.osv import add_osv_commands
from marketplace.cli.ratings import add_rating_commands
from marketplace.cli.reader import add_reader_commands
from marketplace.cli.reviews import add_review_commands
from marketplace.cli.statements import add_statement_commands
from plugin_sdk.terminal import CommandTree

__all__ = ["register"]


def register(tree: CommandTree) -> None:
    """Add the commands to the tree (entry point ``keelstone.commands``)."""
    add_author_commands(tree)
    add_key_commands(tree)
    add_statement_commands(tree)
    add_job_commands(tree)
    add_reader_commands(tree)
    add_operator_commands(tree)
    add_log_commands(tree)
    add_advisory_commands(tree)
    add_osv_commands(tree)
    add_review_commands(tree)
    add_rating_commands(tree)
    add_ceremony_commands(tree)
    add_mirror_commands(tree)
    add_bundle_commands(tree)
    add_artifact_commands(tree)
