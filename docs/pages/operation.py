"""Pages of what operators and integrators use: settings, commands, errors, REST, GraphQL, permissions."""

from __future__ import annotations

import importlib
import json
import pkgutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from api.app import create_app
from api.bootstrap import Platform, bootstrap
from api.cli import build
from api.graphql import build_schema
from docs.pages.markdown import bounds, code, kind_of, page, paragraph, table
from kernel.errors import PROBLEM_PREFIX, KeelstoneError, error_catalogue
from kernel.permissions import ROLES, permissions_of
from kernel.settings import Settings
from marketplace.validator import Validator
from plugin_sdk.services import PermissionCatalogue
from plugin_sdk.terminal import EXIT_CODES

PACKAGES = ("kernel", "plugin_sdk", "sandbox", "marketplace", "api", "plugins")
_NOT_MODULES = ("plugin_sdk.examples", "plugin_sdk.languages", "plugin_sdk.scaffolds")


def settings() -> str:
    """Every environment variable."""
    schema = Settings.model_json_schema()
    rows = []
    for name, field in schema["properties"].items():
        default = Settings.model_fields[name].default
        if isinstance(default, BaseModel):
            default = default.model_dump(exclude_none=True)
        shown = "" if default in (None, (), {}, PydanticUndefined) else code(json.dumps(default).strip('"'))
        meaning = " ".join(part for part in (field.get("description", ""), _sentence(bounds(field))) if part)
        kind = "list" if field.get("type") == "array" else kind_of(field, {})
        rows.append([code(f"KEELSTONE_{name.upper()}"), kind, shown, meaning])
    introduction = """
    Environment variables with the prefix `KEELSTONE_`. Each has a default with which `keelstone serve` works. Lists are
    written with commas.
    """
    return page("Settings", introduction, table(["variable", "type", "default", "meaning"], rows))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""


def commands() -> str:
    """Every command with its options."""
    root: Any = typer.main.get_command(build())
    parts = [
        "## Exit codes\n\n" + table(["code", "means"], [[n, meaning] for n, meaning in EXIT_CODES.items()]),
    ]
    for name, child in sorted(root.commands.items()):
        parts += _command(f"keelstone {name}", child, 2)
    introduction = """
    The command `keelstone` talks to the platform that serves the data folder, starts one in its own process if none
    does, or goes to `KEELSTONE_URL`. Every command has `--help`, and `--json` prints one JSON document.
    """
    return page("Commands", introduction, *parts)


def _command(name: str, command: Any, level: int) -> list[str]:
    title = f"{'#' * level} {name}\n\n{paragraph(command.help or '')}"
    children = getattr(command, "commands", None)
    if children:
        return [title] + [p for n, c in sorted(children.items()) for p in _command(f"{name} {n}", c, level + 1)]
    rows = []
    usage = name
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            label = parameter.name.upper()
            usage += f" {label}" if parameter.required else f" [{label}]"
            rows.append([code(label), "required" if parameter.required else "", parameter.help or ""])
        elif parameter.name != "help":
            label = ", ".join(parameter.opts + parameter.secondary_opts)
            rows.append([code(label), "required" if parameter.required else "", parameter.help or ""])
    usage += " [OPTIONS]"
    return [f"{title}\n\n```text\n{usage}\n```\n\n{table(['', '', 'meaning'], rows)}"]


def load_everything() -> list[ModuleType]:
    """Import every module of ours, so that all errors are known."""
    found = []
    for package in PACKAGES:
        root = importlib.import_module(package)
        found.append(root)
        for module in pkgutil.walk_packages(root.__path__, package + "."):
            leaf = module.name.rpartition(".")[2]
            if module.name.startswith(_NOT_MODULES) or leaf[0].isdigit() or leaf == "__main__":
                continue
            found.append(importlib.import_module(module.name))
    return found


