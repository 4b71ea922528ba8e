"""Migrations: each plugin's schema is an Alembic branch of its own with a version table of its own.

So a plugin that was taken away leaves nothing that stops the others from upgrading. When every schema is
at its head already, Alembic isn't even imported: heads are read from the revision files' syntax trees.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text

from kernel.errors import ConfigurationError
from kernel.tables import Schema, owner_of, protection_sql


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a schema has come in a database (``current``), and how far this code would bring it (``head``).

    ``known`` says whether this code knows the current revision: a newer one's database it does not.
    """

    plugin: str
    current: str | None
    head: str | None
    known: bool


def standings(connection: Connection, schemas: Sequence[Schema]) -> list[Standing]:
    """Where each schema with migrations stands; changes nothing."""
    present = set(inspect(connection).get_table_names())
    found = []
    for schema in schemas:
        if schema.migrations is None:
            continue
        current: str | None = None
        if schema.version_table in present:
            current = connection.scalar(text(f"SELECT version_num FROM {schema.version_table}"))  # noqa: S608 slug
        known = current is None or current in {_assigned(p).get("revision") for p in schema.migrations.glob("*.py")}
        found.append(Standing(schema.plugin, current, head_revision(schema), known))
    return found


def head_revision(schema: Schema) -> str | None:
    """The last revision in the schema's folder. Raises ConfigurationError if there is not exactly one."""
    assert schema.migrations is not None
    if not schema.migrations.is_dir():
        raise ConfigurationError(
            f"The migrations folder of {schema.plugin} is not there.",
            plugin=schema.plugin,
            file=str(schema.migrations),
        )
    revisions: dict[str, Path] = {}
    parents: set[str] = set()
    for path in sorted(schema.migrations.glob("*.py")):
        if path.name.startswith("__"):
            continue
        names = _assigned(path)
        if not isinstance(names.get("revision"), str):
            raise ConfigurationError(
                f"A file among the migrations of {schema.plugin} is no Alembic revision.",
                plugin=schema.plugin,
                file=str(path),
                expected='revision = "..."',
                found="none",
            )
        revisions[names["revision"]] = path
        down = names.get("down_revision")
        parents.update([down] if isinstance(down, str) else down or [])
    heads = sorted(revisions.keys() - parents)
    if len(heads) > 1:
        raise ConfigurationError(
            f"The migrations of {schema.plugin} have several heads.",
            plugin=schema.plugin,
            file=str(schema.migrations),
            expected="one head",
            found=", ".join(heads),
            fix="Let one revision name the other in down_revision.",
        )
    return heads[0] if heads else None


def _assigned(path: Path) -> dict[str, Any]:
    """Literals assigned to names at the top of a revision file."""
    found: dict[str, Any] = {}
    for node in ast.parse(path.read_bytes(), str(path)).body:
        target: ast.expr | None = None
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, value = node.targets[0], node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            target, value = node.target, node.value
        if isinstance(target, ast.Name) and target.id in ("revision", "down_revision"):
            found[target.id] = ast.literal_eval(value)
    return found


def pending(connection: Connection, schemas: Sequence[Schema]) -> list[Schema]:
    """The schemas that are not at their head."""
    present = set(inspect(connection).get_table_names())
    behind = []
    for schema in schemas:
        if schema.migrations is None:
            if any(name not in present for name in schema.metadata.tables):
                behind.append(schema)
            continue
        head = head_revision(schema)
        current: str | None = None
        if schema.version_table in present:
            current = connection.scalar(text(f"SELECT version_num FROM {schema.version_table}"))  # noqa: S608 slug
        if current != head:
            behind.append(schema)
    return behind


def upgrade(connection: Connection, schema: Schema) -> None:
    """Bring one schema to its head inside the open transaction of ``connection``."""
    if schema.migrations is None:
        _create(connection, schema)
        return
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    script = ScriptDirectory(str(schema.migrations), version_locations=[str(schema.migrations)])

    def revisions(current: Any, _: Any) -> Any:
        return script._upgrade_revs("head", current)

    try:
        with EnvironmentContext(Config(), script, fn=revisions) as environment:
            environment.configure(
                connection=connection,
                target_metadata=schema.metadata,
                version_table=schema.version_table,
                transactional_ddl=True,
                transaction_per_migration=False,
            )
            environment.run_migrations()
    except CommandError as error:
        raise ConfigurationError(
            f"The database is not at a revision that {schema.plugin}'s migrations know.",
            plugin=schema.plugin,
            file=str(schema.migrations),
            found=str(error),
            fix="Start the version of the plugin that made it, or restore a backup.",
        ) from error


def _create(connection: Connection, schema: Schema) -> None:
    present = set(inspect(connection).get_table_names())
    schema.metadata.create_all(connection)
    if connection.dialect.name != "postgresql":
        return
    for table in schema.metadata.sorted_tables:
        owner = owner_of(table)
        if owner is not None and table.name not in present:
            for statement in protection_sql(table.name, owner):
                connection.exec_driver_sql(statement)
