"""Python's types, checked before anything is compiled: mypy on the plugin, with the guest library beside.

A field that a payload does not have is an error here and not in production. For that, the payload of
each hook must be annotated with its class.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

from kernel.manifest import PluginManifest
from plugin_sdk.toolchain.errors import BuildFailed, compiler_said
from plugin_sdk.toolchain.fetch import Toolchains

_NOTHING_ELSE = "A guest has the standard library, keelstone_guest and the files beside its source, nothing else."
_ERROR = re.compile(r"^(\S[^:\n]*\.py):(\d+): error:", re.MULTILINE)


def check_types(folder: Path, source: Path, library: Path, manifest: PluginManifest, tools: Toolchains) -> None:
    """Raises BuildFailed with the author's file and line, or ToolchainUnavailable."""
    if place := _unannotated(source):
        name, line = place
        raise BuildFailed(
            f"The payload of {name} has no type.",
            plugin=manifest.id,
            file=f"{source.relative_to(folder).as_posix()}:{line}",
            fix="Annotate the parameter with the payload's class, e.g. `draft: UserDraft`.",
        )
    mypy = tools.mypy()
    done = mypy.run(
        *("--config-file=", "--check-untyped-defs", "--follow-imports=silent", "--no-error-summary"),
        "--disable-error-code=func-returns-value",
        *("--no-color-output", "--hide-error-context", "--cache-dir", str(tools.folder / "mypy-cache")),
        *("--no-site-packages", source.relative_to(folder).as_posix()),
        cwd=folder,
        env={"MYPYPATH": os.pathsep.join((str(source.parent), str(library)))},
    )
    if done.returncode:
        output = done.stdout or done.stderr
        fix = _NOTHING_ELSE if "[import-not-found]" in output else None
        raise compiler_said("The types do not fit.", output, _ERROR.search(output), manifest, fix)


def _unannotated(source: Path) -> tuple[str, int] | None:
    """The first function marked @hook whose payload has no annotation, with its line."""
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return None  # mypy says it better
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef):
            continue
        marks = [mark.func for mark in node.decorator_list if isinstance(mark, ast.Call)]
        names = [mark.id if isinstance(mark, ast.Name) else getattr(mark, "attr", "") for mark in marks]
        parameters = [*node.args.posonlyargs, *node.args.args]
        if "hook" in names and parameters and parameters[0].annotation is None:
            return node.name, node.lineno
    return None