def errors() -> str:
    """Every error code."""
    load_everything()
    rows = []
    for name, cls in error_catalogue().items():
        meaning = paragraph((cls.__doc__ or "").partition("\n\n")[0])
        if cls is KeelstoneError:
            meaning = "Something failed that nobody foresaw; the log has it under the correlation id."
        rows.append([code(name), cls.status, cls.title, meaning])
    introduction = f"""
    Every error that leaves the platform has a code that never changes its meaning. Over HTTP it is a problem document
    (RFC 9457, `application/problem+json`) of type `{PROBLEM_PREFIX}<code>` with the members `title`, `status`, `detail`
    and `code`, and, where they apply, `plugin`, `hook`, `tenant`, `file`, `expected`, `found` and `fix`. On the command
    line it is one paragraph, or with `--json` the same document under `error`. In GraphQL it stands under `extensions`.
    """
    return page("Errors", introduction, table(["code", "status", "title", "meaning"], rows))


def _platform(home: str) -> Platform:
    return bootstrap(Settings(home=Path(home), seed=False))


def rest() -> str:
    """Every operation of the OpenAPI document."""
    with tempfile.TemporaryDirectory() as home:
        platform = _platform(home)
        document = create_app(platform, manage=False).openapi()
        market = platform.marketplace_app.openapi()
    groups: dict[str, list[list[object]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            group = (operation.get("tags") or ["other"])[0]
            permission = code(operation.get("x-permission")) or ("open" if operation.get("security") == [] else "")
            groups.setdefault(group, []).append([code(method.upper()), code(path), operation["summary"], permission])
    columns = ["method", "path", "does", "needs"]
    names = {"graphql": "GraphQL"}
    parts = [f"## {names.get(g, g.capitalize())}\n\n{table(columns, rows)}" for g, rows in sorted(groups.items())]
    reads = [
        [code(method.upper()), code("/marketplace" + path), operation["summary"]]
        for path, operations in market["paths"].items()
        for method, operation in operations.items()
    ]
    parts.append(
        "## Marketplace\n\nOf the embedded marketplace, and of one that runs on its own without the prefix. Reading is "
        f"open; writing is authorised by signatures.\n\n{table(columns[:3], reads)}"
    )
    introduction = """
    The OpenAPI 3.1 document at `/openapi.json` has the schemas of every body. Send `Authorization: Bearer <access token
    or API key>`. `X-Correlation-ID` is taken over if it has 8 to 64 letters, digits, dots, underscores or hyphens, and
    is always in the answer. Operators act in another tenant with `X-Keelstone-Tenant`. Lists end with `next: null`.
    """
    return page("REST", introduction, *parts)


def graphql() -> str:
    """The schema as it is served."""
    with tempfile.TemporaryDirectory() as home:
        platform = _platform(home)
        sdl = build_schema(platform, [c for _, c in platform.hooks.contribute("contribute_graphql")]).as_str()
    introduction = """
    `POST /graphql` with the same tokens as REST. The schema is a federation subgraph assembled from the running
    plugins; each field checks the permission of its REST operation.
    """
    return page("GraphQL", introduction, f"```graphql\n{sdl.strip()}\n```")


def rules() -> str:
    """Every rule that a release must pass."""
    introduction = """
    `keelstone plugin validate` looks at each of them on the author's machine, and asks the marketplace for what only it
    knows; publishing looks again. A release that breaks an enforced rule is refused; a finding of a monitored one is
    kept with the release. Operators choose with `KEELSTONE_MARKETPLACE_RULES`.
    """
    rows = [
        [code(rule.id), rule.summary, "always enforced" if rule.fixed else rule.mode] for rule in Validator().rules()
    ]
    return page("Rules of a release", introduction, table(["rule", "says", "by default"], rows))


def permissions() -> str:
    """Every permission and who has it from the start."""
    with tempfile.TemporaryDirectory() as home:
        platform = _platform(home)
        known = list(platform.services.get(PermissionCatalogue).permissions())
        owners = {name: m.id for m in platform.hooks.manifests.values() for name in m.permissions}
    held = {role: permissions_of([role], known) for role in ROLES}
    rows = []
    for permission in sorted(known, key=lambda p: p.name):
        roles = [r for r in ROLES if held[r] & {"*", permission.name}]
        rows.append(
            [code(permission.name), permission.summary, ", ".join(roles), owners.get(permission.name, "kernel")]
        )
    introduction = """
    A right has the form `area:action`; a role is a named set of them. `users:*` covers `users:read`. Plugins that
    implement `access_deciding` can deny what a role allows, never the reverse.
    """
    return page("Permissions", introduction, table(["permission", "allows", "roles", "from"], rows))
