"""The page of the SDK: what plugins in Python import, what tests import, the guest libraries of each language."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from docs.pages.markdown import code, page, paragraph, table

_MODULES = {
    "plugin_sdk": "In-process plugins: built-ins and extensions",
    "plugin_sdk.services": "Services that a plugin may ask for",
    "plugin_sdk.web": "REST and GraphQL",
    "plugin_sdk.testing": "Tests of guests and extensions",
}
_FIXTURES = "plugin_sdk.testing.fixtures"
_PORTS = ("FakeKv", "FakeTransaction")
"""Fakes of ports: their methods are the port's."""


@dataclass(frozen=True, slots=True)
class _Library:
    """Where a language's guest library is and how its public declarations look."""

    title: str
    folder: str
    names: tuple[str, ...]
    declaration: re.Pattern[str]
    leave_out: re.Pattern[str] = re.compile(r"(?!)")


_LIBRARIES = (
    _Library(
        "AssemblyScript",
        "assemblyscript/keelstone",
        (
            "log",
            "config",
            "kv",
            "http",
            "events",
            "secrets",
            "ai",
            "notify",
            "clock",
            "random",
            "services",
            "json",
            "replies",
        ),
        re.compile(r"^\s*export (?:abstract )?(?:function|class) (?P<what>[^{;]+?)\s*(?:\{|;|$)"),
    ),
    _Library("C", "c", ("keelstone",), re.compile(r"^(?P<what>[a-z][\w ]*[ *]ks_\w+\(.*\))[^;]*;$")),
    _Library(
        "Go",
        "go",
        ("keelstone", "host"),
        re.compile(r"^(?P<what>(?:func (?:\([^)]*\) )?|type )[A-Z][^{]*?)\s*(?:\{.*)?$"),
    ),
    _Library(
        "JavaScript and TypeScript",
        "javascript",
        ("log", "config", "kv", "http", "events", "secrets", "ai", "notify", "clock", "random", "services", "replies"),
        re.compile(r"^\s*export (?:async )?(?:function|class|interface) (?P<what>[^{;]+?)\s*(?:\{|;|$)"),
    ),
    _Library(
        "Rust",
        "rust",
        ("host", "json", "replies"),
        re.compile(r"^\s*pub (?:fn|struct|enum|mod) (?P<what>[^{;]+?)\s*(?:\{|;|$)"),
        re.compile(r"\*const|\*mut|\($"),
    ),
    _Library("Zig", "zig", ("keelstone", "host"), re.compile(r"^\s*pub fn (?P<what>[^{;]+?)\s*(?:\{|;|$)")),
)
_COMMENT = re.compile(r"^\s*(?:///|//!|//|/\*\*?|\*/|\*)\s?(?P<text>.*?)\s*(?:\*/)?$")


def sdk() -> str:
    """The whole page."""
    parts = []
    for name, title in _MODULES.items():
        parts += [f"## {title}", f"`{name}`", _module(name)]
    parts += ["### Fixtures", f"`{_FIXTURES}`", _fixtures()]
    parts += ["## Guest libraries", "Each has one module or group of functions for each capability of the manifest."]
    parts += ["### Python", _python()]
    for library in _LIBRARIES:
        parts += [f"### {library.title}", _library(library)]
    introduction = """
    Everything that a plugin may import. In-process plugins import from `plugin_sdk` and nothing else of Keelstone;
    guests have the guest library of their language, which speaks the [contract](wit.md). Payloads of hooks are on the
    page of [hooks](hooks.md), with a sample of each.
    """
    return page("SDK", introduction, *parts)


def _sentence(text: str | None) -> str:
    """The first sentence of a docstring."""
    first = paragraph(text or "").split("\n\n")[0]
    return re.split(r"(?<=[.:]) (?=[A-Z`])", first)[0]


def _module(name: str) -> str:
    module = importlib.import_module(name)
    rows = []
    for public in sorted(module.__all__, key=str.lower):
        member = getattr(module, public)
        rows.append([code(public), _sentence(inspect.getdoc(member)) if callable(member) else code(_short(member))])
        if name == "plugin_sdk.testing" and inspect.isclass(member) and public not in _PORTS:
            rows += [[code(f"{public}.{m}"), _sentence(doc)] for m, doc in _methods(member)]
    return table(["name", "says"], rows)


def _short(value: Any) -> str:
    return repr(value) if len(repr(value)) <= 60 else type(value).__name__


def _methods(cls: type) -> Iterator[tuple[str, str]]:
    for name, member in vars(cls).items():
        function = member.fget if isinstance(member, property) else member
        if name.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
            continue
        arguments = "" if isinstance(member, property) else _arguments(function)
        yield f"{name}{arguments}", function.__doc__


def _arguments(function: Any) -> str:
    names = [p.name for p in inspect.signature(function).parameters.values() if p.name != "self"]
    return f"({', '.join(names)})"


def _fixtures() -> str:
    module = importlib.import_module(_FIXTURES)
    tree = ast.parse(inspect.getsource(module))
    found = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in module.__all__]
    return table(["name", "says"], [[code(n.name), _sentence(ast.get_docstring(n))] for n in found])


def _python() -> str:
    folder = Path(str(files("plugin_sdk"))) / "languages" / "python" / "keelstone_guest"
    rows = []
    for file in sorted(folder.glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if file.stem in ("__init__", "preload", "host", "dispatch", "payloads"):
            continue
        for node in tree.body:
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
                continue
            told = node.name
            if isinstance(node, ast.FunctionDef):
                told += f"({', '.join(a.arg for a in (*node.args.args, *node.args.kwonlyargs))})"
            rows.append([code(f"{file.stem}.{told}"), _sentence(ast.get_docstring(node))])
    return table(["name", "says"], rows)


def _library(library: _Library) -> str:
    folder = Path(str(files("plugin_sdk"))) / "languages" / library.folder
    rows = []
    for name in library.names:
        for file in sorted(folder.glob(f"{name}.*")):
            if file.suffix in (".c", ".mod"):
                continue
            rows += [[code(what), _sentence(doc)] for what, doc in _declared(library, file)]
    return table(["declaration", "says"], rows)


def _declared(library: _Library, file: Path) -> Iterator[tuple[str, str]]:
    said: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        comment = _COMMENT.match(line)
        if comment is not None:
            said.append(comment["text"])
            continue
        found = library.declaration.match(line)
        if found is not None and not library.leave_out.search(line):
            what = found["what"].partition("__attribute__")[0]
            yield " ".join(what.split()), " ".join(text for text in said if not text.startswith("---"))
        said = []
